package infer_test

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

// An engine that breaks when its shape is changed is replaced by one that has the
// new shape from the start, and Reshape returns what that holds.
func TestHostReplacesWithTheNewShape(t *testing.T) {
	t.Parallel()
	o := options(modeShy)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	first := seen.newest()
	arrived, errs := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		_, err := h.Generate(t.Context(), arriving("inside", aMinute, arrived))
		errs <- err
	}()
	<-arrived
	f, err := h.Reshape(t.Context(), infer.Shape{Sequences: 4, Cells: 256})
	require.NoError(t, err)
	require.Equal(t, int64(256*1024), int64(f.KVCache))
	var died *infer.DiedError
	require.ErrorAs(t, <-errs, &died)
	require.Contains(t, died.Reason, "no memory")
	require.True(t, died.Reshaping, "no job is at fault")
	require.NotEqual(t, first, seen.newest())

	// And so has each that comes after it.
	second := seen.newest()
	require.NoError(t, syscall.Kill(second, syscall.SIGKILL))
	require.Eventually(t, func() bool { return seen.hasEnded(second) }, soon, time.Millisecond)
	r := job("too long for it", 1)
	r.Job.Prompt = infertest.Words(300)
	var pool *infer.PoolError
	_, err = h.Generate(t.Context(), r)
	require.ErrorAs(t, err, &pool)
	require.Equal(t, infer.PoolError{Need: 301, Have: 256}, *pool)
}

// An unloaded engine that dies is replaced by one that is unloaded, too.
func TestHostReplacesAnUnloadedEngine(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	_, err := h.Reshape(t.Context(), infer.Shape{})
	require.NoError(t, err)
	first := seen.newest()
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Eventually(t, func() bool { return seen.hasEnded(first) }, soon, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = h.Generate(ctx, job("waits", 1))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ended := make(chan error, 1)
	go func() {
		_, err := h.Generate(t.Context(), job("waits too", 1))
		ended <- err
	}()
	_, err = h.Reshape(t.Context(), infer.Shape{Sequences: 4, Cells: 512})
	require.NoError(t, err)
	require.NoError(t, <-ended)
	require.NotEqual(t, first, seen.newest())
}

// An engine that does not load is ended in time, and counts as failed.
func TestHostEndsAnEngineThatDoesNotLoad(t *testing.T) {
	t.Parallel()
	o := options(modeSlow)
	o.Env = append(o.Env, fileVar+"="+filepath.Join(t.TempDir(), "loaded"))
	o.LoadTimeout = 300 * time.Millisecond
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	first := seen.newest()
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Eventually(t, func() bool { return seen.hasEnded(first) }, soon, time.Millisecond)
	var start *infer.StartError
	_, err := h.Generate(t.Context(), job("waits", 1))
	require.ErrorAs(t, err, &start)
	require.Contains(t, start.Error(), "has not answered for 300ms")
	require.NoError(t, h.Close())
	seen.requireEnded(t, 6)
}
