package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/internal/config"
	"tempo/internal/hub"
	"tempo/internal/hub/hubtest"
	"tempo/internal/node"
)

// TestFetchModels is not parallel: it sets the cache.
func TestFetchModels(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	h := hubtest.New(t, "word", map[string][]byte{"org/repo/a.gguf": []byte("aaaa"), "org/repo/b.Q8_0.gguf": []byte("bbbb")})
	core, logs := observer.New(zap.InfoLevel)
	fetch := func(models ...string) error {
		c := &config.Config{Engine: config.Engine{Model: models}, Hub: config.Hub{Endpoint: h.URL, Token: "word"}}
		return fetchModels(t.Context(), c, &Screen{out: &bytes.Buffer{}}, zap.New(core))
	}
	// A wrong path is said before anything is fetched.
	var missing *node.ModelError
	require.ErrorAs(t, fetch("hf://org/repo/a.gguf", "/none.gguf"), &missing)
	require.Zero(t, h.Requests.Load())

	require.NoError(t, fetch("x=hf://org/repo/a.gguf", "hf://org/repo/b.Q8_0.gguf"))
	files, err := node.Models(&config.Config{Engine: config.Engine{Model: []string{"x=hf://org/repo/a.gguf", "hf://org/repo/b.Q8_0.gguf"}}})
	require.NoError(t, err)
	require.Equal(t, []string{"x", "b"}, []string{files[0].Name, files[1].Name})
	require.Equal(t, 2, logs.FilterMessage("the model is in the cache").Len())
	lines := logs.FilterMessage("fetching a model").FilterField(zap.String("model", "x")).All()
	require.Equal(t, map[string]any{"model": "x", "bytes": int64(4), "total_bytes": int64(4)}, lines[len(lines)-1].ContextMap())

	asked := h.Requests.Load()
	logs.TakeAll()
	require.NoError(t, fetch("x=hf://org/repo/a.gguf"))
	require.Equal(t, asked, h.Requests.Load())
	require.Zero(t, logs.Len(), "nothing to say")

	var not *hub.NotFoundError
	require.ErrorAs(t, fetch("hf://org/repo/c.gguf"), &not)
}

// TestSetupOfModels is not parallel: it sets the environment.
func TestSetupOfModels(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	h := hubtest.New(t, "", map[string][]byte{"org/repo/a.gguf": []byte("aaaa")})
	t.Setenv("HF_ENDPOINT", h.URL)
	t.Setenv("HF_TOKEN", "")
	here := filepath.Join(t.TempDir(), "here.gguf")
	require.NoError(t, os.WriteFile(here, []byte("x"), 0o600))
	set := func(args ...string) error {
		command := Worker()
		command.SetArgs(append([]string{"setup", "--only", "model"}, args...))
		return execute(t.Context(), command)
	}
	path := filepath.Join(cache, "tempo/models/hf/org/repo/main/a.gguf")
	require.NoError(t, set("--model", "hf://org/repo/a.gguf", "--model", here))
	require.FileExists(t, path)

	require.NoError(t, os.WriteFile(path, []byte("abab"), 0o600)) // of the same size
	t.Setenv("TEMPO_MODEL", "hf://org/repo/a.gguf")
	require.NoError(t, set())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "aaaa", string(content), "each byte is checked")

	var missing *node.ModelError
	require.ErrorAs(t, set("--model", here+"x"), &missing)
	var none *hub.EndpointError
	t.Setenv("HF_ENDPOINT", "")
	require.ErrorAs(t, set("--model", "hf://org/repo/b.gguf"), &none)
	var usage *UsageError
	require.ErrorAs(t, set("--model", "hf://b.gguf"), &usage)
	require.ErrorAs(t, set("--model=a=x", "--model=a=y"), &usage)
}

func TestFetchProgress(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	var lines []int64
	p := newFetchProgress("big", &Screen{out: &out, terminal: true}, func(done, _ int64) { lines = append(lines, done) })
	p.now = func() time.Time { return now }
	p.show(1_000_000_000, 4_000_000_000)
	now = now.Add(10 * time.Second)
	p.show(2_000_000_000, 4_000_000_000)
	p.end()
	require.Equal(t, eraseLine+"fetching big: 25 % of 4.0 GB"+eraseLine+"fetching big: 50 % of 4.0 GB, 100.0 MB/s, 20s left"+eraseLine, out.String())
	require.Empty(t, lines)

	p.screen = &Screen{out: &out}
	for n := range int64(9) { // one a second, and the last
		now = now.Add(time.Second)
		p.show(n, 8)
	}
	require.Equal(t, []int64{0, 5, 8}, lines)
}
