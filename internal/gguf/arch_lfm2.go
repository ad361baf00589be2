package gguf

import "slices"

const (
	lfm2Every = 3 // every third layer has attention, the others a short convolution
	lfm2Cache = 3 // width of the convolution
)

func lfm2() architecture {
	attends := func(i int) bool { return i%lfm2Every == lfm2Every-1 }
	return architecture{
		keys: func(s Spec) []pair {
			kvHeads := make([]uint32, s.Layers)
			for i := range kvHeads {
				if attends(i) {
					kvHeads[i] = uint32(s.KVHeads)
				}
			}
			return slices.Concat([]pair{
				{"attention.head_count_kv", kvHeads},
				{"shortconv.l_cache", uint32(lfm2Cache)},
			}, rope(s.headSize()))
		},
		layer: func(s Spec, i int) []blueprint {
			mixer := []blueprint{
				constant("attn_norm.weight", 1, s.Embedding),
				plain("shortconv.conv.weight", lfm2Cache, s.Embedding),
				s.matrix("shortconv.in_proj.weight", s.Embedding, 3*s.Embedding),
				s.matrix("shortconv.out_proj.weight", s.Embedding, s.Embedding),
			}
			if attends(i) {
				mixer = append(s.attention(),
					constant("attn_q_norm.weight", 1, s.headSize()),
					constant("attn_k_norm.weight", 1, s.headSize()))
			}
			return append(mixer, s.feedForward()...)
		},
		outputNorm: "token_embd_norm.weight", // the name is a slip of the format's that stayed
		check: func(s Spec) error {
			switch {
			case s.HeadSize != 0:
				return s.refuse("HeadSize", s.HeadSize, "0 only")
			case s.Layers < lfm2Every:
				return s.refuse("Layers", s.Layers, "3 or more")
			}
			return s.foreign()
		},
	}
}
