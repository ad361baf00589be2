package gguf

const (
	mambaConv  = 4  // width of the convolution
	mambaState = 16 // values of state for each inner value
)

func mamba() architecture {
	// llama.cpp takes no other expansion than 2.
	inner := func(s Spec) int { return 2 * s.Embedding }
	steps := func(s Spec) int { return s.Embedding / 16 }
	return architecture{
		keys: func(s Spec) []pair {
			return []pair{
				{"ssm.conv_kernel", uint32(mambaConv)},
				{"ssm.inner_size", uint32(inner(s))},
				{"ssm.state_size", uint32(mambaState)},
				{"ssm.time_step_rank", uint32(steps(s))},
			}
		},
		layer: func(s Spec, _ int) []blueprint {
			return []blueprint{
				constant("attn_norm.weight", 1, s.Embedding),
				s.matrix("ssm_in.weight", s.Embedding, 2*inner(s)),
				plain("ssm_conv1d.weight", mambaConv, inner(s)),
				constant("ssm_conv1d.bias", 0, inner(s)),
				s.matrix("ssm_x.weight", inner(s), steps(s)+2*mambaState),
				plain("ssm_dt.weight", steps(s), inner(s)),
				constant("ssm_dt.bias", 0, inner(s)),
				constant("ssm_a", -1, mambaState, inner(s)), // below 0: the state fades
				constant("ssm_d", 1, inner(s)),
				s.matrix("ssm_out.weight", inner(s), s.Embedding),
			}
		},
		outputNorm: "output_norm.weight",
		noHeads:    true,
		check: func(s Spec) error {
			if s.Embedding%16 != 0 {
				return s.refuse("Embedding", s.Embedding, "multiples of 16")
			}
			return s.foreign()
		},
	}
}
