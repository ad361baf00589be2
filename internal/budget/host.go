package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// HostMem is the host memory that this process may use.
type HostMem struct {
	Total     Bytes
	Available Bytes  // what can be taken without swapping, file cache that can be dropped included
	Source    string // what bounds Total: "physical memory", or the cgroup's file
	// ID names what bounds Total, the same for every process under that bound, in
	// containers too: the running kernel, or a cgroup of it.
	ID string
}

// HostMemory returns the smaller of physical memory and the memory limits of the
// cgroups (v1 or v2) around this process. It reads /proc and /sys each time. Swap
// counts for nothing: a model that is swapped out is slower than none.
func HostMemory() (HostMem, error) {
	return hostMemory(os.DirFS("/"))
}

// hostMemory is HostMemory for the file system at root.
func hostMemory(root fs.FS) (HostMem, error) {
	info, err := keyedBytes(root, "proc/meminfo")
	if err != nil {
		return HostMem{}, fmt.Errorf("read physical memory: %w", err)
	}
	total, hasTotal := info["MemTotal"]
	available, hasAvailable := info["MemAvailable"]
	if !hasTotal || !hasAvailable {
		return HostMem{}, errors.New("read physical memory: /proc/meminfo lacks MemTotal or MemAvailable")
	}
	m := HostMem{Total: total, Available: available, Source: "physical memory", ID: machineID(root)}
	machine := m.ID
	limits, err := memoryLimits(root)
	if err != nil {
		return HostMem{}, fmt.Errorf("read cgroup memory: %w", err)
	}
	for _, l := range limits {
		if l.limit < m.Total {
			m.Total, m.Source, m.ID = l.limit, l.source, machine+"/"+cgroupID(root, l.dir)
		}
		m.Available = min(m.Available, max(l.limit.Sub(l.used), 0))
	}
	return m, nil
}

// machineID names the running kernel: its boot id is the same in all containers.
// Where that cannot be read it is the host name, which a container has of its own.
func machineID(root fs.FS) string {
	if id := readLine(root, "proc/sys/kernel/random/boot_id"); id != "" {
		return id
	}
	return readLine(root, "proc/sys/kernel/hostname")
}

// cgroupID names a cgroup of the running kernel by its directory's inode, which is
// the same however much of the path above it a container can see.
func cgroupID(root fs.FS, dir string) string {
	if info, err := fs.Stat(root, dir); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			return fmt.Sprintf("cgroup-%d", stat.Ino)
		}
	}
	return dir
}

// UsableCores is how many cores this process can keep busy: those of its
// affinity, at most the CPU quota of the cgroups around it, at least 1. A
// fraction of a core is left out, because one thread that is throttled holds up
// all the others at every step.
func UsableCores() int {
	return usableCores(os.DirFS("/"), affinity())
}

func usableCores(root fs.FS, cores int) int {
	if quota, ok := cpuQuota(root); ok {
		cores = min(cores, int(quota))
	}
	return max(cores, 1)
}

// affinity is the number of cores that this process may run on.
func affinity() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil { // more cores than the set has bits
		return runtime.NumCPU()
	}
	return set.Count()
}

// cpuName returns the CPU's name for people, the architecture if it has none.
func cpuName(root fs.FS) string {
	text, err := readFile(root, "proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// keyedBytes reads a file of lines like "MemTotal:   24683656 kB" or
// "inactive_file 4096" (bytes). Lines of another form are left out.
func keyedBytes(root fs.FS, name string) (map[string]Bytes, error) {
	text, err := readFile(root, name)
	if err != nil {
		return nil, err
	}
	values := make(map[string]Bytes)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			continue
		}
		value := FromUint64(n)
		if len(fields) == 3 && fields[2] == "kB" {
			value = value.Mul(int64(KiB))
		}
		values[strings.TrimSuffix(fields[0], ":")] = value
	}
	return values, nil
}

// readFile returns a file's text; name has no slash in front.
func readFile(root fs.FS, name string) (string, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return "", fmt.Errorf("read /%s: %w", name, err)
	}
	return string(text), nil
}
