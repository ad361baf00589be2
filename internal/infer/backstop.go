package infer

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tempo/internal/budget"
)

// What an engine process maps without using it all, beyond what it had mapped when
// it was bounded. The bound must leave room for that, since the kernel counts
// private writable memory when it is mapped, the ledger when it is touched. Measured
// with two threads: 40 MiB for a tiny model, 75 MiB for one of 135M.
const (
	// goArena is the address space that Go's heap takes at a time (runtime, 64-bit).
	goArena = 64 * budget.MiB
	// moreThreads is how many threads Go starts for system calls and collections
	// beside those that decode; each maps a stack of stackSize and uses a few pages.
	moreThreads = 8
	stackSize   = 8 * budget.MiB
)

// slack is what the bound of a process with so many decoding threads lets it map
// beyond its grant.
func slack(threads int) budget.Bytes {
	return goArena.Add(stackSize.Mul(int64(threads + moreThreads)))
}

// bound has the kernel refuse a process more private memory than brings it to
// grant, by a limit on its data segment (Linux 4.7 or later); 0 lifts the bound. A
// process that is refused memory ends: Go's runtime and llama.cpp know no other way.
func bound(pid int, grant budget.Bytes, threads int) error {
	limit := uint64(unix.RLIM_INFINITY)
	if grant > 0 {
		resident, err := budget.ProportionalSetSize(pid)
		if err != nil {
			return fmt.Errorf("bound the engine's memory: %w", err)
		}
		mapped, err := dataSize(os.DirFS("/"), pid)
		if err != nil {
			return fmt.Errorf("bound the engine's memory: %w", err)
		}
		limit = uint64(mapped.Add(max(grant.Sub(resident), 0)).Add(slack(threads)))
	}
	var r unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_DATA, nil, &r)
	if err == nil {
		r.Cur = min(limit, r.Max)
		err = unix.Prlimit(pid, unix.RLIMIT_DATA, &r, nil)
	}
	if err != nil {
		return fmt.Errorf("bound the engine's memory: set the limit of process %d: %w", pid, err)
	}
	return nil
}

// dataSize is what a process has mapped privately and for writing, as the limit
// counts it.
func dataSize(root fs.FS, pid int) (budget.Bytes, error) {
	name := path.Join("proc", strconv.Itoa(pid), "status")
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, fmt.Errorf("read the size of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // VmData:   123 kB
		if len(fields) != 3 || fields[0] != "VmData:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the size of process %d: /%s: %w", pid, name, err)
		}
		return budget.KiB.Mul(kib), nil
	}
	return 0, fmt.Errorf("read the size of process %d: /%s has no line VmData", pid, name)
}
