package gguf

import "slices"

// deepSeek2 is written without experts, which would add nothing to how it keeps
// a sequence: all of its layers are dense.
func deepSeek2() architecture {
	return architecture{
		keys: func(s Spec) []pair {
			rotated := s.headSize() / 2
			return slices.Concat([]pair{
				{"attention.head_count_kv", uint32(1)},
				{"attention.key_length", uint32(s.Latent + rotated)},
				{"attention.value_length", uint32(s.Latent)},
				{"attention.key_length_mla", uint32(s.headSize())},
				{"attention.value_length_mla", uint32(s.headSize())},
				{"attention.kv_lora_rank", uint32(s.Latent)},
				{"attention.q_lora_rank", uint32(0)},
				{"leading_dense_block_count", uint32(s.Layers)},
				{"expert_feed_forward_length", uint32(s.FeedForward)},
				{"expert_shared_count", uint32(0)},
			}, rope(rotated))
		},
		layer: func(s Spec, _ int) []blueprint {
			rotated := s.headSize() / 2
			return slices.Concat([]blueprint{
				constant("attn_norm.weight", 1, s.Embedding),
				constant("attn_kv_a_norm.weight", 1, s.Latent),
				s.matrix("attn_q.weight", s.Embedding, s.Heads*s.headSize()),
				s.matrix("attn_kv_a_mqa.weight", s.Embedding, s.Latent+rotated),
				s.matrix("attn_k_b.weight", s.headSize()-rotated, s.Latent, s.Heads),
				s.matrix("attn_v_b.weight", s.Latent, s.headSize(), s.Heads),
				s.matrix("attn_output.weight", s.Heads*s.headSize(), s.Embedding),
			}, s.feedForward())
		},
		outputNorm: "output_norm.weight",
		check: func(s Spec) error {
			switch {
			case s.Latent == 0:
				return s.refuse("Latent", s.Latent, "1 or more")
			case s.headSize()%4 != 0:
				return s.refuse("HeadSize", s.headSize(), "multiples of 4")
			case s.Layers == 26 || s.Layers == 27:
				// llama.cpp takes these for the Lite models, which differ.
				return s.refuse("Layers", s.Layers, "all but 26 and 27")
			}
			return s.foreign("Latent")
		},
	}
}
