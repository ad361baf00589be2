package schedule

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// Two kinds of long jobs that want different layouts both come to their end.
func TestKindsTakeTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, 4, 64)
	var all errgroup.Group
	for range 3 {
		all.Go(func() error {
			_, err := r.embed(t.Context(), infertest.Words(1500))
			return err
		})
		all.Go(func() error {
			_, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(1000), MaxTokens: 100, IgnoreEOS: true}, infertest.NewLease(0))
			return err
		})
	}
	require.NoError(t, all.Wait())
	steps, _, _ := r.StepTimes()
	require.Less(t, steps, int64(2000), "most of the steps are new ones")
}

// One reproducible job does not slow down those that come after it.
func TestReproducibleDoesNotLinger(t *testing.T) {
	t.Parallel()
	r := exactRig(t, exactSpec(gguf.F32), "f16", options(8192, 8, 64))
	r.mustRun(t, api.Request{Prompt: "once", MaxTokens: 3, Reproducible: true})
	require.True(t, r.single)
	var all errgroup.Group
	for i := range 40 {
		all.Go(func() error {
			_, err := r.run(t.Context(), api.Request{Prompt: fmt.Sprint("hello ", i), MaxTokens: 20, IgnoreEOS: true}, infertest.NewLease(0))
			return err
		})
	}
	require.NoError(t, all.Wait())
	steps, _, _ := r.StepTimes()
	require.Less(t, steps, int64(400), "one at a time they would take 800")
}

// The answers to one prompt do not count each other's tokens for the penalties.
func TestPenaltiesStayWithTheirAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	for _, prompt := range []string{"hello there", "a b c", "one two", "the end", "xyz"} {
		job := api.Request{Prompt: prompt, MaxTokens: 30, N: 2, IgnoreEOS: true}
		job.Sampling.FrequencyPenalty = 2
		out := r.mustRun(t, job)
		require.Equal(t, out.Choices[0].Text, out.Choices[1].Text)
	}
}

// A job whose whole window no longer fits into a smaller pool goes on in it.
func TestReshapeBelowWhatAJobMayWrite(t *testing.T) {
	t.Parallel()
	job := api.Request{Prompt: infertest.Words(300), MaxTokens: 3000, IgnoreEOS: true}
	running := func(t *testing.T, job api.Request) {
		t.Parallel()
		r := newRig(t, 4096, 2, 64)
		var once sync.Once
		l := middle(func() {
			once.Do(func() { require.NoError(t, r.Reshape(infer.Shape{Sequences: 1, Cells: 768})) })
		})
		grant := l.Grant
		refused := fmt.Errorf("no more")
		l.Grant = func(ctx context.Context, used, n int) error {
			if n > 768 {
				return refused
			}
			return grant(ctx, used, n)
		}
		_, err := r.run(t.Context(), job, l)
		require.ErrorIs(t, err, refused, "it has written until then")
	}
	t.Run("running", func(t *testing.T) { running(t, job) })
	t.Run("running, reproducible", func(t *testing.T) {
		job := job
		job.Reproducible = true
		running(t, job)
	})
	t.Run("waiting", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, 4096, 2, 64)
		l := infertest.NewLease(0)
		l.Grant = func(_ context.Context, used, _ int) error {
			if used == 0 {
				return r.Reshape(infer.Shape{Sequences: 1, Cells: 768})
			}
			return nil
		}
		out, err := r.run(t.Context(), job, l)
		require.NoError(t, err)
		require.Equal(t, "length", out.Choices[0].FinishReason)
	})
}

// A job that was passed over often enough is next, whatever others have cached.
func TestPassedOverNoMore(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(2048, 4, 64), nil)
	tokens := make([]llama.Token, 600)
	for i := range tokens {
		tokens[i] = llama.Token(i % 50)
	}
	p := s.pools[0]
	seat := p.seats[0]
	seat.tokens, seat.cells = tokens[:400], 400
	p.tree.Put(0, seat.tokens)
	old := &job{req: infer.Request{Job: &api.Request{}}, tokens: make([]llama.Token, 9), prompt: 9, longest: 20, leased: 20}
	late := &job{req: infer.Request{Job: &api.Request{}}, tokens: tokens[:450], prompt: 450, longest: 460, leased: 460}
	s.jobs = []*job{old, late}
	require.Equal(t, []*job{late, old}, s.waiting())
	old.passed = mostPassed
	require.Equal(t, []*job{old, late}, s.waiting())
	s.jobs = nil
}

// A batch smaller than a piece of a prompt, or than the jobs that run, is made larger.
func TestSmallBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, 4, 3)
	var all errgroup.Group
	for i := range 8 {
		all.Go(func() error {
			_, err := r.run(t.Context(), api.Request{
				Prompt: infertest.Words(100), MaxTokens: 5, IgnoreEOS: true, Reproducible: i%2 == 0,
			}, infertest.NewLease(0))
			return err
		})
	}
	require.NoError(t, all.Wait())
}

// What is kept for jobs to come gives way to a job that comes back into one pool.
func TestRestoreIntoAFullPool(t *testing.T) {
	t.Parallel()
	r := newLayoutRig(t, Unified, 1024, 8, 64)
	fill := func(word string) {
		var all errgroup.Group
		text := ""
		for range 350 {
			text += " " + word
		}
		for i := range 3 {
			all.Go(func() error {
				_, err := r.run(t.Context(), api.Request{Prompt: text + fmt.Sprint(" and ", i), MaxTokens: 3}, infertest.NewLease(0))
				return err
			})
		}
		require.NoError(t, all.Wait())
	}
	want := r.mustRun(t, long())
	var l *infertest.Lease
	l = middle(func() { l.TakeBack() })
	grant := l.Grant
	var once sync.Once
	l.Grant = func(ctx context.Context, used, n int) error {
		if used == 0 && len(l.Calls()) > 1 {
			once.Do(func() {
				fill("b")
				fill("c")
			})
		}
		return grant(ctx, used, n)
	}
	out, err := r.run(t.Context(), long(), l)
	require.NoError(t, err)
	require.Equal(t, want.CompletionTokens, out.CompletionTokens)
}

// A short header in common does not cost a long prefix that a group of jobs has.
func TestLongPrefixOutlivesAShortOne(t *testing.T) {
	t.Parallel()
	r := newLayoutRig(t, Streams, 8192, 8, 64)
	header := infertest.Words(20)
	group := header + " the long prefix of a group: " + infertest.Words(400)
	r.mustRun(t, api.Request{Prompt: group, MaxTokens: 3})
	require.Greater(t, r.mustRun(t, api.Request{Prompt: group, MaxTokens: 3}).CachedTokens, 300)
	r.mustRun(t, api.Request{Prompt: header + " something else", MaxTokens: 3})
	require.Greater(t, r.mustRun(t, api.Request{Prompt: group, MaxTokens: 3}).CachedTokens, 300)
}

// In one pool too the last prompt is kept.
func TestUnifiedKeepsTheLastPrompt(t *testing.T) {
	t.Parallel()
	r := newLayoutRig(t, Unified, 2048, 4, 64)
	job := api.Request{Prompt: infertest.Words(200), MaxTokens: 3}
	r.mustRun(t, job)
	require.Positive(t, r.mustRun(t, job).CachedTokens)
}

// exactPool is a pool for reproducible jobs, and a prompt of 600 tokens.
func exactPool(t *testing.T) (*pool, []llama.Token) {
	t.Helper()
	s := newScheduler(t, options(4096, 4, 64), nil)
	s.probed = true
	require.NoError(t, s.open([]layout{{cells: 4096, streams: 4, exact: true}}))
	tokens := make([]llama.Token, 600)
	for i := range tokens {
		tokens[i] = llama.Token(i % 50)
	}
	return s.pools[0], tokens
}

// A reproducible job shares whole pieces of its prompt only, not what it has written.
func TestExactSharesWholePieces(t *testing.T) {
	t.Parallel()
	p, tokens := exactPool(t)
	p.seats[0].tokens, p.seats[0].cells = tokens, 600
	p.tree.Put(0, tokens)
	_, common, _ := p.source(&job{tokens: tokens[:500], prompt: 300})
	require.Equal(t, 256, common)
}

// Nor does it wait for less than a piece that another is reading, or has read.
func TestExactWaitsForWholePieces(t *testing.T) {
	t.Parallel()
	p, tokens := exactPool(t)
	other := func(common int) *job {
		own := slices.Clone(tokens)
		own[common] = 60
		return &job{tokens: own, prompt: len(own)}
	}
	p.take(p.seats[0], &job{tokens: tokens, prompt: 600}, 0)
	for common, want := range map[int]bool{100: false, 255: false, 256: true, 500: true} {
		_, _, wait := p.source(other(common))
		require.Equal(t, want, wait, "%d tokens in common", common)
	}
}

// Run alone, a sampled job has the same text again, though its prompt is cached then.
func TestAloneTwice(t *testing.T) {
	t.Parallel()
	r := exactRig(t, exactSpec(gguf.Q8_0), "f16", options(4096, 8, 512))
	for i := range 20 {
		seed := uint32(7)
		job := api.Request{
			Prompt: fmt.Sprint(i, " ", infertest.Words(100+i*10)), MaxTokens: 60, IgnoreEOS: true,
			Sampling: api.Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1, Seed: &seed},
		}
		first := r.mustRun(t, job)
		require.Equal(t, first.Text(), r.mustRun(t, job).Text())
	}
}
