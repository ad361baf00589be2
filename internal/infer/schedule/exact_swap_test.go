package schedule

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// A reproducible job that loses its memory in the middle, twice, has the same answer.
func TestReproducibleSwapped(t *testing.T) {
	t.Parallel()
	sliding := exactSpec(gguf.Q8_0)
	sliding.Architecture, sliding.Window, sliding.Tied = gguf.Gemma2, 256, true
	for _, n := range []int{10, 255, 256, 300, 700} {
		model := exactSpec(gguf.Q8_0)
		if n == 700 {
			model = sliding
		}
		r := exactRig(t, model, "f16", options(2048, 2, 64))
		job := api.Request{Prompt: infertest.Words(n), MaxTokens: 400, IgnoreEOS: true, Logprobs: true, TopLogprobs: 2, Reproducible: true}
		want := r.mustRun(t, job)
		times := 0
		var l *infertest.Lease
		l = middle(func() {
			if times++; times <= 2 {
				l.TakeBack()
			}
		})
		got, err := r.run(t.Context(), job, l)
		require.NoError(t, err)
		require.Greater(t, times, 1)
		require.Empty(t, different(want, got), "%d words", n)
	}
}

// Without a seed it has the same answer under any id.
func TestReproducibleWithoutASeed(t *testing.T) {
	t.Parallel()
	r := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(512, 1, 64))
	answer := func(reproducible bool, seed uint32) string {
		job := api.Request{
			Prompt: "a story", MaxTokens: 20, IgnoreEOS: true, Reproducible: reproducible,
			Sampling: api.Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1},
		}
		prompt, err := r.model.Tokenize(job.Prompt)
		require.NoError(t, err)
		out, err := r.Submit(t.Context(), infer.Request{Job: &job, Seed: seed, Lease: infertest.NewLease(0)}, prompt, 100)
		require.NoError(t, err)
		return out.Text()
	}
	require.Equal(t, answer(true, 1), answer(true, 2))
	require.NotEqual(t, answer(false, 1), answer(false, 2))
}

// What a job had before the pools were for reproducible ones was not calculated as theirs: it
// does not come back, and they share nothing of it.
func TestReproducibleSharesWhatIsReproducible(t *testing.T) {
	t.Parallel()
	prompt := infertest.Words(700)
	job := api.Request{Prompt: prompt + " and so", MaxTokens: 30, IgnoreEOS: true, Logprobs: true, TopLogprobs: 2, Reproducible: true}
	other := api.Request{Prompt: "other", MaxTokens: 2, Reproducible: true}
	want := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(4096, 2, 48)).mustRun(t, job)

	r := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(4096, 2, 48))
	l, taken, joined := infertest.NewLease(0), false, make(chan struct{})
	l.Grant = func(_ context.Context, used, _ int) error {
		switch {
		case used > 0 && !taken:
			taken = true
			l.TakeBack()
		case used == 0 && taken: // it is out of the pool
			r.mustRun(t, other)
		case used > 0 && joined != nil:
			close(joined)
			joined = nil
		}
		return nil
	}
	back, ended := joined, make(chan error, 1)
	go func() {
		_, err := r.run(t.Context(), api.Request{Prompt: prompt + " then", MaxTokens: 400, IgnoreEOS: true}, l)
		ended <- err
	}()
	<-back
	got := r.mustRun(t, job)
	require.NoError(t, <-ended)
	require.Positive(t, got.CachedTokens, "of what was read anew")
	require.Empty(t, different(want, got))
}

// A job can fill its stream, but for one cell.
func TestReproducibleFillsItsStream(t *testing.T) {
	t.Parallel()
	r := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(512, 2, 64))
	for _, n := range []int{1, 255, 256, 257, 509, 510} {
		prompt := make([]llama.Token, n)
		for i := range prompt {
			prompt[i] = llama.Token(5 + (i*7+n)%80)
		}
		for _, answers := range []int{1, 3} {
			job := api.Request{IgnoreEOS: true, Reproducible: true, N: answers}
			out, err := r.Submit(t.Context(), infer.Request{Job: &job, Lease: infertest.NewLease(0)}, prompt, 10_000)
			require.NoError(t, err)
			require.Equal(t, answers*(511-n), out.CompletionTokens, "a prompt of %d tokens", n)
			require.Equal(t, "length", out.Choices[0].FinishReason)
		}
	}
}
