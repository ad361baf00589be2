package node

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local/localtest"
	"tempo/internal/queue"
	"tempo/internal/setup"
	"tempo/internal/worker"
)

func TestMain(m *testing.M) { localtest.Main(func() { os.Exit(m.Run()) }) }

// TestHeapLimit is not parallel: the limit is the process's.
func TestHeapLimit(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would have each engine sleep at its end
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	client, err := queue.ConnectEmbedded(t.Context(), server, nil)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.NoError(t, client.EnsureTopology(t.Context(), queue.Topology{}))
	spec := infertest.TinySpec(t)
	c, err := config.Load(nil, []string{"TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_MODEL=" + spec.Model, "TEMPO_LLAMA_LIB=" + spec.LibDir})
	require.NoError(t, err)
	before := debug.SetMemoryLimit(-1)
	const extra = 2 * budget.GiB
	shares := map[budget.Bytes]int64{}
	for _, more := range []budget.Bytes{0, extra} {
		n, err := Start(t.Context(), c, client, Options{Args: []string{localtest.EngineArg}, Stderr: os.Stderr, ExtraOverhead: more}, nil)
		require.NoError(t, err)
		shares[more] = debug.SetMemoryLimit(-1)
		require.Equal(t, int64(n.Worker.OwnShare()), shares[more])
		require.Greater(t, n.Worker.Stats().Estimate.Overhead, shares[more], "the engine's process is beside it")
		require.Positive(t, n.Worker.Stats().Peak)
		require.NoError(t, n.Close())
		require.Equal(t, before, debug.SetMemoryLimit(-1), "as it was")
	}
	require.Greater(t, shares[extra], int64(extra))
	require.Less(t, shares[0], int64(budget.GiB))

	debug.SetMemoryLimit(int64(10 * budget.MiB)) // the user's
	defer debug.SetMemoryLimit(before)
	n, err := Start(t.Context(), c, client, Options{Args: []string{localtest.EngineArg}}, nil)
	require.NoError(t, err)
	require.Equal(t, int64(10*budget.MiB), debug.SetMemoryLimit(-1))
	require.NoError(t, n.Close())
	require.Equal(t, int64(10*budget.MiB), debug.SetMemoryLimit(-1))
}

// TestPreviewStart needs no queue, loads nothing and leaves no engine behind.
func TestPreviewStart(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	spec := infertest.TinySpec(t)
	c, err := config.Load(nil, []string{"TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_MODEL=" + spec.Model, "TEMPO_LLAMA_LIB=" + spec.LibDir})
	require.NoError(t, err)
	alive := map[int]bool{}
	o := Options{Args: []string{localtest.EngineArg}, Stderr: os.Stderr, OnEngine: func(pid int, is bool) { alive[pid] = is }}
	heap := debug.SetMemoryLimit(-1)
	p, err := PreviewStart(t.Context(), c, o, nil, nil)
	require.NoError(t, err)
	require.Equal(t, budget.CPUID, p.Device.ID)
	require.Equal(t, spec.Model, p.Spec.Model)
	require.NotEmpty(t, p.Reason)
	require.Positive(t, p.Plan.Cells)
	require.LessOrEqual(t, p.Plan.Footprint.Total(), p.Limit)
	require.True(t, p.Parallel.Automatic)
	require.GreaterOrEqual(t, p.Parallel.Rule, p.Parallel.Tokens)
	require.Equal(t, heap, debug.SetMemoryLimit(-1))

	// Others have claimed all but a little.
	all := []api.Claim{{Worker: "other", Bytes: int64(p.Device.Total.Sub(reserve).Sub(20 * budget.MiB))}}
	p, err = PreviewStart(t.Context(), c, o, all, nil)
	var large *budget.TooLargeError
	require.ErrorAs(t, err, &large)
	require.Contains(t, p.Reason, "1 other worker")
	require.LessOrEqual(t, p.Limit, 20*budget.MiB)
	require.Len(t, alive, 2)
	for pid, is := range alive {
		require.False(t, is, "engine %d", pid)
	}
	device, err := Device(c)
	require.NoError(t, err)
	require.Equal(t, p.Device.MemoryID, device.MemoryID)

	c.Memory.MaxParallelTokens = 3
	p, err = PreviewStart(t.Context(), c, o, nil, nil)
	require.NoError(t, err)
	require.Equal(t, worker.Parallel{Tokens: 3}, p.Parallel)
}

func TestFindPieces(t *testing.T) {
	// An empty cache.
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	model := filepath.Join(dir, "SmolLM2.Q4_1.gguf")
	require.NoError(t, os.WriteFile(model, nil, 0o600))

	spec, models, err := findPieces(&config.Config{Engine: config.Engine{Model: []string{model}, LlamaLib: dir, BatchSize: 7, ContextSize: 9}})
	require.NoError(t, err)
	require.Equal(t, []ModelFile{{"SmolLM2", model}}, models)
	require.Equal(t, model, spec.Model)
	require.Equal(t, dir, spec.LibDir)
	require.Equal(t, budget.UsableCores(), spec.Threads)
	require.Equal(t, []int{-1, 7, 9}, []int{spec.GPU, spec.Batch, spec.Context})

	spec, models, err = findPieces(&config.Config{Engine: config.Engine{Model: []string{"served=" + model, "b=" + model}, LlamaLib: dir, Threads: 3}})
	require.NoError(t, err)
	require.Equal(t, []ModelFile{{"served", model}, {"b", model}}, models)
	require.Equal(t, model, spec.Model)
	require.Equal(t, 3, spec.Threads)

	for says, e := range map[string]config.Engine{
		"the llama.cpp libraries not found":               {Model: []string{model}},
		"the model not found":                             {LlamaLib: dir},
		"the llama.cpp libraries and the model not found": {},
	} {
		_, _, err = findPieces(&config.Config{Engine: e})
		require.ErrorIs(t, err, setup.ErrNotSetUp, says)
		require.EqualError(t, err, "find libraries and model: look in the cache: "+says)
		var hinted interface{ Hint() string }
		require.ErrorAs(t, err, &hinted, says)
		require.NotEmpty(t, hinted.Hint())
	}

	for path, says := range map[string]string{
		filepath.Join(dir, "none.gguf"): "none.gguf: no such file or directory",
		dir:                             "it is a directory",
	} {
		_, _, err = findPieces(&config.Config{Engine: config.Engine{Model: []string{path}, LlamaLib: dir}})
		var missing *ModelError
		require.ErrorAs(t, err, &missing)
		require.ErrorContains(t, err, says)
		require.Contains(t, missing.Hint(), "--model")
	}
	require.ErrorIs(t, &ModelError{Err: os.ErrNotExist}, os.ErrNotExist)
}

func TestStartFindsNothing(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := Start(t.Context(), &config.Config{}, nil, Options{}, nil)
	require.ErrorIs(t, err, setup.ErrNotSetUp)
}

func TestHasCUDA(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.False(t, hasCUDA(dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "libggml-cuda.so"), nil, 0o600))
	require.True(t, hasCUDA(dir))
	require.False(t, hasCUDA(filepath.Join(dir, "none")))
}
