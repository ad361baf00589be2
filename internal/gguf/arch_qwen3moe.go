package gguf

import "slices"

const expertsUsed = 2 // experts that work on each token

func qwen3MoE() architecture {
	return architecture{
		keys: func(s Spec) []pair {
			return slices.Concat([]pair{
				{"attention.head_count_kv", uint32(s.KVHeads)},
				{"expert_count", uint32(s.Experts)},
				{"expert_used_count", uint32(expertsUsed)},
				{"expert_feed_forward_length", uint32(s.FeedForward)},
			}, s.headKeys(), rope(s.headSize()))
		},
		layer: func(s Spec, _ int) []blueprint {
			return append(s.attention(),
				constant("attn_q_norm.weight", 1, s.headSize()),
				constant("attn_k_norm.weight", 1, s.headSize()),
				constant("ffn_norm.weight", 1, s.Embedding),
				plain("ffn_gate_inp.weight", s.Embedding, s.Experts),
				s.matrix("ffn_gate_exps.weight", s.Embedding, s.FeedForward, s.Experts),
				s.matrix("ffn_up_exps.weight", s.Embedding, s.FeedForward, s.Experts),
				s.matrix("ffn_down_exps.weight", s.FeedForward, s.Embedding, s.Experts))
		},
		outputNorm: "output_norm.weight",
		check: func(s Spec) error {
			if s.Experts < expertsUsed {
				return s.refuse("Experts", s.Experts, "2 or more")
			}
			return s.foreign("Experts")
		},
	}
}
