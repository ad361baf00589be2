package gguf

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	q4_0 TensorType = 2
	q4K  TensorType = 12
	q6K  TensorType = 14
	iq4  TensorType = 23 // IQ4_XS
)

// tensor is one of 256 × rows values.
func tensor(name string, t TensorType, rows int64, more ...int64) Tensor {
	dims := append([]int64{256, rows}, more...)
	l, _ := layoutOf(t)
	n, _ := l.bytesOf(dims)
	return Tensor{Name: name, Type: t, Dims: dims, Bytes: n}
}

func TestLoadedBytes(t *testing.T) {
	t.Parallel()
	const blocks = 256 / 32 * 64 // of 32 values in 64 rows
	amx := []string{bufferCPU, BufferAMX, bufferRepack}
	for name, c := range map[string]struct {
		tensor  Tensor
		buffers []string
		more    int64 // than in the file
	}{
		"plain":                 {tensor("blk.0.attn_q.weight", Q8_0, 64), []string{bufferCPU}, 0},
		"sums of Q8_0":          {tensor("blk.0.attn_q.weight", Q8_0, 64), amx, blocks * 4},
		"sums of Q4_K":          {tensor("blk.0.attn_q.weight", q4K, 64), amx, 64 * 4},
		"sums of IQ4_XS":        {tensor("blk.0.attn_q.weight", iq4, 64), amx, 64 * 2},
		"no sums of Q6_K":       {tensor("blk.0.attn_q.weight", q6K, 64), amx, 0},
		"no sums of Q4_0":       {tensor("blk.0.attn_q.weight", q4_0, 64), amx, 0},
		"no tiles of 48 rows":   {tensor("blk.0.attn_q.weight", Q8_0, 48), amx, 0},
		"no tiles of experts":   {tensor("blk.0.ffn_up_exps.weight", Q8_0, 64, 4), amx, 0},
		"looked up":             {tensor("position_embd.weight", Q8_0, 64), amx, 0},
		"output twice in tiles": {tensor("token_embd.weight", Q8_0, 64), amx, blocks*34 + blocks*4},
		"halves in tiles":       {tensor("token_embd.weight", F16, 64), amx, 256 * 64 * 2},
		"floats are not":        {tensor("token_embd.weight", F32, 64), amx, 0},
		"repacked":              {tensor("token_embd.weight", q4_0, 64), []string{bufferCPU, bufferRepack}, blocks * 18},
		"halves are not":        {tensor("token_embd.weight", F16, 64), []string{bufferCPU, bufferRepack}, 0},
		"other layout":          {tensor("token_embd.weight", q4_0, 64), []string{bufferCPU}, 0},
	} {
		h := Header{TiedOutput: true, Tensors: []Tensor{c.tensor}}
		n, exact := h.LoadedBytes(c.buffers)
		require.True(t, exact, name)
		require.Equal(t, c.tensor.Bytes+c.more, n, name)
	}
	_, exact := (&Header{}).LoadedBytes([]string{bufferCPU, "CPU_KLEIDIAI"})
	require.False(t, exact)
	untied := Header{Tensors: []Tensor{tensor("token_embd.weight", Q8_0, 64)}}
	n, _ := untied.LoadedBytes(amx)
	require.Equal(t, untied.Tensors[0].Bytes, n)
}

func TestOffloadedBytes(t *testing.T) {
	t.Parallel()
	h := Header{Tensors: []Tensor{tensor("token_embd.weight", F16, 8), tensor("blk.0.attn_q.weight", F16, 64)}}
	for _, tensor := range h.Tensors {
		h.TensorBytes += tensor.Bytes
	}
	require.Equal(t, h.Tensors[1].Bytes, h.OffloadedBytes())
	h.TiedOutput = true
	require.Equal(t, h.TensorBytes, h.OffloadedBytes())
}

func TestTileable(t *testing.T) {
	t.Parallel()
	for architecture, want := range map[string]bool{Llama: true, Gemma2: true, Mamba: false, LFM2: true, "falcon-h1": false, "tomorrow": false} {
		require.Equal(t, want, header(architecture, nil).Tileable(), architecture)
	}
	hybrid := header(LFM2, nil)
	hybrid.KVHeads[1] = 0
	require.False(t, hybrid.Tileable())
}
