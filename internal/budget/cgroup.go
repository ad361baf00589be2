package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cgroup is where this process stands in one hierarchy.
type cgroup struct {
	version int
	dirs    []string // relative to the root: its own directory, then those around it
}

// memoryLimit is one memory limit around this process.
type memoryLimit struct {
	limit  Bytes
	used   Bytes  // without file cache, which can be dropped
	dir    string // of the cgroup that has it
	source string
}

// limitFiles are the limits of a cgroup and what counts against each. Beyond
// memory.high a process is not killed, but throttled until it is no use, and one
// that v1 lets swap has less left of memory and swap than of memory alone.
func limitFiles(version int) (limitToUsed map[string]string, cacheKeys []string) {
	if version == 1 {
		return map[string]string{
			"memory.limit_in_bytes":       "memory.usage_in_bytes",
			"memory.memsw.limit_in_bytes": "memory.memsw.usage_in_bytes",
		}, []string{"total_inactive_file", "total_active_file"}
	}
	return map[string]string{
		"memory.max":  "memory.current",
		"memory.high": "memory.current",
	}, []string{"inactive_file", "active_file"}
}

// memoryLimits returns the limits of all cgroups around this process, the
// innermost first; an unlimited one is left out. A system without cgroups has none.
func memoryLimits(root fs.FS) ([]memoryLimit, error) {
	group, err := findCgroup(root, "memory")
	if err != nil {
		return nil, err
	}
	limitToUsed, cacheKeys := limitFiles(group.version)
	var limits []memoryLimit
	for _, dir := range group.dirs {
		stat, err := keyedBytes(root, path.Join(dir, "memory.stat"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, limitFile := range slices.Sorted(maps.Keys(limitToUsed)) {
			limit, ok, err := readAmount(root, path.Join(dir, limitFile))
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			used, _, err := readAmount(root, path.Join(dir, limitToUsed[limitFile]))
			if err != nil {
				return nil, err
			}
			for _, key := range cacheKeys {
				used = used.Sub(stat[key])
			}
			limits = append(limits, memoryLimit{
				limit: limit, used: max(used, 0), dir: dir,
				source: fmt.Sprintf("cgroup v%d %s", group.version, "/"+path.Join(dir, limitFile)),
			})
		}
	}
	return limits, nil
}

// cpuQuota returns the smallest CPU quota around this process, in cores. A file
// that cannot be read counts as no quota: it bounds speed, not memory.
func cpuQuota(root fs.FS) (cores float64, ok bool) {
	group, err := findCgroup(root, "cpu")
	if err != nil {
		return 0, false
	}
	for _, dir := range group.dirs {
		var quota, period string // microseconds
		if group.version == 2 {
			quota, period, _ = strings.Cut(readLine(root, path.Join(dir, "cpu.max")), " ")
		} else {
			quota = readLine(root, path.Join(dir, "cpu.cfs_quota_us"))
			period = readLine(root, path.Join(dir, "cpu.cfs_period_us"))
		}
		q, errQuota := strconv.ParseFloat(quota, 64)
		p, errPeriod := strconv.ParseFloat(period, 64)
		if errQuota != nil || errPeriod != nil || q <= 0 || p <= 0 { // "max" and -1 are no quota
			continue
		}
		if share := q / p; !ok || share < cores {
			cores, ok = share, true
		}
	}
	return cores, ok
}

// findCgroup finds the hierarchy of a controller: that of cgroup v1 which has
// it, else cgroup v2. It has no directories if there is neither.
func findCgroup(root fs.FS, controller string) (cgroup, error) {
	version, own, err := ownCgroup(root, controller)
	if version == 0 || err != nil {
		return cgroup{}, err
	}
	mounts, err := readFile(root, "proc/self/mountinfo")
	if err != nil {
		return cgroup{}, err
	}
	for line := range strings.Lines(mounts) {
		// 35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
		left, right, ok := strings.Cut(line, " - ")
		before, after := strings.Fields(left), strings.Fields(right)
		if !ok || len(before) < 5 || len(after) < 3 {
			continue
		}
		isV2 := version == 2 && after[0] == "cgroup2"
		isV1 := version == 1 && after[0] == "cgroup" && slices.Contains(strings.Split(after[2], ","), controller)
		if !isV1 && !isV2 {
			continue
		}
		return cgroup{version: version, dirs: around(before[3], before[4], own)}, nil
	}
	return cgroup{}, nil
}

// ownCgroup returns the path of this process in the controller's hierarchy;
// version is 0 if there is none.
func ownCgroup(root fs.FS, controller string) (version int, own string, err error) {
	text, err := readFile(root, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // id:controllers:path
		if len(fields) != 3 {
			continue
		}
		if slices.Contains(strings.Split(fields[1], ","), controller) {
			return 1, fields[2], nil
		}
		if fields[0] == "0" && fields[1] == "" {
			version, own = 2, fields[2]
		}
	}
	return version, own, nil
}

// around returns the directories from own up to the mount point. mountRoot is
// the part of the hierarchy that is mounted there: all of it on a host, the
// container's own in a container without a cgroup namespace.
func around(mountRoot, mountPoint, own string) []string {
	top := strings.TrimPrefix(mountPoint, "/")
	inside, err := filepath.Rel(mountRoot, own)
	if err != nil || strings.HasPrefix(inside, "..") {
		inside = "" // this process lies outside of what is mounted
	}
	var dirs []string
	for dir := path.Join(top, inside); ; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
		if dir == top || dir == "." {
			return dirs
		}
	}
}

// readAmount reads a file with one number of bytes. It is not ok where the file
// is missing or says that there is no limit.
func readAmount(root fs.FS, name string) (n Bytes, ok bool, err error) {
	text, err := readFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	value := strings.TrimSpace(text)
	if value == "max" {
		return 0, false, nil
	}
	number, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("parse /%s: %w", name, err)
	}
	return FromUint64(number), true, nil
}

// readLine returns a file's text without the end of line, "" if it has none.
func readLine(root fs.FS, name string) string {
	text, err := readFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}
