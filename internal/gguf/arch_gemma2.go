package gguf

import "slices"

func gemma2() architecture {
	return architecture{
		keys: func(s Spec) []pair {
			return slices.Concat(
				[]pair{
					{"attention.head_count_kv", uint32(s.KVHeads)},
					{"attention.sliding_window", uint32(s.Window)},
				},
				s.headKeys(), rope(s.headSize()))
		},
		layer: func(s Spec, _ int) []blueprint {
			return slices.Concat(
				s.attention(),
				[]blueprint{constant("post_attention_norm.weight", 1, s.Embedding)},
				s.feedForward(),
				[]blueprint{constant("post_ffw_norm.weight", 1, s.Embedding)})
		},
		outputNorm: "output_norm.weight",
		check: func(s Spec) error {
			switch {
			case s.Window == 0:
				return s.refuse("Window", s.Window, "1 or more")
			case !s.Tied:
				return s.refuse("Tied", s.Tied, "true only")
			}
			return s.foreign("Window")
		},
	}
}
