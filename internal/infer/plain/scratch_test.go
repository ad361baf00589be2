package plain

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer/llama"
)

// The two references come to the same, for jobs of all kinds.
func TestScratch(t *testing.T) {
	t.Parallel()
	removal := &api.RetroactiveRemoval{AttentionThreshold: 0.3, Window: 3}
	for _, c := range []struct {
		name      string
		job       api.Parallel
		maxTokens int
		temper    float64
		limits    Limits
		// widest and removed are at least to be had, so that the job tries what it should.
		widest, removed int
	}{
		{"visible", api.Parallel{Threshold: 0.04, Mix: api.MixWeighted}, 12, 1, Limits{8, 400, 400}, 4, 0},
		{"isolated", api.Parallel{Threshold: 0.04, Mix: api.MixWeighted, Isolate: true}, 12, 1, Limits{8, 400, 400}, 4, 0},
		{"top", api.Parallel{Threshold: 0.04, Mix: api.MixTop, MaxTokens: 3}, 12, 1.5, Limits{8, 400, 400}, 3, 0},
		{"greedy", api.Parallel{Threshold: 1, Mix: api.MixTop, MinSteps: 30}, 30, 1, Limits{8, 400, 400}, 1, 0},
		{"visible, removal", api.Parallel{Threshold: 0.04, Mix: api.MixWeighted, Removal: removal}, 12, 1, Limits{8, 400, 400}, 4, 5},
		{"isolated, removal", api.Parallel{Threshold: 0.04, Mix: api.MixWeighted, Removal: removal, Isolate: true}, 12, 1, Limits{8, 400, 400}, 4, 5},
		{"dynamic, removal, few cells", api.Parallel{
			Threshold: 0.03, Mix: api.MixWeighted, Removal: removal,
			Dynamic: &api.DynamicThreshold{Final: 0.2, Curve: api.CurveBezier, P1: 0.2, P2: 0.8},
		}, 12, 1, Limits{8, 40, 400}, 4, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			compared, attended, widest, removed := 0, 0, 0, 0
			for seed := range uint64(3) {
				plain, lib := both(t, write(t, func(s *gguf.Spec) { s.Embedding, s.FeedForward, s.Vocab, s.Seed = 32, 64, 320, 400+seed }))
				context := newContext(t, lib, llama.ContextOptions{Cells: 512, Sequences: 128, NoFlash: true})
				job := newJob(c.job, c.maxTokens)
				job.Sampling.Temperature = c.temper
				prompt := tokens(rand.New(rand.NewPCG(seed, 4)), 320, 20)

				want := Generate(plain, prompt, lib.Ends, job, c.limits)
				got, err := Scratch(context, prompt, lib.Ends, job, c.limits, want.Removals)
				require.NoError(t, err)
				removed += len(want.Removals)
				for _, step := range want.Steps {
					widest = max(widest, len(step.Members))
				}
				if requireSteps(t, want, got, fmt.Sprintf("seed %d", seed)) {
					compared++
					require.Equal(t, want.Path, got.Path)
					require.Equal(t, want.Cut, got.Cut)
					require.Equal(t, want.Finish, got.Finish)
					require.Equal(t, want.Removals, got.Removals)
				}
				if c.job.Removal == nil {
					continue
				}
				context = newContext(t, lib, llama.ContextOptions{Cells: 512, Sequences: 128, Attention: true})
				got, err = Scratch(context, prompt, lib.Ends, job, c.limits, nil) // finds out by itself what is removed
				require.NoError(t, err)
				if requireSteps(t, want, got, fmt.Sprintf("seed %d, attention", seed)) {
					attended++
					require.Equal(t, want.Removals, got.Removals)
				}
			}
			require.GreaterOrEqual(t, compared, 2, "most are not borderline")
			require.True(t, attended >= 2 || c.job.Removal == nil, "nor where attention decides")
			require.GreaterOrEqual(t, widest, c.widest)
			require.GreaterOrEqual(t, removed, c.removed)
		})
	}
}

// requireSteps compares step by step, and returns false where it has ended because what
// comes next depends on the rounding.
func requireSteps(t *testing.T, want, got Result, message string) bool {
	t.Helper()
	for s, w := range want.Steps {
		require.Greater(t, len(got.Steps), s, message)
		g := got.Steps[s]
		require.InDeltaSlice(t, w.Distribution, g.Distribution, exact, "%s, step %d", message, s)
		require.InDelta(t, w.Threshold, g.Threshold, 1e-12)
		if w.Borderline(exact) {
			return false
		}
		require.Equal(t, w.Width, g.Width)
		require.Len(t, g.Members, len(w.Members), "%s, step %d", message, s)
		for m := range w.Members {
			require.Equal(t, w.Members[m].Token, g.Members[m].Token, "%s, step %d", message, s)
			require.Equal(t, w.Members[m].Removed, g.Members[m].Removed, "%s, step %d", message, s)
		}
	}
	require.Len(t, got.Steps, len(want.Steps), message)
	return true
}

// With a threshold of 1 each set is the most likely token, also of models of other
// architectures.
func TestScratchIsGreedy(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s *gguf.Spec){
		"llama":    func(*gguf.Spec) {},
		"gemma2":   func(s *gguf.Spec) { s.Architecture, s.Window, s.Tied = gguf.Gemma2, 64, true },
		"qwen3moe": func(s *gguf.Spec) { s.Architecture, s.Experts = gguf.Qwen3MoE, 4 },
		"deepseek": func(s *gguf.Spec) { s.Architecture, s.Latent, s.KVHeads = gguf.DeepSeek2, 32, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lib := open(t, write(t, change))
			opts := llama.ContextOptions{Cells: 256, Sequences: 8, NoFlash: true}
			prompt := tokens(rand.New(rand.NewPCG(1, 5)), 512, 90) // more than a batch
			job := newJob(api.Parallel{Threshold: 1, Mix: api.MixWeighted, Isolate: name == "gemma2"}, 10)
			job.IgnoreEOS = true
			job.Sampling.LogitBias = map[int32]float64{7: -100}
			r, err := Scratch(newContext(t, lib, opts), prompt, lib.Ends, job, Limits{8, 256, 256}, nil)
			require.NoError(t, err)

			var want []int32
			c := newContext(t, lib, opts)
			all := prompt
			for pos := range len(prompt) + 9 {
				c.Clear()
				at, err := c.Add(all[pos], pos, 0, true)
				require.NoError(t, err)
				require.NoError(t, c.Decode())
				if pos < len(prompt)-1 {
					continue
				}
				logits, err := c.Logits(at)
				require.NoError(t, err)
				best := int32(-1)
				for token := range int32(len(logits)) {
					if !lib.Ends(token) && token != 7 && (best < 0 || logits[token] > logits[best]) {
						best = token
					}
				}
				all, want = append(all[:pos+1:pos+1], best), append(want, best)
			}
			require.Equal(t, want, r.Path)
		})
	}
}

func TestScratchRefuses(t *testing.T) {
	t.Parallel()
	lib := open(t, write(t, func(*gguf.Spec) {}))
	job := newJob(api.Parallel{Threshold: 0.01, Mix: api.MixWeighted, Isolate: true}, 10)
	limits := Limits{8, 256, 256}
	prompt := tokens(rand.New(rand.NewPCG(1, 6)), 512, 20)

	c := newContext(t, lib, llama.ContextOptions{Cells: 4 * 256, Sequences: 4, Streams: true})
	_, err := Scratch(c, prompt, lib.Ends, job, limits, nil)
	require.ErrorContains(t, err, "streams")
	c = newContext(t, lib, llama.ContextOptions{Cells: 256, Sequences: 4})
	_, err = Scratch(c, prompt, lib.Ends, job, limits, nil)
	require.ErrorContains(t, err, "4 sequences are too few")
	c = newContext(t, lib, llama.ContextOptions{Cells: 256, Sequences: 32})
	for _, r := range []Removal{{2, 0, 8}, {2, 2, 0}, {2, -1, 0}, {2, 0, -1}} {
		_, err = Scratch(c, prompt, lib.Ends, job, limits, []Removal{r})
		require.ErrorContains(t, err, "there is no member", "%+v", r)
	}
}
