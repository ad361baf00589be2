package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// ProportionalSetSize is the memory of a process in which each page counts by
// its share of the processes that map it: over all processes of a command it
// adds up to what the command really takes. It reads /proc/<pid>/smaps_rollup
// (Linux 4.14 or later), which takes the kernel some milliseconds for each
// GiB; see [SetSizes]. It returns ErrProcessNotFound if the process has ended.
func ProportionalSetSize(pid int) (Bytes, error) {
	return proportionalSetSize(os.DirFS("/"), pid)
}

func proportionalSetSize(root fs.FS, pid int) (Bytes, error) {
	values, name, err := setSizes(root, pid)
	if err != nil {
		return 0, err
	}
	return proportional(values, pid, name)
}

// proportional finds the size in what setSizes has read.
func proportional(values map[string]Bytes, pid int, name string) (Bytes, error) {
	pss, ok := values["Pss"]
	if !ok {
		return 0, fmt.Errorf("read memory of process %d: /%s has no line Pss", pid, name)
	}
	return pss, nil
}

// UncachedSetSize is the part of [ProportionalSetSize] that is no file cache: what
// the process has taken out of [HostMem]'s Available. The weights of a model that
// is mapped from its file are not in it: the system counts them as available, since
// it could drop them. Errors are those of ProportionalSetSize.
func UncachedSetSize(pid int) (Bytes, error) {
	return uncachedSetSize(os.DirFS("/"), pid)
}

func uncachedSetSize(root fs.FS, pid int) (Bytes, error) {
	values, name, err := setSizes(root, pid)
	if err != nil {
		return 0, err
	}
	return uncached(values, pid, name)
}

// uncached finds the size in what setSizes has read.
func uncached(values map[string]Bytes, pid int, name string) (Bytes, error) {
	if own, ok := values["Pss_Anon"]; ok {
		return own.Add(values["Pss_Shmem"]), nil
	}
	own, ok := values["Anonymous"] // Linux before 5.4
	if !ok {
		return 0, fmt.Errorf("read memory of process %d: /%s has no line Pss_Anon or Anonymous", pid, name)
	}
	return own, nil
}

// setSizes reads the smaps_rollup of a process; name is the file's.
func setSizes(root fs.FS, pid int) (values map[string]Bytes, name string, err error) {
	name = path.Join("proc", strconv.Itoa(pid), "smaps_rollup")
	values, err = keyedBytes(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // gone, or a zombie
		return nil, name, fmt.Errorf("read memory of process %d: %w", pid, ErrProcessNotFound)
	case err != nil:
		return nil, name, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return values, name, nil
}
