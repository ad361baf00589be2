package llama

import (
	"testing"

	"github.com/hybridgroup/yzma/pkg/llama"
	"github.com/stretchr/testify/require"

	"tempo/internal/infer/sample"
)

// Where nothing is drawn, the project's sampler takes the tokens that llama.cpp's chain
// takes, penalties included.
func TestSamplerAgainstTheChain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                        string
		repeat, frequency, presence float64
	}{
		{name: "greedy", repeat: 1},
		{name: "repeat", repeat: 1.3},
		{name: "frequency", repeat: 1, frequency: 0.7},
		{name: "presence", repeat: 1, presence: 1.5},
		{name: "all", repeat: 1.1, frequency: 0.3, presence: -0.4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := openModel(t, false)
			ctx := newContext(t, m, 512, 1, 64)
			require.NoError(t, decode(t, ctx, 0, 0, 10))
			chain := llama.SamplerChainInit(llama.SamplerChainParams{NoPerf: 1})
			defer llama.SamplerFree(chain)
			llama.SamplerChainAdd(chain, llama.SamplerInitPenalties(int32(m.Vocabulary()), 512,
				float32(c.repeat), float32(c.frequency), float32(c.presence)))
			llama.SamplerChainAdd(chain, llama.SamplerInitGreedy())
			ours := sample.New(sample.Options{
				RepeatPenalty: c.repeat, FrequencyPenalty: c.frequency, PresencePenalty: c.presence,
			}, m.Vocabulary())
			at := 9
			for pos := 10; pos < 210; pos++ {
				want := Token(llama.SamplerSample(chain, ctx.handle, int32(at)))
				logits, err := ctx.Logits(at)
				require.NoError(t, err)
				got, err := ours.Next(logits, nil)
				require.NoError(t, err)
				require.Equal(t, want, got.Token, "at %d", pos)
				ctx.Clear()
				at, err = ctx.Add(want, pos, 0, true)
				require.NoError(t, err)
				require.NoError(t, ctx.Decode())
			}
		})
	}
}
