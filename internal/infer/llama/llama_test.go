package llama

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tempo/internal/gguf"
	"tempo/internal/infer/infertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func library(t *testing.T) *Library {
	t.Helper()
	lib, err := Load(infertest.LibDir(t), zap.NewNop())
	require.NoError(t, err)
	return lib
}

func openModel(t *testing.T, dryRun bool) *Model {
	t.Helper()
	m, err := library(t).OpenModel(infertest.TinySpec(t).Model, ModelOptions{GPU: -1, DryRun: dryRun})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func newContext(t *testing.T, m *Model, cells, sequences, batch int) *Context {
	t.Helper()
	c, err := m.NewContext(ContextOptions{Cells: cells, Sequences: sequences, Batch: batch, Threads: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestLoadMissing(t *testing.T) {
	// Not parallel with a Load that succeeds: the order of the two checks.
	library(t)
	_, err := Load("/no/such/dir", zap.NewNop())
	var missing *LibraryError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "/no/such/dir", missing.Dir)
	require.Contains(t, err.Error(), "this process already has those of")
	require.Contains(t, missing.Hint(), "make setup")
	again, err := Load(infertest.LibDir(t), nil)
	require.NoError(t, err)
	require.Same(t, library(t), again)
}

func TestOpenModelMissing(t *testing.T) {
	t.Parallel()
	_, err := library(t).OpenModel("/no/such/model.gguf", ModelOptions{GPU: -1})
	require.ErrorContains(t, err, "/no/such/model.gguf")
}

// The lines are those of llama.cpp v0.5.0; the ones for other backends, models
// and buffers were made from its source's formats.
func TestLogSizes(t *testing.T) {
	t.Parallel()
	s := newLogSink(zap.NewNop())
	for _, line := range []string{
		"load_tensors:          CPU model buffer size =     0.53 MiB\n",
		"load_tensors:   CPU_Mapped model buffer size =    93.81 MiB\n",
		"load_tensors:   CPU_REPACK model buffer size =    71.72 MiB\n",
		"load_tensors:        CUDA0 model buffer size =  1234.50 MiB\n",
		"llama_context:        CPU  output buffer size =     0.12 MiB\n",
		"llama_context:  CUDA_Host  output buffer size =     2.00 MiB\n",
		"llama_kv_cache:        CPU KV buffer size =     0.12 MiB\n",
		"llama_kv_cache: size =    0.25 MiB (   512 cells,   2 layers, 64/1 seqs), K (f16):    0.06 MiB, V (f16):    0.06 MiB\n",
		"llama_kv_cache_iswa: size = 10.00 MiB (   512 cells,   2 layers, 64/1 seqs), K (f16):    5.00 MiB, V (f16):    5.00 MiB\n",
		"llama_memory_recurrent: size =    1.50 MiB (     4 cells,   2 layers,  4 seqs), R (f32):    1.00 MiB, S (f32):    0.50 MiB\n",
		"sched_reserve:        CPU compute buffer size =     0.38 MiB\n",
		"sched_reserve:      CUDA0 compute buffer size =   100.25 MiB\n",
		"~llama_context:        CPU compute buffer size is   0.3782 MiB, matches expectation of   0.3782 MiB\n",
		"llama_model_loader: - kv   0: general.architecture str = llama\n",
	} {
		s.write(2, line)
	}
	s.write(levelContinue, "sched_reserve: CPU compute buffer size = 9.00 MiB")
	s.write(levelWarn, "a warning\n")
	s.write(levelError, "llama_model_load: error loading model: tensor missing\n")
	got, reason := s.take()
	require.Equal(t, "llama_model_load: error loading model: tensor missing", reason)
	require.Len(t, got.model, 4)
	require.Equal(t, mib("93.81"), got.model["CPU_Mapped"])
	require.Equal(t, mib("1234.50"), got.model["CUDA0"])
	require.Equal(t, mib("0.38").Add(mib("0.12")), got.compute["CPU"], "compute and logits")
	require.Equal(t, mib("100.25"), got.compute["CUDA0"])
	require.Equal(t, mib("2"), got.compute["CUDA_Host"])
	require.Equal(t, mib("11.75"), got.cache, "not the buffers beside the totals")
	require.Equal(t, []string{"CPU", "CPU_Mapped", "CPU_REPACK", "CUDA0"}, slices.Sorted(maps.Keys(got.model)))

	s.reset()
	got, reason = s.take()
	require.Empty(t, reason)
	require.Zero(t, got.cache)
	require.Empty(t, got.model)
}

func TestOnDevice(t *testing.T) {
	t.Parallel()
	s := newLogSink(zap.NewNop())
	s.write(2, "a: CPU model buffer size = 1.00 MiB")
	s.write(2, "a: CUDA0 model buffer size = 2.00 MiB")
	s.write(2, "a: CUDA1 model buffer size = 4.00 MiB")
	got, _ := s.take()
	for gpu, want := range map[int]string{-1: "7", 0: "2", 1: "4"} {
		m := &Model{opts: ModelOptions{GPU: gpu}}
		require.Equal(t, mib(want), m.onDevice(got.model), "GPU %d", gpu)
	}
}

func TestTokenize(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	for _, text := range []string{
		"", "a", " ", "hello world", "  two  spaces\n\ttab\r\n", "Grüße, 世界 🙂", "12345", strings.Repeat("the same again ", 300),
	} {
		tokens, err := m.Tokenize(text)
		require.NoError(t, err)
		var back strings.Builder
		for _, token := range tokens {
			back.Write(m.Piece(token))
		}
		require.Equal(t, text, back.String())
	}
	tokens, err := m.Tokenize("<|im_start|>a<|im_end|>")
	require.NoError(t, err)
	require.Len(t, tokens, 3, "special tokens are recognised")
	require.Empty(t, m.Piece(tokens[0]), "and have no text")
	require.False(t, m.Ends(tokens[0]))
	require.True(t, m.Ends(tokens[2]))
	_, err = m.Tokenize("a\x00b")
	require.ErrorIs(t, err, ErrNUL)

	bos, eos := m.SpecialText()
	require.Equal(t, "<|im_start|>", bos)
	require.Equal(t, "<|im_end|>", eos)
	require.Equal(t, gguf.DefaultChatTemplate, m.ChatTemplate())
	require.Nil(t, m.Piece(-1))
	require.Nil(t, m.Piece(Token(m.Vocabulary())))
	require.False(t, m.Ends(-1))
	require.False(t, m.Ends(Token(m.Vocabulary())))
}

// decode puts n tokens of a sequence, from a position on, into one batch each
// that fits, with an output for the last.
func decode(t *testing.T, c *Context, seq, from, n int) error {
	t.Helper()
	for pos := from; pos < from+n; {
		c.Clear()
		for ; pos < from+n && c.Room() > 0; pos++ {
			_, err := c.Add(5, pos, seq, pos == from+n-1)
			require.NoError(t, err)
		}
		if err := c.Decode(); err != nil {
			return err
		}
	}
	return nil
}

func TestPool(t *testing.T) {
	t.Parallel()
	c := newContext(t, openModel(t, false), 256, 4, 64)
	for range 3 { // what WarmUp and Forget leave must be the whole pool each time
		require.NoError(t, c.WarmUp())
		require.NoError(t, decode(t, c, 0, 0, 192))
		require.NoError(t, decode(t, c, 1, 0, 64), "the pool is exactly full")
		require.ErrorIs(t, decode(t, c, 2, 0, 1), ErrNoCells)
		require.ErrorIs(t, decode(t, c, 0, 192, 1), ErrNoCells)
		require.NoError(t, c.Forget(1))
		require.NoError(t, decode(t, c, 2, 0, 64), "and what was refused has changed nothing")
		for seq := range 3 {
			require.NoError(t, c.Forget(seq))
		}
	}
}

func TestBatchIsBounded(t *testing.T) {
	t.Parallel()
	c := newContext(t, openModel(t, false), 256, 1, 8)
	for i := range 8 {
		require.Equal(t, 8-i, c.Room())
		at, err := c.Add(5, i, 0, i == 7)
		require.NoError(t, err)
		require.Equal(t, i, at)
	}
	_, err := c.Add(5, 8, 0, false)
	require.Error(t, err)
	require.NoError(t, c.Decode())
	token, err := c.Argmax(7)
	require.NoError(t, err)
	require.Less(t, int(token), c.model.Vocabulary())
	_, err = c.Argmax(3)
	require.Error(t, err, "a token without an output")
}

// WarmUp must cope with every shape that a configuration can ask for.
func TestWarmUpShapes(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	for _, shape := range []struct{ cells, sequences, batch int }{
		{256, 1, 1}, {256, 1, 512}, {256, 4, 2}, {256, 256, 512}, {512, 7, 100}, {2048, 256, 64}, {4096, 3, 2048},
	} {
		c, err := m.NewContext(ContextOptions{Cells: shape.cells, Sequences: shape.sequences, Batch: shape.batch, Threads: 1})
		require.NoError(t, err)
		require.NoError(t, c.WarmUp(), "%+v", shape)
		require.NoError(t, c.Close())
	}
}

func TestNewContextFaults(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	_, err := m.NewContext(ContextOptions{Cells: 512, Sequences: 257, Batch: 64, Threads: 1})
	require.ErrorContains(t, err, "257 sequences", "more than llama.cpp has")
	c, err := m.NewContext(ContextOptions{Cells: 1 << 20, Sequences: 4, Batch: 64, Threads: 1})
	require.NoError(t, err, "a dry run allocates nothing, however large")
	require.Greater(t, int64(c.Cache()), int64(200<<20))
	require.NoError(t, c.Close())
}
