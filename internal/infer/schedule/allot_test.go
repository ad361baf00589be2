package schedule

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

// full is a job whose sets are as wide as the worker allows.
func full(change func(*api.Parallel)) api.Request {
	j := wide(func(p *api.Parallel) {
		p.Threshold, p.MaxTokens = api.MinThreshold, 0
		if change != nil {
			change(p)
		}
	})
	j.Sampling.Temperature = 3
	return j
}

// begin runs a job until it has something in the pool, and goes on; ended receives how it ended.
func (r *rig) begin(ctx context.Context, job api.Request) (ended chan error) {
	begun, once := make(chan struct{}), sync.Once{}
	l := infertest.NewLease(0)
	l.Grant = func(_ context.Context, used, _ int) error {
		if used > 0 {
			once.Do(func() { close(begun) })
		}
		return nil
	}
	ended = make(chan error, 1)
	go func() {
		_, err := r.run(ctx, job, l)
		ended <- err
	}()
	<-begun
	return ended
}

// requireNoneStarves runs jobs beside each other, the last of which is short, and expects
// it to end while the others go on.
func requireNoneStarves(t *testing.T, opts Options, last api.Request, others ...api.Request) {
	t.Helper()
	r := run(t, newScheduler(t, opts, nil))
	ctx, stop := context.WithCancel(t.Context())
	var ends []chan error
	for i, job := range others {
		job.Prompt = fmt.Sprint(i, job.Prompt)
		ends = append(ends, r.begin(ctx, job))
	}
	r.mustRun(t, last)
	requireGoOn(t, ends, stop)
}

// requireGoOn expects that jobs have not ended, and ends them.
func requireGoOn(t *testing.T, ends []chan error, stop func()) {
	t.Helper()
	for _, ended := range ends {
		require.Empty(t, ended, "nobody else has ended yet")
	}
	stop()
	for _, ended := range ends {
		require.ErrorIs(t, <-ended, context.Canceled)
	}
}

// Sets that are decoded anew, beside others that take all sequences, or nearly all of each batch,
// come in their turn.
func TestSetsDecodedAnewDoNotStarve(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sequences, batch int
		change           func(*api.Parallel)
	}{
		"isolated":     {128, 256, func(p *api.Parallel) { p.Isolate, p.MaxTokens = true, 64 }},
		"with removal": {50, 512, func(p *api.Parallel) { p.Removal, p.MaxTokens = &api.RetroactiveRemoval{Window: 1}, 25 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, newScheduler(t, options(65536, c.sequences, c.batch), nil))
			ctx, stop := context.WithCancel(t.Context())
			job := full(c.change)
			job.MaxTokens = 2000
			var ends []chan error
			for i := range 2 {
				other := job
				other.Prompt = fmt.Sprint(i, job.Prompt)
				ends = append(ends, r.begin(ctx, other))
			}
			job.MaxTokens = 20
			last := r.begin(ctx, job)
			r.tell(func() {
				if j := r.jobs[len(r.jobs)-1]; len(r.jobs) == 3 { // it may have ended
					if r.fault = j.pool.vacate(j); r.fault == nil {
						j.restart()
					}
				}
			})
			require.NoError(t, <-last)
			requireGoOn(t, ends, stop)
		})
	}
}

// The widest sets whose members are kept apart go on beside a job that keeps as many sequences as
// a job can.
func TestIsolatedBesideRemoval(t *testing.T) {
	t.Parallel()
	removal := full(func(p *api.Parallel) { p.Removal = &api.RetroactiveRemoval{Window: 1} })
	removal.MaxTokens = 2000
	isolated := full(func(p *api.Parallel) { p.Isolate = true })
	isolated.MaxTokens = 6
	requireNoneStarves(t, options(65536, 128, 256), isolated, removal)
}

// Jobs whose sets take all outputs of a step leave some to the others.
func TestNobodyStarvesBesideWideSets(t *testing.T) {
	t.Parallel()
	endless := full(nil)
	endless.MaxTokens = 1000
	plain := api.Request{Prompt: "and a plain job", MaxTokens: 20, IgnoreEOS: true}
	set := full(nil)
	set.MaxTokens = 20
	apart := full(func(p *api.Parallel) { p.Isolate = true })
	apart.MaxTokens = 20
	for name, last := range map[string]api.Request{"plain": plain, "set": set, "isolated": apart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireNoneStarves(t, options(32768, 8, 64), last, endless, endless)
		})
	}
	t.Run("streams", func(t *testing.T) {
		t.Parallel()
		opts := options(32768, 8, 64)
		opts.Layout = Streams
		narrow := endless
		two := *endless.Parallel
		two.MaxTokens = 2
		narrow.Parallel = &two
		three := full(func(p *api.Parallel) { p.MaxTokens = 3 })
		three.MaxTokens = 20
		requireNoneStarves(t, opts, three, endless, narrow)
	})
}

// Isolated jobs that are decoded anew need more sequences than there are at once: they take turns.
func TestSequencesRunOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, 16384, 100, 512)
	job := full(func(p *api.Parallel) {
		p.Isolate = true
		p.Dynamic = &api.DynamicThreshold{Final: 1, Curve: api.CurveReLU, ActivationPoint: 0.01}
	})
	job.MaxTokens = 40
	const n = 4
	ended, begun := make(chan error, n), make(chan struct{}, 100)
	for i := range n {
		job := job
		job.Prompt = fmt.Sprint(i, job.Prompt)
		l := infertest.NewLease(0)
		l.Grant = func(_ context.Context, used, _ int) error {
			if used > 0 {
				begun <- struct{}{}
			}
			return nil
		}
		go func() {
			_, err := r.run(t.Context(), job, l)
			ended <- err
		}()
	}
	for range n {
		<-begun
	}
	// The pools are divided anew under them.
	r.mustRun(t, api.Request{Prompt: "for it", MaxTokens: 2, Reproducible: true})
	for range n {
		require.NoError(t, <-ended)
	}
	requireIDsBack(t, r)
}

// Tokens can be removed however many jobs the worker may run.
func TestRemovalWithManySequences(t *testing.T) {
	t.Parallel()
	for _, sequences := range []int{6, 128, 200, 256} {
		out := newRig(t, 2048, sequences, 64).mustRun(t, wide(kinds()["visible with removal"]))
		require.Positive(t, out.Parallel.Removed, "%d sequences", sequences)
		require.Equal(t, 6, out.Parallel.Widest, "%d sequences", sequences)
	}
}

// A job whose tokens can be removed goes on where the worker may run more jobs now, which leaves
// fewer sequences to keep members apart.
func TestRemovalWithMoreSequencesThanBefore(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, 85, 128)
	job := full(func(p *api.Parallel) { p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0, Window: 1} })
	job.MaxTokens = 12
	l, changed := infertest.NewLease(0), false
	l.Grant = func(_ context.Context, used, _ int) error {
		if used == 0 || changed {
			return nil
		}
		changed = true
		return r.Reshape(infer.Shape{Sequences: 200, Cells: 4096})
	}
	out, err := r.run(t.Context(), job, l)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, mostApart, out.Parallel.Widest)
}

// Where attention is read the pool is smaller: a job with sets ends there, and one that needs
// more waits for another pool.
func TestAttendedPoolIsSmaller(t *testing.T) {
	t.Parallel()
	opts := options(4096, 8, 64)
	opts.Attends = func(cells int) int { return cells / 4 }
	r := run(t, newScheduler(t, opts, nil))
	removal := &api.RetroactiveRemoval{AttentionThreshold: 0.001, Window: 2}
	endless := full(func(p *api.Parallel) { p.Removal = removal })
	endless.MaxTokens = 0
	out := r.mustRun(t, endless)
	require.Equal(t, "length", out.Choices[0].FinishReason)
	require.Equal(t, 1024, out.PromptTokens+out.Parallel.Tokens-out.Parallel.Removed)

	job := full(func(p *api.Parallel) { p.Removal, p.MaxTokens = removal, 3 })
	job.MaxTokens = 100
	ended := r.begin(t.Context(), job)
	r.mustRun(t, api.Request{Prompt: infertest.Words(1500), MaxTokens: 4, IgnoreEOS: true})
	require.NoError(t, <-ended)
}

// If attention cannot be read any more, only the jobs that ask for it end, each with an error that
// says what to do.
func TestUnreadAttentionEndsRemovalOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4096, 8, 64)
	removal := func(p *api.Parallel) { p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.001, Window: 2} }
	endless := full(removal)
	endless.MaxTokens = 0
	refused := r.begin(t.Context(), endless)
	r.tell(func() { r.cannotRead(errors.New("the weights are elsewhere")) })
	var request *infer.RequestError
	require.ErrorAs(t, <-refused, &request)
	require.Equal(t, "tempo.retroactive_removal", request.Param)
	require.Contains(t, request.Message, "the weights are elsewhere")
	_, err := r.run(t.Context(), wide(removal), infertest.NewLease(0))
	require.ErrorAs(t, err, &request)
	require.Positive(t, r.mustRun(t, wide(nil)).Parallel.Tokens)
	requireIDsBack(t, r)
}

// A bound on the cache that the prompt alone fills is an error.
func TestMaxCacheTokensBelowThePrompt(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	prompt := r.mustRun(t, wide(nil)).PromptTokens
	for most := 2; most <= prompt; most += 7 {
		_, err := r.run(t.Context(), wide(func(p *api.Parallel) { p.MaxCacheTokens = most }), infertest.NewLease(0))
		var request *infer.RequestError
		require.ErrorAs(t, err, &request)
		require.Equal(t, "tempo.max_cache_tokens", request.Param)
	}
	out := r.mustRun(t, wide(func(p *api.Parallel) { p.MaxCacheTokens = prompt + 1 }))
	require.Equal(t, 1, out.Parallel.Tokens)
}

// As much is removed beside other wide jobs as alone: those for which there are no sequences to
// keep members apart wait.
func TestRemovalInCompany(t *testing.T) {
	t.Parallel()
	opts := options(16384, 50, 512)
	opts.NoFlash = true
	r := run(t, newScheduler(t, opts, nil))
	job := full(func(p *api.Parallel) {
		p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.0195, Window: 4}
	})
	job.MaxTokens = 15
	var alone []int
	var jobs errgroup.Group
	together := make([]int, 6)
	for i := range together {
		j := job
		j.Prompt = fmt.Sprint(i, job.Prompt)
		alone = append(alone, r.mustRun(t, j).Parallel.Removed)
	}
	for i := range together {
		j := job
		j.Prompt = fmt.Sprint(i, job.Prompt)
		jobs.Go(func() error {
			out, err := r.run(t.Context(), j, infertest.NewLease(0))
			if err == nil {
				together[i] = out.Parallel.Removed
			}
			return err
		})
	}
	require.NoError(t, jobs.Wait())
	for i, n := range alone {
		require.InDelta(t, n, together[i], 0.1*float64(n))
	}
}

// Sets of which only the first member has an output leave room for prompts.
func TestPromptsBesideSetsOfOneOutput(t *testing.T) {
	t.Parallel()
	endless := full(func(p *api.Parallel) { p.Mix = api.MixTop })
	endless.MaxTokens = 1000
	plain := api.Request{Prompt: "and a plain job", MaxTokens: 5, IgnoreEOS: true}
	requireNoneStarves(t, options(65536, 16, 64), plain, endless, endless, endless, endless)
}
