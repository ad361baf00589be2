package plain

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tempo/internal/gguf"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes a model file of the tiny shape with some of it changed.
func write(t *testing.T, change func(s *gguf.Spec)) string {
	t.Helper()
	s := gguf.Tiny()
	change(&s)
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, gguf.WriteFile(path, s))
	return path
}

// both loads a model here and in llama.cpp.
func both(t *testing.T, path string) (*Model, *llama.Model) {
	t.Helper()
	m, err := Load(path)
	require.NoError(t, err)
	return m, open(t, path)
}

func open(t *testing.T, path string) *llama.Model {
	t.Helper()
	lib, err := llama.Load(infertest.LibDir(t), zap.NewNop())
	require.NoError(t, err)
	m, err := lib.OpenModel(path, llama.ModelOptions{GPU: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// newContext makes a context with a cache in F32, and in all else as opts say.
func newContext(t *testing.T, m *llama.Model, opts llama.ContextOptions) *llama.Context {
	t.Helper()
	opts.Batch, opts.Threads, opts.TypeK, opts.TypeV = 64, 1, "f32", "f32"
	c, err := m.NewContext(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// tokens are n random tokens of a vocabulary that are not special.
func tokens(random *rand.Rand, vocabulary, n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(3 + random.IntN(vocabulary-3))
	}
	return list
}
