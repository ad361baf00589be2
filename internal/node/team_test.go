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
	"tempo/internal/gguf"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local/localtest"
	"tempo/internal/queue"
)

// TestSeveralModels is not parallel: the heap's limit is the process's. All models are
// opened and none is loaded.
func TestSeveralModels(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	spec := infertest.TinySpec(t)
	other := filepath.Join(t.TempDir(), "other.gguf")
	model := gguf.Tiny()
	model.Context = 512
	require.NoError(t, gguf.WriteFile(other, model))
	c, err := config.Load(nil, []string{"TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_LLAMA_LIB=" + spec.LibDir})
	require.NoError(t, err)
	c.Engine.Model = []string{"a=" + spec.Model, "b=" + other}
	alive := map[int]bool{}
	o := Options{Args: []string{localtest.EngineArg}, Stderr: os.Stderr, OnEngine: func(pid int, is bool) { alive[pid] = is }}

	p, err := PreviewStart(t.Context(), c, o, nil, nil)
	require.NoError(t, err)
	require.Len(t, p.Models, 2)
	require.Equal(t, []string{"a", "b"}, []string{p.Models[0].Name, p.Models[1].Name})
	require.Equal(t, []string{spec.Model, other}, []string{p.Models[0].Spec.Model, p.Models[1].Spec.Model})
	require.Equal(t, 512, p.Models[1].Facts.Context)
	require.Equal(t, p.Models[0].Plan, p.Plan)
	require.Equal(t, spec.Model, p.Spec.Model)
	all := []api.Claim{{Worker: "other", Bytes: int64(p.Device.Total.Sub(reserve).Sub(20 * budget.MiB))}}
	_, err = PreviewStart(t.Context(), c, o, all, nil)
	require.ErrorContains(t, err, "model a: ")

	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	client, err := queue.ConnectEmbedded(t.Context(), server, nil)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.NoError(t, client.EnsureTopology(t.Context(), queue.Topology{}))
	before := debug.SetMemoryLimit(-1)
	n, err := Start(t.Context(), c, client, o, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, n.Worker.Models())
	require.Equal(t, int64(n.Worker.OwnShare()), debug.SetMemoryLimit(-1))
	require.Empty(t, n.Worker.EachStats(), "nothing is loaded")
	require.NoError(t, n.Close())
	require.Equal(t, before, debug.SetMemoryLimit(-1))
	claims, err := client.Claims(t.Context(), p.Device.MemoryID)
	require.NoError(t, err)
	require.Empty(t, claims)
	require.NotEmpty(t, alive)
	for pid, is := range alive {
		require.False(t, is, "engine %d", pid)
	}

	require.NoError(t, os.WriteFile(other, []byte("GGUF"), 0o600))
	_, err = Start(t.Context(), c, client, o, nil)
	require.ErrorContains(t, err, "model b: ")
	require.NotContains(t, err.Error(), "model a: ")
}
