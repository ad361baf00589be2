package local_test

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// engineHost makes a Host over engines of their own, and counts them.
func engineHost(t *testing.T) (h *infer.Host, pid, begun *atomic.Int64) {
	t.Helper()
	pid, begun = &atomic.Int64{}, &atomic.Int64{}
	h = infer.NewHost(infer.HostOptions{
		Command: []string{os.Args[0]},
		Env:     []string{engineVar + "=1", "GORACE=atexit_sleep_ms=0"},
		Stderr:  os.Stderr,
		OnProcess: func(id int, alive bool) {
			if alive {
				pid.Store(int64(id))
				begun.Add(1)
			}
		},
	}, nil)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h, pid, begun
}

func generate(t *testing.T, e infer.Engine, words, maxTokens int) {
	t.Helper()
	_, err := e.Generate(t.Context(), infer.Request{ID: "job", Lease: infertest.NewLease(0), Job: &api.Request{
		URL: api.Completions, Prompt: infertest.Words(words), MaxTokens: maxTokens,
	}})
	require.NoError(t, err)
}

// An engine that keeps to the estimate lives under a bound of just that.
func TestRunsWithinItsGrant(t *testing.T) {
	t.Parallel()
	h, _, begun := engineHost(t)
	facts, err := h.Open(t.Context(), infertest.TinySpec(t))
	require.NoError(t, err)
	shape := infer.Shape{Sequences: 8, Cells: 2048}
	estimate, err := h.DryRun(t.Context(), shape)
	require.NoError(t, err)
	shape.Grant = facts.Process.Add(estimate.Total())
	_, err = h.Load(t.Context(), shape)
	require.NoError(t, err)
	generate(t, h, 1000, 100)
	shape.Cells, shape.Grant = 4096, shape.Grant.Add(estimate.KVCache).Add(estimate.ParallelBatch)
	_, err = h.Reshape(t.Context(), shape)
	require.NoError(t, err)
	generate(t, h, 1500, 100)
	require.Equal(t, int64(1), begun.Load())
}

// A pool that shrinks gives its memory back to the system, and an unloaded model
// leaves the process about as small as it began.
func TestReshapeGivesMemoryBack(t *testing.T) {
	t.Parallel()
	h, pid, _ := engineHost(t)
	_, err := h.Open(t.Context(), infertest.TinySpec(t))
	require.NoError(t, err)
	held := func() int64 {
		b, err := budget.ProportionalSetSize(int(pid.Load()))
		require.NoError(t, err)
		return int64(b)
	}
	begun := held()
	large := infer.Shape{Sequences: 4, Cells: 1 << 18} // 64 MiB
	_, err = h.Load(t.Context(), large)
	require.NoError(t, err)
	full := held()
	require.Greater(t, full-begun, int64(64<<20))
	small, err := h.Reshape(t.Context(), infer.Shape{Sequences: 4, Cells: 1 << 16})
	require.NoError(t, err)
	require.InDelta(t, 16<<20, int64(small.KVCache), 1<<20)
	require.Greater(t, full-held(), int64(40<<20))
	_, err = h.Reshape(t.Context(), infer.Shape{})
	require.NoError(t, err)
	require.Less(t, held()-begun, int64(20<<20)) // with the shadows of the race detector
	_, err = h.Reshape(t.Context(), large)
	require.NoError(t, err)
	require.Greater(t, held()-begun, int64(64<<20))
	generate(t, h, 100, 10)
}

// The names that infer tells are those that llama.cpp takes.
func TestCacheTypes(t *testing.T) {
	t.Parallel()
	require.Equal(t, llama.CacheTypes(), infer.CacheTypes())
	half := infertest.TinySpec(t)
	// Heads of 32: quantised types come in blocks of so many.
	tiny := gguf.Tiny()
	tiny.Embedding, tiny.Heads, tiny.KVHeads = 64, 2, 1
	require.NoError(t, gguf.WriteFile(half.Model, tiny))
	for _, name := range append(infer.CacheTypes(), "") {
		spec := half
		spec.CacheTypeK, spec.CacheTypeV = name, name
		e := newEngine(t)
		_, err := e.Open(t.Context(), spec)
		require.NoError(t, err, name)
		dry, err := e.DryRun(t.Context(), infer.Shape{Sequences: 2, Cells: 4096})
		require.NoError(t, err, name)
		loaded, err := e.Load(t.Context(), infer.Shape{Sequences: 2, Cells: 4096})
		require.NoError(t, err, name)
		require.Equal(t, dry.KVCache, loaded.KVCache, name)
		generate(t, e, 100, 10)
		if strings.Contains(name, "q") {
			require.Less(t, int64(loaded.KVCache), int64(4096*2*2*32*2*7/10), name)
		}
	}

	half.CacheTypeK = "q3_k"
	for _, e := range []infer.Engine{newEngine(t), newHost(t)} {
		_, err := e.Open(t.Context(), half)
		require.NoError(t, err)
		_, err = e.DryRun(t.Context(), infer.Shape{Sequences: 2, Cells: 512})
		var start *infer.StartError
		require.ErrorAs(t, err, &start)
		require.Contains(t, err.Error(), "q3_k")
		require.Contains(t, start.Hint(), "q8_0")
	}
}
