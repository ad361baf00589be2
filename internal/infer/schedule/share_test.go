package schedule

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// newLayoutRig is a rig whose KV cache is divided as layout says, whatever the jobs.
func newLayoutRig(t *testing.T, layout string, cells, sequences, batch int) *rig {
	t.Helper()
	opts := options(cells, sequences, batch)
	opts.Layout = layout
	return run(t, newScheduler(t, opts, nil))
}

// Jobs that begin alike decode what they have in common once, also when they come at
// the same time, and say what they would have said alone.
func TestSharedPrefix(t *testing.T) {
	t.Parallel()
	const jobs = 6
	common := infertest.Words(200)
	for _, layout := range []string{Streams, Unified} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			want := make([]*infer.Output, jobs)
			for i := range jobs {
				alone := newLayoutRig(t, layout, 4096, 8, 64)
				want[i] = alone.mustRun(t, suffixed(common, i))
				require.Zero(t, want[i].CachedTokens)
			}
			r := newLayoutRig(t, layout, 4096, 8, 64)
			got := make([]*infer.Output, jobs)
			together := func() {
				var all errgroup.Group
				for i := range jobs {
					all.Go(func() (err error) {
						got[i], err = r.run(t.Context(), suffixed(common, i), infertest.NewLease(0))
						return err
					})
				}
				require.NoError(t, all.Wait())
			}
			for round := range 3 {
				together()
				cached := 0
				for i, out := range got {
					require.Equal(t, want[i].Text(), out.Text(), "job %d in round %d", i, round)
					if out.CachedTokens >= 190 {
						cached++
					}
				}
				require.GreaterOrEqual(t, cached, jobs-1, "only the first decodes it")
			}
			require.GreaterOrEqual(t, r.mustRun(t, suffixed(common, 100)).CachedTokens, 190, "it is kept when nobody runs")
			other := r.mustRun(t, api.Request{Prompt: "nothing like it " + infertest.Words(50), MaxTokens: 3})
			require.Zero(t, other.CachedTokens)
		})
	}
}

func suffixed(common string, i int) api.Request {
	return api.Request{Prompt: fmt.Sprintf("%s and job %d", common, i), MaxTokens: 12}
}

// What is cached makes room for jobs, however full it is.
func TestCachedMakesRoom(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{Streams, Unified} {
		r := newLayoutRig(t, layout, 1024, 4, 64)
		for i := range 12 {
			prompt := fmt.Sprintf("%d %s", i, infertest.Words(180))
			for range 2 {
				out := r.mustRun(t, api.Request{Prompt: prompt, MaxTokens: 20})
				require.Positive(t, out.CompletionTokens)
			}
		}
		whole := 256
		if layout == Unified {
			whole = 1024
		}
		require.Equal(t, whole-1, r.mustRun(t, api.Request{Prompt: infertest.Words(whole - 1), MaxTokens: 1}).PromptTokens)
	}
}

// Several answers share the prompt, each with a seed of its own, and are the same
// every time.
func TestSeveralAnswers(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{Streams, Unified} {
		r := newLayoutRig(t, layout, 2048, 4, 64)
		seed := uint32(7)
		job := api.Request{
			Prompt: infertest.Words(100), MaxTokens: 20, N: 4, IgnoreEOS: true,
			Sampling: api.Sampling{Temperature: 2, TopP: 1, RepeatPenalty: 1, Seed: &seed},
		}
		out := r.mustRun(t, job)
		require.Len(t, out.Choices, 4)
		require.Equal(t, 80, out.CompletionTokens)
		texts := map[string]bool{}
		for _, c := range out.Choices {
			require.Equal(t, 20, c.Tokens)
			require.Equal(t, "length", c.FinishReason)
			texts[c.Text] = true
		}
		require.Len(t, texts, 4, "they differ")
		again := r.mustRun(t, job)
		require.Equal(t, out.Choices, again.Choices)
		job.N = 1
		require.Equal(t, out.Choices[0], r.mustRun(t, job).Choices[0], "the first is the one that a job for one gets")
	}
}

func TestLogprobs(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 2, 64)
	job := api.Request{Prompt: "hello there", MaxTokens: 10, Logprobs: true, TopLogprobs: 3, IgnoreEOS: true}
	out := r.mustRun(t, job)
	logs := out.Choices[0].Logprobs
	require.Len(t, logs, 10)
	text := ""
	for _, l := range logs {
		require.Len(t, l.Top, 3)
		require.Equal(t, l.TokenLogprob, l.Top[0], "greedy takes the most likely")
		require.GreaterOrEqual(t, l.Top[0].Logprob, l.Top[1].Logprob)
		require.LessOrEqual(t, l.Top[0].Logprob, float32(0))
		text += string(l.Piece)
	}
	whole := newText(nil)
	whole.add([]byte(text))
	require.Equal(t, out.Text(), whole.String())
	job.Stop = []string{string(logs[4].Piece) + string(logs[5].Piece)}
	cut := r.mustRun(t, job)
	require.Less(t, len(cut.Choices[0].Logprobs), 6, "what the stop string cut off has none")
}

// A token that logit_bias bans does not come, one that it favours does.
func TestLogitBias(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	job := api.Request{Prompt: "hello there", MaxTokens: 5, IgnoreEOS: true}
	plain := r.mustRun(t, job)
	wanted, err := r.model.Tokenize("z")
	require.NoError(t, err)
	token := wanted[len(wanted)-1]
	job.Sampling.LogitBias = map[int32]float64{token: 100}
	out := r.mustRun(t, job)
	require.Equal(t, "zzzzz", out.Text())
	job.Sampling.LogitBias = map[int32]float64{}
	for t := range int32(r.model.Vocabulary()) {
		job.Sampling.LogitBias[t] = -100
	}
	_, err = r.run(t.Context(), job, infertest.NewLease(0))
	var request *infer.RequestError
	require.ErrorAs(t, err, &request)
	require.Equal(t, "logit_bias", request.Param)
	job.Sampling.LogitBias = nil
	require.Equal(t, plain.Text(), r.mustRun(t, job).Text(), "nothing is left of it")
}

// A job that goes on past its stream goes on elsewhere, and says what it would have said.
func TestPastTheStream(t *testing.T) {
	t.Parallel()
	job := api.Request{Prompt: infertest.Words(200), IgnoreEOS: true, MaxTokens: 700}
	want := newLayoutRig(t, Unified, 2048, 8, 64).mustRun(t, job)
	r := newRig(t, 2048, 8, 64)
	for range 40 { // short answers are what is usual here
		r.mustRun(t, api.Request{Prompt: "short", MaxTokens: 5})
	}
	got := r.mustRun(t, job)
	require.Equal(t, 700, got.CompletionTokens)
	require.Equal(t, want.Text(), got.Text())
}

// Jobs of all lengths in one batch: everyone is answered, whatever the layouts.
func TestAllLengths(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{Auto, Streams, Unified} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			r := newLayoutRig(t, layout, 4096, 8, 128)
			var all errgroup.Group
			all.SetLimit(8)
			for i := range 60 {
				n := 1 + i*i%97*10
				all.Go(func() error {
					l := infertest.NewLease(0)
					out, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(n), MaxTokens: 1 + i%7*30, IgnoreEOS: true}, l)
					switch {
					case err != nil:
						return err
					case out.PromptTokens != n || out.CompletionTokens != 1+i%7*30:
						return fmt.Errorf("%d tokens in and %d out, want %d and %d", out.PromptTokens, out.CompletionTokens, n, 1+i%7*30)
					}
					return nil
				})
			}
			require.NoError(t, all.Wait())
		})
	}
}

// The most urgent of those that wait joins first.
func TestPriority(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(512, 1, 64), nil)
	low := &job{req: infer.Request{Job: &api.Request{}}, tokens: make([]llama.Token, 9), prompt: 9, longest: 20, leased: 20}
	normal := &job{req: infer.Request{Job: &api.Request{}, Priority: 1}, tokens: make([]llama.Token, 9), prompt: 9, longest: 20, leased: 20}
	asking := &job{req: infer.Request{Job: &api.Request{}, Priority: 3}, tokens: make([]llama.Token, 9), prompt: 9, longest: 20, leased: 20, asking: true}
	high := &job{req: infer.Request{Job: &api.Request{}, Priority: 2}, tokens: make([]llama.Token, 9), prompt: 9, longest: 20, leased: 20}
	s.jobs = []*job{low, asking, normal, high}
	require.Equal(t, []*job{high, normal, low}, s.waiting())
	s.jobs = nil
}

// A job's own time limit ends it, with how far it came.
func TestTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1<<16, 1, 64)
	_, err := r.run(t.Context(), api.Request{Prompt: "on and on", IgnoreEOS: true, Timeout: 20 * tick}, infertest.NewLease(0))
	var late *infer.TimeoutError
	require.ErrorAs(t, err, &late)
	require.Equal(t, 20*tick, late.Limit)
	require.NotEmpty(t, late.Hint())
	require.Equal(t, 5, r.mustRun(t, api.Request{Prompt: "go on", IgnoreEOS: true, MaxTokens: 5, Timeout: soon}).CompletionTokens)
}

func TestStepTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	r.mustRun(t, api.Request{Prompt: "hello", IgnoreEOS: true, MaxTokens: 10})
	require.Eventually(t, func() bool { // the answer is there before its step has ended
		steps, _, _ := r.StepTimes()
		return steps == 10
	}, soon, tick)
	_, decode, outside := r.StepTimes()
	require.Positive(t, decode)
	require.Positive(t, outside)
}
