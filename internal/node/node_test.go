package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/setup"
)

func TestFindPieces(t *testing.T) {
	// An empty cache.
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	model := filepath.Join(dir, "SmolLM2.Q4_1.gguf")
	require.NoError(t, os.WriteFile(model, nil, 0o600))

	spec, name, err := findPieces(&config.Config{Engine: config.Engine{Model: model, LlamaLib: dir, BatchSize: 7, ContextSize: 9}})
	require.NoError(t, err)
	require.Equal(t, "SmolLM2", name)
	require.Equal(t, model, spec.Model)
	require.Equal(t, dir, spec.LibDir)
	require.Equal(t, budget.UsableCores(), spec.Threads)
	require.Equal(t, []int{-1, 7, 9}, []int{spec.GPU, spec.Batch, spec.Context})

	spec, name, err = findPieces(&config.Config{Engine: config.Engine{Model: "served=" + model, LlamaLib: dir, Threads: 3}})
	require.NoError(t, err)
	require.Equal(t, "served", name)
	require.Equal(t, 3, spec.Threads)

	for what, e := range map[string]config.Engine{
		"no libraries": {Model: model},
		"no model":     {LlamaLib: dir},
		"neither":      {},
	} {
		_, _, err = findPieces(&config.Config{Engine: e})
		require.ErrorIs(t, err, setup.ErrNotSetUp, what)
		var hinted interface{ Hint() string }
		require.ErrorAs(t, err, &hinted, what)
		require.NotEmpty(t, hinted.Hint())
	}

	for path, says := range map[string]string{
		filepath.Join(dir, "none.gguf"): "none.gguf: no such file or directory",
		dir:                             "it is a directory",
	} {
		_, _, err = findPieces(&config.Config{Engine: config.Engine{Model: path, LlamaLib: dir}})
		var missing *ModelError
		require.ErrorAs(t, err, &missing)
		require.ErrorContains(t, err, says)
		require.Contains(t, missing.Hint(), "--model")
	}
	require.ErrorIs(t, &ModelError{Err: os.ErrNotExist}, os.ErrNotExist)
}

func TestStartFindsNothing(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := Start(t.Context(), &config.Config{}, nil, Engine{}, nil)
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
