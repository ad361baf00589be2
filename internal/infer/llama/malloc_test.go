package llama

import (
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Contexts that are made anew again and again, by whatever thread, leave nothing mapped: the
// kernel's bound on an engine process counts what is mapped.
func TestFreedBuffersAreUnmapped(t *testing.T) { // not parallel: what is measured is the process's
	m := openModel(t, false)
	allocate := func(cells int) {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends, its arena stays
			a, err := m.NewContext(ContextOptions{Cells: cells, Sequences: 1, Batch: 64, Threads: 1, TypeK: "f32", TypeV: "f32"})
			if err == nil {
				err = a.Close()
			}
			done <- err
		}()
		require.NoError(t, <-done)
	}
	allocate(1024)
	m.Trim()
	before := mapped(t)
	for i := range 24 {
		allocate(1024 + i%7*4096)
	}
	m.Trim()
	// glibc keeps up to 40 MiB of the stacks of threads that have ended.
	require.Less(t, mapped(t)-before, 48<<10, "KiB")
}

// mapped is VmData, in KiB.
func mapped(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	n, err := strconv.Atoi(string(regexp.MustCompile(`VmData:\s+(\d+) kB`).FindSubmatch(status)[1]))
	require.NoError(t, err)
	return n
}
