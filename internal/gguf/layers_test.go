package gguf

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// header is what a file with these keys, and three layers unless they say
// otherwise, would say.
func header(architecture string, keys map[string]any) *Header {
	h := &Header{
		Architecture: architecture, Layers: 3, Heads: 4, KVHeads: []int{2, 2, 2},
		KeyLength: 64, ValueLength: 32, Embedding: 256, meta: map[string]any{},
	}
	for k, v := range keys {
		h.meta[architecture+"."+k] = v
	}
	return h
}

func kindsOf(layers []Layer) (kinds []Kind) {
	for _, l := range layers {
		kinds = append(kinds, l.Kind)
	}
	return kinds
}

func TestLayerKinds(t *testing.T) {
	t.Parallel()
	type keys = map[string]any
	all := func(k Kind) []Kind { return []Kind{k, k, k} }
	for name, c := range map[string]struct {
		architecture string
		keys         keys
		want         []Kind
	}{
		"plain":                    {"qwen2", nil, all(Attention)},
		"no such architecture":     {"tomorrow", nil, all(Unknown)},
		"layers that draft":        {"qwen2", keys{"nextn_predict_layers": int64(1)}, all(Unknown)},
		"default window":           {Gemma2, nil, []Kind{Window, Attention, Window}},
		"pattern":                  {Gemma2, keys{"attention.sliding_window_pattern": int64(3)}, []Kind{Window, Window, Attention}},
		"pattern of all":           {Gemma2, keys{"attention.sliding_window_pattern": int64(0)}, all(Window)},
		"pattern by layer":         {Gemma2, keys{"attention.sliding_window_pattern": []int64{0, 1, 1}}, []Kind{Attention, Window, Window}},
		"pattern of other length":  {Gemma2, keys{"attention.sliding_window_pattern": []int64{0, 1}}, all(Unknown)},
		"pattern that is text":     {Gemma2, keys{"attention.sliding_window_pattern": "x"}, all(Unknown)},
		"pattern below zero":       {Gemma2, keys{"attention.sliding_window_pattern": int64(-1)}, all(Unknown)},
		"no window":                {"gemma3", nil, all(Attention)},
		"window":                   {"gemma3", keys{"attention.sliding_window": int64(512)}, all(Window)},
		"window that is text":      {"gemma3", keys{"attention.sliding_window": "x"}, all(Unknown)},
		"window of none":           {"gemma3", keys{"attention.sliding_window": int64(0)}, all(Attention)},
		"window is missing":        {"gpt-oss", nil, all(Unknown)},
		"compressed":               {DeepSeek2, keys{"attention.key_length_mla": int64(192), "attention.value_length_mla": int64(128)}, all(Latent)},
		"from before compression":  {DeepSeek2, nil, all(Attention)},
		"state":                    {Mamba, keys{"ssm.conv_kernel": int64(4), "ssm.inner_size": int64(512), "ssm.state_size": int64(16)}, all(Recurrent)},
		"state of unknown size":    {Mamba, keys{"ssm.conv_kernel": int64(4), "ssm.inner_size": int64(512)}, all(Unknown)},
		"state of absurd size":     {Mamba, keys{"ssm.conv_kernel": int64(4), "ssm.inner_size": int64(1 << 29), "ssm.state_size": int64(16)}, all(Unknown)},
		"groups are missing":       {"mamba2", keys{"ssm.conv_kernel": int64(4), "ssm.inner_size": int64(512), "ssm.state_size": int64(16)}, all(Unknown)},
		"attention and state":      {"falcon-h1", keys{"ssm.conv_kernel": int64(4), "ssm.inner_size": int64(512), "ssm.state_size": int64(16), "ssm.group_count": int64(1)}, all(Hybrid)},
		"convolution":              {LFM2, keys{"shortconv.l_cache": int64(3)}, all(Attention)},
		"convolution, with window": {LFM2, keys{"shortconv.l_cache": int64(3), "attention.sliding_window": int64(9)}, all(Window)},
	} {
		h := header(c.architecture, c.keys)
		layers := h.LayerMemory(F16, F16)
		require.Equal(t, c.want, kindsOf(layers), name)
		for _, l := range layers {
			require.Equal(t, l.Kind != Unknown, l.KVKnown(), name)
			if !l.KVKnown() {
				require.Zero(t, l.CacheBytes(CacheShape{Cells: 256, Sequences: 1}), name)
			}
		}
	}
}

func TestLayerBytes(t *testing.T) {
	t.Parallel()
	f16 := func(h *Header) Layer { return h.LayerMemory(F16, F16)[0] }
	require.Equal(t, int64(2*(64+32)*2), f16(header("llama", nil)).KVBytesPerToken)
	q8, _ := CacheType("q8_0")
	q4, _ := CacheType("q4_0")
	require.Equal(t, int64(128/32*34+64/32*18), header("llama", nil).LayerMemory(q8, q4)[0].KVBytesPerToken)

	narrow := header("llama", nil)
	narrow.KVHeads, narrow.ValueLength = []int{1, 1, 1}, 16
	require.False(t, narrow.LayerMemory(F16, q8)[0].KVKnown(), "16 values are no block of Q8_0")

	latent := header(DeepSeek2, map[string]any{"attention.key_length_mla": int64(192), "attention.value_length_mla": int64(128)})
	require.Equal(t, int64(2*64*2), f16(latent).KVBytesPerToken, "no values beside")

	windows := header(Gemma2, map[string]any{"attention.sliding_window": int64(100), "attention.key_length_swa": int64(16), "attention.value_length_swa": int64(8)})
	require.Equal(t, int64(2*(16+8)*2), f16(windows).KVBytesPerToken)
	require.Equal(t, 100, f16(windows).Window)

	hybrid := header(LFM2, map[string]any{"shortconv.l_cache": int64(3)})
	hybrid.KVHeads = []int{0, 2, 0}
	layers := hybrid.LayerMemory(F16, F16)
	require.Equal(t, []Kind{Recurrent, Attention, Recurrent}, kindsOf(layers))
	require.Equal(t, Layer{Kind: Recurrent, StateBytes: 2 * 256 * 4}, layers[0])

	mamba := header("mamba2", map[string]any{
		"ssm.conv_kernel": int64(4), "ssm.inner_size": int64(512), "ssm.state_size": int64(16), "ssm.group_count": int64(2),
	})
	require.Equal(t, int64(3*(512+2*2*16)+512*16)*4, f16(mamba).StateBytes)
	require.Zero(t, f16(mamba).KVBytesPerToken)
}

func TestCacheBytes(t *testing.T) {
	t.Parallel()
	shape := CacheShape{Cells: 8000, Sequences: 4, Batch: 300}
	require.Equal(t, int64(8192*10), Layer{Kind: Attention, KVBytesPerToken: 10}.CacheBytes(shape), "whole blocks of cells")
	require.Equal(t, int64(4*7), Layer{Kind: Recurrent, StateBytes: 7}.CacheBytes(shape))
	window := Layer{Kind: Window, KVBytesPerToken: 10, Window: 500}
	require.Equal(t, int64(2304*10), window.CacheBytes(shape), "4 · 500 + 300, in whole blocks")
	shape.FullWindow = true
	require.Equal(t, int64(8192*10), window.CacheBytes(shape))
	window.Window, shape.FullWindow = 1<<20, false
	require.Equal(t, int64(8192*10), window.CacheBytes(shape), "never more than all")
}

// Every architecture that can be written is one whose memory is known, and all of
// its tensors are accounted for.
func TestWriteArchitectures(t *testing.T) {
	t.Parallel()
	want := map[string][]Kind{
		Llama:     {Attention, Attention, Attention},
		Gemma2:    {Window, Attention, Window},
		DeepSeek2: {Latent, Latent, Latent},
		LFM2:      {Recurrent, Recurrent, Attention},
		Mamba:     {Recurrent, Recurrent, Recurrent},
		Qwen3MoE:  {Attention, Attention, Attention},
	}
	require.ElementsMatch(t, architectures(), slices.Collect(maps.Keys(want)))
	for name, kinds := range want {
		for _, typ := range []TensorType{F32, F16, Q8_0} {
			s := small(name)
			s.Type = typ
			var b bytes.Buffer
			require.NoError(t, Write(&b, s), name)
			h, err := parse(bytes.NewReader(b.Bytes()), int64(b.Len()))
			require.NoError(t, err, name)
			require.Equal(t, name, h.Architecture)
			require.Equal(t, s.Tied, h.TiedOutput)
			layers := h.LayerMemory(F16, F16)
			require.Equal(t, kinds, kindsOf(layers), name)
			sum := h.OtherBytes()
			for _, l := range layers {
				require.Positive(t, l.WeightBytes)
				sum += l.WeightBytes
			}
			require.Equal(t, h.TensorBytes, sum, name)
			require.GreaterOrEqual(t, h.OtherBytes(), h.TokenEmbdBytes)
		}
	}
}

// small is Tiny with three layers of an architecture.
func small(architecture string) Spec {
	s := Tiny()
	s.Architecture, s.Layers = architecture, 3
	switch architecture {
	case Gemma2:
		s.Window, s.Tied = 256, true
	case DeepSeek2:
		s.Latent, s.HeadSize = 32, 64
	case Qwen3MoE:
		s.Experts = 4
	}
	return s
}

func TestWriteRefusesWhatAnArchitectureHasNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		architecture string
		change       func(*Spec)
		want         string
	}{
		{"gpt9", func(*Spec) {}, `Architecture is "gpt9", allowed are [llama gemma2`},
		{Llama, func(s *Spec) { s.Window = 9 }, "Window is 9, allowed for llama are 0 only"},
		{Llama, func(s *Spec) { s.HeadSize = 3 }, "HeadSize is 3, allowed are even numbers"},
		{Gemma2, func(s *Spec) { s.Window = 0 }, "Window is 0, allowed for gemma2 are 1 or more"},
		{Gemma2, func(s *Spec) { s.Tied = false }, "Tied is false"},
		{DeepSeek2, func(s *Spec) { s.Latent = 0 }, "Latent is 0"},
		{DeepSeek2, func(s *Spec) { s.HeadSize = 6 }, "HeadSize is 6, allowed for deepseek2 are multiples of 4"},
		{DeepSeek2, func(s *Spec) { s.Layers = 27 }, "Layers is 27"},
		{LFM2, func(s *Spec) { s.Layers = 2 }, "Layers is 2, allowed for lfm2 are 3 or more"},
		{LFM2, func(s *Spec) { s.HeadSize = 32 }, "HeadSize is 32"},
		{Mamba, func(s *Spec) { s.Embedding = 72 }, "Embedding is 72, allowed for mamba are multiples of 16"},
		{Qwen3MoE, func(s *Spec) { s.Experts = 1 }, "Experts is 1"},
		{Llama, func(s *Spec) { s.Type, s.FeedForward = Q8_0, 72 }, "ffn_down.weight has rows of 72 values, allowed are multiples of 32"},
	} {
		s := small(c.architecture)
		c.change(&s)
		require.ErrorContains(t, Write(&bytes.Buffer{}, s), c.want)
	}
}

func TestQ8(t *testing.T) {
	t.Parallel()
	values := make([]float32, q8Block)
	values[0], values[1], values[2] = 127, -127, 64.6
	b := appendValues(nil, Q8_0, values)
	require.Len(t, b, 34)
	require.Equal(t, []byte{0x00, 0x3c, 127, 0x81, 65, 0}, b[:6], "a step of 1")
	require.Equal(t, make([]byte, 34), appendValues(nil, Q8_0, make([]float32, q8Block)))
}

func TestCacheType(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"f32": "F32", "bf16": "BF16", "iq4_nl": "IQ4_NL", "q5_1": "Q5_1"} {
		typ, ok := CacheType(name)
		require.True(t, ok)
		require.Equal(t, want, typ.String())
	}
	_, ok := CacheType("q6_K")
	require.False(t, ok)
}
