package schedule

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

// middle makes a lease that calls f each time that its job, in the middle of its
// output, asks for more.
func middle(f func()) *infertest.Lease {
	l := infertest.NewLease(0)
	l.Grant = func(_ context.Context, used, _ int) error {
		if used > 0 {
			f()
		}
		return nil
	}
	return l
}

// long is a job that asks for more several times.
func long() api.Request { return api.Request{Prompt: infertest.Words(300), MaxTokens: 400} }

func TestReshapeInTheMiddle(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	want := r.mustRun(t, long())
	shapes := []infer.Shape{{Sequences: 1, Cells: 2048}, {Sequences: 200, Cells: 1024}, {Sequences: 3, Cells: 1280}}
	at := 0
	l := middle(func() {
		if at < len(shapes) {
			require.NoError(t, r.Reshape(shapes[at]))
			require.Equal(t, shapes[at].Cells, r.opts.Cells)
			at++
		}
	})
	got, err := r.run(t.Context(), long(), l)
	require.NoError(t, err)
	require.Positive(t, at)
	require.Equal(t, want.Text(), got.Text())
	require.Equal(t, want.CompletionTokens, got.CompletionTokens)
}

// Three jobs run, the first leaves, and the others go on as sequences 0 and 1.
func TestReshapeToFewerSequences(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, 3, 64)
	job := long()
	// Later there is a near tie, which goes the other way with mates in the pool.
	job.MaxTokens = share + 32
	want := r.mustRun(t, job)
	goOn := make(chan struct{})
	inPool := make(chan struct{}, 3)
	ctx, cancel := context.WithCancel(t.Context())
	errs, outs := make(chan error, 1), make(chan *infer.Output, 2)
	for i := range 3 {
		asked := false
		l := middle(func() {
			if !asked {
				asked = true
				inPool <- struct{}{}
				<-goOn
			}
		})
		jobCtx := t.Context()
		if i == 0 {
			jobCtx = ctx
		}
		go func() {
			out, err := r.run(jobCtx, job, l)
			if i == 0 {
				errs <- err
				return
			}
			outs <- out
		}()
		<-inPool // in this order
	}
	var busy *infer.BusyError
	two := infer.Shape{Sequences: 2, Cells: 2048}
	require.ErrorAs(t, r.Reshape(two), &busy)
	require.Equal(t, infer.BusyError{Jobs: 3, Cells: 3 * (300 + share), Shape: two}, *busy)
	cancel()
	require.Eventually(t, func() bool { return r.Reshape(two) == nil }, soon, tick)
	require.ErrorAs(t, r.Reshape(infer.Shape{Sequences: 2, Cells: 768}), &busy, "their leases")
	close(goOn)
	require.ErrorIs(t, <-errs, context.Canceled)
	for range 2 {
		out := <-outs
		require.NotNil(t, out)
		require.Equal(t, want.Text(), out.Text())
	}
	require.NoError(t, r.Reshape(infer.Shape{Sequences: 1, Cells: 512}))
	require.Equal(t, 400, r.mustRun(t, api.Request{Prompt: infertest.Words(400), MaxTokens: 1}).PromptTokens)
}

// A job is cut by the pool that is there when it ends, not by the one it began in,
// and a prompt that no longer fits is said to.
func TestReshapeChangesWhatFits(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	r.limit = 2048
	_, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(600)}, infertest.NewLease(0))
	var pool *infer.PoolError
	require.ErrorAs(t, err, &pool)
	require.Equal(t, infer.PoolError{Need: 601, Have: 512}, *pool)

	grown := false
	l := middle(func() {
		if !grown {
			grown = true
			require.NoError(t, r.Reshape(infer.Shape{Sequences: 1, Cells: 1024}))
		}
	})
	out, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(300), MaxTokens: 500}, l)
	require.NoError(t, err)
	require.True(t, grown)
	require.Equal(t, "length", out.Choices[0].FinishReason)
	require.Equal(t, 500, out.CompletionTokens)

	// One waits for memory while the pool gets too small for it.
	asked := make(chan struct{})
	waiting := infertest.NewLease(0)
	waiting.Grant = func(ctx context.Context, _, _ int) error {
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	}
	ended := make(chan error, 1)
	go func() {
		_, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(600)}, waiting)
		ended <- err
	}()
	<-asked
	require.NoError(t, r.Reshape(infer.Shape{Sequences: 1, Cells: 512}))
	require.ErrorAs(t, <-ended, &pool)
}

// A context that cannot be made ends the scheduler and the jobs in it.
func TestReshapeBreaks(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(1024, 2, 64), nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	r := &rig{Scheduler: s, limit: 1024}
	var broke error
	_, err := r.run(t.Context(), long(), middle(func() {
		if broke == nil {
			broke = r.Reshape(infer.Shape{Sequences: 257, Cells: 1024})
		}
	}))
	require.ErrorIs(t, err, infer.ErrStopped)
	require.ErrorContains(t, broke, "257 sequences")
	require.ErrorIs(t, <-ended, broke)
	require.ErrorIs(t, s.Reshape(infer.Shape{Sequences: 1, Cells: 256}), infer.ErrStopped)
}

// A job that is wanted back in the middle gives up what it has, each time, while
// another goes on, and ends with the text that it has undisturbed.
func TestReclaimInTheMiddle(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 1, 64)
	want := r.mustRun(t, long())
	var l *infertest.Lease
	l = middle(func() { l.TakeBack() })
	grant, out := l.Grant, 0
	l.Grant = func(ctx context.Context, used, n int) error {
		if used == 0 && len(l.Calls()) > 1 {
			if out++; out > 1 {
				return nil
			}
			require.Equal(t, 1023, r.mustRun(t, api.Request{Prompt: infertest.Words(1023), MaxTokens: 1}).PromptTokens)
		}
		return grant(ctx, used, n)
	}
	got, err := r.run(t.Context(), long(), l)
	require.NoError(t, err)
	require.Positive(t, out)
	require.Equal(t, want.Text(), got.Text())
	require.Equal(t, want.CompletionTokens, got.CompletionTokens)
	calls := l.Calls()
	for i, c := range calls[1:] {
		if c.Used == 0 {
			require.Positive(t, calls[i].Used, "after it asked for more")
			require.Greater(t, c.Asked, calls[i].Used)
		}
	}
}

// Reshape and Reclaim together: a job that is out keeps its place.
func TestReshapeWhileOneIsOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 1, 64)
	want := r.mustRun(t, long())
	var l *infertest.Lease
	l = middle(func() { l.TakeBack() })
	grant := l.Grant
	l.Grant = func(ctx context.Context, used, n int) error {
		if used == 0 && len(l.Calls()) > 1 {
			require.NoError(t, r.Reshape(infer.Shape{Sequences: 1, Cells: 256}), "nobody is in the pool")
			require.NoError(t, r.Reshape(infer.Shape{Sequences: 2, Cells: 2048}))
		}
		return grant(ctx, used, n)
	}
	got, err := r.run(t.Context(), long(), l)
	var pool *infer.PoolError
	require.ErrorAs(t, err, &pool, "more than the pool has in the meantime")
	require.Nil(t, got)

	l = middle(func() { l.TakeBack() })
	grant = l.Grant
	l.Grant = func(ctx context.Context, used, n int) error {
		if used == 0 && len(l.Calls()) > 1 {
			require.NoError(t, r.Reshape(infer.Shape{Sequences: 2, Cells: 1024 + 256*len(l.Calls())}))
		}
		return grant(ctx, used, n)
	}
	got, err = r.run(t.Context(), long(), l)
	require.NoError(t, err)
	require.Equal(t, want.Text(), got.Text())
}

// A job that is out and is refused gives its saved state up.
func TestReclaimRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	refused := errors.New("gone")
	l := infertest.NewLease(0)
	l.Grant = func(_ context.Context, used, _ int) error {
		switch {
		case used > 0:
			l.TakeBack()
		case len(l.Calls()) > 1:
			return refused
		}
		return nil
	}
	_, err := r.run(t.Context(), long(), l)
	require.ErrorIs(t, err, refused)
	require.Equal(t, 511, r.mustRun(t, api.Request{Prompt: infertest.Words(511), MaxTokens: 1}).PromptTokens)
}

func TestStepsInDebug(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	s := newScheduler(t, options(512, 2, 64), zap.New(core))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r := &rig{Scheduler: s, limit: 512}
	out := r.mustRun(t, api.Request{Prompt: infertest.Words(100), MaxTokens: 3})
	stop()
	require.NoError(t, <-ended)
	steps := logs.FilterMessage("step").All()
	require.Len(t, steps, 1+out.CompletionTokens)
	first, last := steps[0].ContextMap(), steps[len(steps)-1].ContextMap()
	require.Equal(t, map[string]any{
		"jobs": int64(1), "running": int64(1), "prefill_tokens": int64(64), "decode_tokens": int64(0),
		"cells_used": int64(64), "kv_used_bytes": first["kv_used_bytes"], "sequences_free": int64(1),
		"streams": int64(2),
	}, first)
	require.Positive(t, first["kv_used_bytes"])
	require.Equal(t, int64(0), last["prefill_tokens"])
	require.Equal(t, int64(1), last["decode_tokens"])
	require.Equal(t, int64(100+out.CompletionTokens-1), last["cells_used"])
}
