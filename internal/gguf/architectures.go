package gguf

import (
	"fmt"
	"slices"
)

// Architectures that [Write] makes: one for each way of keeping a sequence.
const (
	Llama     = "llama"     // keys and values of every token
	Gemma2    = "gemma2"    // every second layer sees a window only
	DeepSeek2 = "deepseek2" // keys and values compressed (MLA)
	LFM2      = "lfm2"      // two of three layers keep a short state instead
	Mamba     = "mamba"     // all layers keep a state
	Qwen3MoE  = "qwen3moe"  // as Llama, with experts
)

// architectures lists the names that architectureOf knows.
func architectures() []string {
	return []string{Llama, Gemma2, DeepSeek2, LFM2, Mamba, Qwen3MoE}
}

// architecture is how the models of one architecture are written.
type architecture struct {
	// keys are those that only it has, without its name in front.
	keys func(s Spec) []pair
	// layer lists the tensors of layer i, without "blk.i." in front.
	layer      func(s Spec, i int) []blueprint
	outputNorm string
	noHeads    bool
	// check says what in the Spec makes no model of it.
	check func(s Spec) error
}

func architectureOf(name string) (architecture, bool) {
	a, ok := map[string]func() architecture{
		Llama: llama, Gemma2: gemma2, DeepSeek2: deepSeek2, LFM2: lfm2, Mamba: mamba, Qwen3MoE: qwen3MoE,
	}[name]
	if !ok {
		return architecture{}, false
	}
	return a(), true
}

// heads is what models of the architecture say of their attention heads.
func (a architecture) heads(s Spec) int {
	if a.noHeads {
		return 0
	}
	return s.Heads
}

// pair is a key of an architecture with its value: uint32, float32 or []uint32.
type pair struct {
	key   string
	value any
}

// refuse makes the error for a field that does not suit the architecture.
func (s Spec) refuse(field string, got any, allowed string) error {
	return fmt.Errorf("%s is %v, allowed for %s are %s", field, got, s.architecture(), allowed)
}

// foreign refuses fields that only other architectures use.
func (s Spec) foreign(own ...string) error {
	for _, f := range []struct {
		name string
		got  int
	}{{"Window", s.Window}, {"Latent", s.Latent}, {"Experts", s.Experts}} {
		if f.got != 0 && !slices.Contains(own, f.name) {
			return s.refuse(f.name, f.got, "0 only")
		}
	}
	return nil
}

// headKeys are the head sizes, where they do not follow from the embedding.
func (s Spec) headKeys() []pair {
	if s.HeadSize == 0 {
		return nil
	}
	return []pair{
		{"attention.key_length", uint32(s.HeadSize)},
		{"attention.value_length", uint32(s.HeadSize)},
	}
}

// rope is how positions are told.
func rope(dimensions int) []pair {
	return []pair{
		{"rope.dimension_count", uint32(dimensions)},
		{"rope.freq_base", float32(10000)},
	}
}

// attention is the usual attention block.
func (s Spec) attention() []blueprint {
	q, kv := s.Heads*s.headSize(), s.KVHeads*s.headSize()
	return []blueprint{
		constant("attn_norm.weight", 1, s.Embedding),
		s.matrix("attn_q.weight", s.Embedding, q),
		s.matrix("attn_k.weight", s.Embedding, kv),
		s.matrix("attn_v.weight", s.Embedding, kv),
		s.matrix("attn_output.weight", q, s.Embedding),
	}
}

// feedForward is the usual gated feed-forward block.
func (s Spec) feedForward() []blueprint {
	return []blueprint{
		constant("ffn_norm.weight", 1, s.Embedding),
		s.matrix("ffn_gate.weight", s.Embedding, s.FeedForward),
		s.matrix("ffn_up.weight", s.Embedding, s.FeedForward),
		s.matrix("ffn_down.weight", s.FeedForward, s.Embedding),
	}
}
