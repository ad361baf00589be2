package infer_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

// dataLimit is what a process may map privately.
func dataLimit(t *testing.T, pid int) uint64 {
	t.Helper()
	var r unix.Rlimit
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_DATA, nil, &r))
	return r.Cur
}

// loadBounded opens and loads for a CPU, with a grant of so much beyond what the
// process has.
func loadBounded(t *testing.T, h *infer.Host, seen *processes, more budget.Bytes) infer.Shape {
	t.Helper()
	_, err := h.Open(t.Context(), infer.Spec{GPU: -1, Threads: 2})
	require.NoError(t, err)
	held, err := budget.ProportionalSetSize(seen.newest())
	require.NoError(t, err)
	shape := infer.Shape{Sequences: 4, Cells: 1024, Grant: held.Add(more)}
	_, err = h.Load(t.Context(), shape)
	require.NoError(t, err)
	return shape
}

// An engine that takes more than its grant dies, and nothing else does.
func TestHostBoundsItsEngine(t *testing.T) {
	t.Parallel()
	o, other := options(modeHungry), options(modeSleeper)
	seen, seenOther := watch(&o), watch(&other)
	h, neighbour := newHost(t, o), newHost(t, other)
	shape := loadBounded(t, h, seen, 100*budget.MiB)
	load(t, neighbour)
	first := seen.newest()

	arrived, errs := make(chan struct{}, 2), make(chan error, 2)
	go func() {
		_, err := neighbour.Generate(t.Context(), arriving("neighbour", 500, arrived))
		errs <- err
	}()
	<-arrived
	mate := make(chan error, 1)
	go func() {
		_, err := h.Generate(t.Context(), arriving("mate", aMinute, arrived))
		mate <- err
	}()
	<-arrived
	r := job("culprit", 1)
	r.Job.Prompt = "I am hungry"
	_, err := h.Generate(t.Context(), r)
	for _, err := range []error{err, <-mate} {
		var died *infer.DiedError
		require.ErrorAs(t, err, &died)
		require.Contains(t, died.Reason, fmt.Sprintf("its memory was bounded to %v", shape.Grant))
		require.Contains(t, died.Reason, "out of memory", "what it wrote")
		require.NotContains(t, died.Reason, "goroutine ")
	}
	_, err = h.Generate(t.Context(), job("next", 1))
	require.NoError(t, err)
	require.NotEqual(t, first, seen.newest())
	require.Less(t, dataLimit(t, seen.newest()), uint64(unix.RLIM_INFINITY), "its successor is bounded too")
	require.NoError(t, <-errs)
	require.Len(t, seenOther.begun, 1)
	require.Equal(t, uint64(unix.RLIM_INFINITY), dataLimit(t, seenOther.newest()), "no grant, no bound")
}

// The bound follows the shape: up before more is taken, down after it is given back.
func TestBoundFollowsTheShape(t *testing.T) {
	t.Parallel()
	o := options(modeHungry)
	seen := watch(&o)
	h := newHost(t, o)
	shape := loadBounded(t, h, seen, 100*budget.MiB)
	before := dataLimit(t, seen.newest())
	reshape := func(grant budget.Bytes) uint64 {
		next := shape
		next.Grant = grant
		_, err := h.Reshape(t.Context(), next)
		require.NoError(t, err)
		return dataLimit(t, seen.newest())
	}
	const some = 40 * budget.MiB // what such a process takes and gives back by itself
	up := reshape(shape.Grant.Add(budget.GiB))
	require.InDelta(t, float64(before)+float64(budget.GiB), float64(up), float64(some))
	require.InDelta(t, float64(before), float64(reshape(shape.Grant)), float64(some))
	require.Equal(t, uint64(unix.RLIM_INFINITY), reshape(0))
	require.InDelta(t, float64(up), float64(reshape(shape.Grant.Add(budget.GiB))), float64(some))

	// A refusal leaves the bound as it was.
	arrived, ended := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := h.Generate(ctx, arriving("runs", aMinute, arrived))
		ended <- err
	}()
	<-arrived
	var busy *infer.BusyError
	require.Eventually(t, func() bool {
		_, err := h.Reshape(t.Context(), infer.Shape{Grant: 2 * budget.GiB})
		if err == nil { // it was too early
			reshape(shape.Grant.Add(budget.GiB))
			return false
		}
		require.ErrorAs(t, err, &busy)
		return true
	}, soon, 1)
	require.InDelta(t, float64(up), float64(dataLimit(t, seen.newest())), float64(some))
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)

	// A job may take what the bound leaves it.
	reshape(shape.Grant.Add(2 * budget.GiB))
	r := job("fed", 1)
	r.Job.Prompt = strings.Repeat("hungry ", 3)
	_, err := h.Generate(t.Context(), r)
	require.NoError(t, err)
	require.Len(t, seen.begun, 1)
	_, err = os.Stat(fmt.Sprintf("/proc/%d", seen.newest()))
	require.NoError(t, err)
}

// CUDA reserves address space far beyond what it uses.
func TestNoBoundOnAGPU(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	seen := watch(&o)
	h := newHost(t, o)
	_, err := h.Open(t.Context(), infer.Spec{GPU: 0})
	require.NoError(t, err)
	_, err = h.Load(t.Context(), infer.Shape{Sequences: 4, Cells: 1024, Grant: budget.GiB})
	require.NoError(t, err)
	require.Equal(t, uint64(unix.RLIM_INFINITY), dataLimit(t, seen.newest()))
}
