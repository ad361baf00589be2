package schedule

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// varied makes prompts of all lengths, a third of which begin alike, half of them
// sampled.
func varied(n int) []api.Request {
	random := rand.New(rand.NewPCG(3, 3))
	common := infertest.Words(300)
	jobs := make([]api.Request, n)
	for i := range jobs {
		prompt := fmt.Sprintf("%d %s", i, infertest.Words(1+random.IntN(700)))
		if i%3 == 0 {
			prompt = fmt.Sprintf("%s %d", common, i)
		}
		jobs[i] = api.Request{Prompt: prompt, MaxTokens: 1 + random.IntN(40), IgnoreEOS: true, Logprobs: true, TopLogprobs: 2, Reproducible: true}
		if i%2 == 0 {
			seed := uint32(i)
			jobs[i].Sampling = api.Sampling{Temperature: 1.3, TopP: 0.95, RepeatPenalty: 1, Seed: &seed}
		}
	}
	return jobs
}

// A reproducible job has the same text and the same log probabilities, bit for bit,
// whatever else is in the batch, in whatever order it came, and in contexts of another
// shape; also where the pool is made anew, and others that are not reproducible run.
func TestReproducible(t *testing.T) {
	t.Parallel()
	sliding := exactSpec(gguf.Q8_0)
	sliding.Architecture, sliding.Window, sliding.Tied = gguf.Gemma2, 256, true
	experts := exactSpec(gguf.Q8_0)
	experts.Architecture, experts.Experts = gguf.Qwen3MoE, 4
	state := exactSpec(gguf.F32)
	state.Architecture, state.HeadSize, state.Layers = gguf.LFM2, 0, 3
	for _, c := range []struct {
		name   string
		model  gguf.Spec
		cache  string
		single bool // the kernels for these weights add up in another order in company
		jobs   int
	}{
		{"Q8_0", exactSpec(gguf.Q8_0), "f16", false, 60},
		{"quantised cache", exactSpec(gguf.Q8_0), "q8_0", false, 20},
		{"F32", exactSpec(gguf.F32), "f16", true, 20},
		{"sliding window", sliding, "f16", false, 20},
		{"experts", experts, "f16", false, 20},
		{"state", state, "f16", true, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reproduce(t, c.model, c.cache, c.single, varied(c.jobs))
		})
	}
}

// With two threads llama.cpp divides the attention of a token that is alone; see pair. They
// wait for each other without sleeping, so that nothing else may run meanwhile.
//
//nolint:paralleltest // see above
func TestReproducibleOnThreads(t *testing.T) {
	alone := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(1024, 1, 256))
	opts := options(4*1024, 4, 256)
	opts.Threads = 2
	together := exactRig(t, exactSpec(gguf.Q8_0), "f16", opts)
	together.probed = true
	var all errgroup.Group
	for i, n := range []int{257, 769, 600} { // the last piece is one token; no last piece is short
		prompt := make([]llama.Token, n)
		for k := range prompt {
			prompt[k] = llama.Token(5 + (k*7+n)%80)
		}
		job := api.Request{MaxTokens: 20 + 10*i, IgnoreEOS: true, Logprobs: true, TopLogprobs: 2, Reproducible: true}
		submit := func(r *rig) (*infer.Output, error) {
			return r.Submit(t.Context(), infer.Request{Job: &job, Lease: infertest.NewLease(0)}, prompt, 1000)
		}
		want, err := submit(alone)
		require.NoError(t, err)
		all.Go(func() error {
			got, err := submit(together)
			if err == nil && different(want, got) != "" {
				err = fmt.Errorf("prompt of %d tokens: %s", n, different(want, got))
			}
			return err
		})
	}
	require.NoError(t, all.Wait())
}

func reproduce(t *testing.T, model gguf.Spec, cache string, single bool, jobs []api.Request) {
	var want []*infer.Output
	rig := func(t *testing.T, cells, sequences, batch int) *rig {
		return exactRig(t, model, cache, options(cells, sequences, batch))
	}
	alone := rig(t, 4096, 1, 512)
	for _, job := range jobs {
		want = append(want, alone.mustRun(t, job))
	}
	for i, c := range []struct{ cells, sequences, batch, at int }{
		{1024, 1, 64, 1}, {8192, 8, 128, 8}, {32768, 32, 512, 32}, {16384, 32, 96, 32},
	} {
		t.Run(fmt.Sprintf("%d at once", c.at), func(t *testing.T) {
			t.Parallel()
			r := rig(t, c.cells, c.sequences, c.batch)
			var all errgroup.Group
			all.SetLimit(c.at)
			for n, at := range rand.New(rand.NewPCG(uint64(i), 0)).Perm(len(jobs)) {
				if n%10 == 7 { // the same in a pool of another size
					all.Go(func() error { return reshape(r, c.cells+1024*(n%20/10), c.sequences) })
				}
				all.Go(func() error {
					out, err := r.run(t.Context(), jobs[at], infertest.NewLease(0))
					if err != nil {
						return err
					}
					if diff := different(want[at], out); diff != "" {
						return fmt.Errorf("job %d: %s", at, diff)
					}
					return nil
				})
				if n%5 == 0 {
					all.Go(func() error {
						_, err := r.run(t.Context(), api.Request{Prompt: fmt.Sprint("beside them ", n), MaxTokens: 8}, infertest.NewLease(0))
						return err
					})
				}
			}
			require.NoError(t, all.Wait())
			if c.sequences > 1 {
				require.Equal(t, single, r.single)
			}
		})
	}
}

// exactSpec is a tiny model with heads of which quantised values have a multiple.
func exactSpec(weights gguf.TensorType) gguf.Spec {
	tiny := gguf.Tiny()
	tiny.Type, tiny.HeadSize = weights, 32
	return tiny
}

// exactRig has a KV cache of a type that rounds.
func exactRig(t *testing.T, model gguf.Spec, cache string, opts Options) *rig {
	t.Helper()
	opts.TypeK, opts.TypeV = cache, cache
	s, err := New(openSpec(t, model), opts, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return run(t, s)
}

// reshape changes the pool, also if it must wait until jobs have ended.
func reshape(r *rig, cells, sequences int) error {
	for {
		err := r.Reshape(infer.Shape{Sequences: sequences, Cells: cells})
		if _, busy := err.(*infer.BusyError); !busy { //nolint:errorlint // it is returned as it is
			return err
		}
	}
}

func different(want, got *infer.Output) string {
	a, b := want.Choices[0], got.Choices[0]
	if a.Text != b.Text || len(a.Logprobs) != len(b.Logprobs) {
		return fmt.Sprintf("%q, want %q", b.Text, a.Text)
	}
	for i := range a.Logprobs {
		x, y := a.Logprobs[i], b.Logprobs[i]
		if x.Logprob != y.Logprob || x.Top[0].Logprob != y.Top[0].Logprob || x.Top[1].Logprob != y.Top[1].Logprob {
			return fmt.Sprintf("token %d: log probability %v, want %v", i, y, x)
		}
	}
	return ""
}

// The pools become streams for a reproducible job, and what
// they were when there are none any more.
func TestReproducibleOnDemand(t *testing.T) {
	t.Parallel()
	r := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(2048, 8, 64))
	require.False(t, r.exact())
	r.mustRun(t, api.Request{Prompt: "once", MaxTokens: 3, Reproducible: true})
	require.True(t, r.exact())
	for range remembered {
		r.mustRun(t, api.Request{Prompt: "again", MaxTokens: 1})
	}
	require.False(t, r.exact())
}
