package gguf

import "slices"

func llama() architecture {
	return architecture{
		keys: func(s Spec) []pair {
			return slices.Concat(
				[]pair{{"attention.head_count_kv", uint32(s.KVHeads)}},
				s.headKeys(), rope(s.headSize()))
		},
		layer: func(s Spec, _ int) []blueprint {
			return slices.Concat(s.attention(), s.feedForward())
		},
		outputNorm: "output_norm.weight",
		check:      func(s Spec) error { return s.foreign() },
	}
}
