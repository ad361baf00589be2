package worker

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

func TestGrowthMakesTheYoungestGiveWay(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	// Four jobs of 256 tokens fill the pool. When all are in, the first to come
	// grows to the whole pool, step by step.
	const oldest = "prompt 0"
	var mu sync.Mutex
	all := make(chan struct{})
	arrived := 0
	engine := &script{}
	engine.act = func(ctx context.Context, r infer.Request, prompt string) error {
		mu.Lock()
		if arrived++; arrived == 4 {
			close(all)
		}
		late := arrived > 4
		mu.Unlock()
		if late {
			return nil
		}
		select {
		case <-all:
		case <-ctx.Done():
			return ctx.Err()
		}
		if prompt != oldest {
			<-ctx.Done() // it would run for long
			return ctx.Err()
		}
		for n := 384; n <= 1024; n += 128 {
			if err := r.Lease.Resize(ctx, 250, n); err != nil {
				return err
			}
			if r.Lease.Tokens() != n {
				t.Errorf("the lease has %d tokens, want %d", r.Lease.Tokens(), n)
			}
		}
		return nil
	}
	w := newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(4)...)
	got := results(t, c, "b", 4)
	require.GreaterOrEqual(t, w.Stats().GaveWay, int64(3))
	for id, r := range got {
		requireAnswered(t, r, 1)
		require.Equal(t, r.Tempo.LeaseBytes == 1024*1024, "prompt "+id[len("custom-"):] == oldest)
	}
	require.Equal(t, 1, engine.ran(oldest))
}

func TestResize(t *testing.T) {
	t.Parallel()
	w := newWorker(t, newQueue(t), &script{}, nil)
	old, young := newJob(t, w.Worker, "old", 500), newJob(t, w.Worker, "young", 500)

	// Room is there, and given back.
	require.NoError(t, old.lease.Resize(t.Context(), 100, 524))
	require.NoError(t, old.lease.Resize(t.Context(), 100, 500))
	require.Equal(t, 500, old.lease.Tokens())

	// The youngest gives way itself.
	require.ErrorIs(t, young.lease.Resize(t.Context(), 100, 600), errPreempted)
	require.Equal(t, 500, young.lease.Tokens())

	// A job waits for a younger one to leave, and can be cancelled.
	ctx, cancel := context.WithCancel(t.Context())
	grown := make(chan error, 1)
	go func() { grown <- old.lease.Resize(ctx, 100, 600) }()
	<-young.ctx.Done()
	require.ErrorIs(t, context.Cause(young.ctx), errPreempted)
	cancel()
	require.ErrorIs(t, <-grown, context.Canceled)
	go func() { grown <- old.lease.Resize(t.Context(), 100, 600) }()
	finish(w.Worker, young)
	require.NoError(t, <-grown)
	require.Equal(t, 600, old.lease.Tokens())

	// A job with nothing in the pool waits in the ledger, with nothing, and can be
	// cancelled.
	next := newJob(t, w.Worker, "next", 200)
	ctx, cancel = context.WithCancel(t.Context())
	go func() { grown <- next.lease.Resize(ctx, 0, 700) }()
	require.Eventually(t, func() bool { return w.ledger.Snapshot().Waiting == 1 }, time.Second, time.Millisecond)
	require.Zero(t, next.lease.Tokens())
	cancel()
	require.ErrorIs(t, <-grown, context.Canceled)
	go func() { grown <- next.lease.Resize(t.Context(), 0, 700) }()
	require.Eventually(t, func() bool { return w.ledger.Snapshot().Waiting == 1 }, time.Second, time.Millisecond)
	require.Equal(t, w.pool.perCell.Mul(600), finish(w.Worker, old))
	require.NoError(t, <-grown)

	// More than the pool is refused at once.
	var large *budget.TooLargeError
	require.ErrorAs(t, next.lease.Resize(t.Context(), 100, 2000), &large)
	require.ErrorAs(t, next.lease.Resize(t.Context(), 0, 2000), &large)

	// The only job, when the pool has shrunk.
	w.ledger.SetLimit(w.ledger.Snapshot().Charged().Total() - 200*w.pool.perCell)
	require.ErrorAs(t, next.lease.Resize(t.Context(), 100, 900), &large)
	require.Equal(t, w.pool.perCell.Mul(900), large.Need)
	require.Equal(t, w.pool.perCell.Mul(824), large.Capacity)
	finish(w.Worker, next)
	w.requireEmpty(t)
}

// TestAJobGivesBack what its sets do not need any more: it is there at once for one that
// waits to start, and for one that runs.
func TestAJobGivesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &script{}, nil)
		next, old, young := newJob(t, w, "next", 100), newJob(t, w, "old", 462), newParallel(t, w, "young", 462, 0)
		started := make(chan error, 1)
		go func() { started <- next.lease.Resize(next.ctx, 0, 300) }()
		synctest.Wait()
		require.Equal(t, 1, w.ledger.Snapshot().Waiting)

		began := time.Now()
		require.NoError(t, young.lease.Resize(t.Context(), 250, 262))
		require.NoError(t, <-started)
		require.Zero(t, time.Since(began))
		require.Equal(t, 262, young.lease.Tokens())
		require.Equal(t, 300, next.lease.Tokens())

		grown := grow(t, old, 512)
		require.NoError(t, young.lease.Resize(t.Context(), 150, 200))
		require.NoError(t, <-grown)
		require.LessOrEqual(t, time.Since(began), lookAgain)
		require.NoError(t, young.ctx.Err(), "nobody gave way")
		for _, j := range []*job{next, old, young} {
			finish(w, j)
		}
		(&rig{Worker: w}).requireEmpty(t)
	})
}

// TestNeeded: what jobs teach of the memory that the next ones need.
func TestNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		ticket       int64
		asked        []int // for its beginning, and then to grow
		prompt, made int
		want         int
	}{
		{"nothing was asked for", 256, nil, 10, 10, 256},
		{"less than it began with", 256, []int{148}, 20, 10, 148},
		{"it has grown", 64, []int{228, 484, 740}, 100, 600, 700},
		{"much was removed again", 64, []int{228, 356}, 100, 600, 356},
		{"the vectors of texts", 64, []int{300}, 300, 0, 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := alone(t, &script{}, nil)
				j := newJob(t, w, "j", c.ticket)
				for i, n := range c.asked {
					require.NoError(t, j.lease.Resize(t.Context(), min(i, 1), n))
				}
				out := &infer.Output{PromptTokens: c.prompt, CompletionTokens: c.made}
				require.Equal(t, c.want, j.lease.needed(out))
			})
		})
	}
}

// unanswered is a queue in which no job has a result.
type unanswered struct{ Queue }

func (unanswered) HasResult(context.Context, string, string) (bool, error) { return false, nil }

// spreading has each job take 700 tokens, at 200 positions behind a prompt of 100.
type spreading struct{ script }

func (*spreading) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	for i, n := range []int{228, 484, 740} {
		if err := r.Lease.Resize(ctx, min(i, 1), n); err != nil {
			return nil, err
		}
	}
	return &infer.Output{
		Choices:  []infer.Choice{{Text: "a", FinishReason: "stop", Tokens: 600}},
		Parallel: &api.ParallelResult{Positions: 200, Tokens: 600}, PromptTokens: 100, CompletionTokens: 600, Started: time.Now(),
	}, nil
}

// TestTicketsFollowWhatJobsCameTo, not what they began with, nor their positions.
func TestTicketsFollowWhatJobsCameTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &spreading{}, nil)
		w.queue = unanswered{}
		require.EqualValues(t, firstTicket, w.ticket.Load())
		for range 60 {
			j := newJob(t, w, "j", w.ticket.Load())
			j.delivery.Job.URL, j.delivery.Job.Body = api.Completions, json.RawMessage(`{"prompt":"a"}`)
			_, err := w.run(j)
			require.NoError(t, err)
			finish(w, j)
		}
		require.InDelta(t, 700, w.ticket.Load(), 8)

		// What is asked for at first is learnt before the job has ended if it is more.
		j := newJob(t, w, "j", 100)
		require.NoError(t, j.lease.Resize(t.Context(), 0, 100))
		require.InDelta(t, 700, w.ticket.Load(), 8)
		require.NoError(t, j.lease.Resize(t.Context(), 0, 1000))
		require.Greater(t, w.ticket.Load(), int64(720))
	})
}

// TestIntakeGivesWay: what is leased for jobs that are not here must not keep a
// job that is here from growing.
func TestIntakeGivesWay(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{act: func(ctx context.Context, r infer.Request, prompt string) error {
		switch prompt {
		case "prompt 0": // running
			for n := 320; n <= 1024; n += 64 {
				if err := r.Lease.Resize(ctx, 300, n); err != nil {
					return err
				}
			}
		case "prompt 1": // not begun
			return r.Lease.Resize(ctx, 0, 1024)
		}
		return nil
	}}
	w := newWorker(t, c, engine, nil).run(t)
	for _, batch := range []string{"a", "b", "c"} {
		// The intake holds as much of the pool as it can, for nobody.
		require.Eventually(t, func() bool { return w.ledger.Snapshot().Leases > 0 }, 5*time.Second, time.Millisecond)
		send(t, c, batch, prompts(2)...)
		for _, r := range results(t, c, batch, 2) {
			requireAnswered(t, r, 1)
		}
	}
}

func TestClosedLeaseKeepsNothing(t *testing.T) {
	t.Parallel()
	w := newWorker(t, newQueue(t), &script{}, nil)
	j := newJob(t, w.Worker, "j", 100)
	finish(w.Worker, j)
	require.NoError(t, j.lease.Resize(t.Context(), 0, 50), "a late answer to an engine that asked")
	w.requireEmpty(t)
}

// unwatched keeps the pool from being resized when the room in it has shrunk.
func unwatched(o *Options) { o.WatchInterval = time.Hour }

// TestShrunkRoom: others' memory has made the pool too small for a job that waits to
// start, and nobody holds anything: it must not wait, and hold the intake, for ever.
// It goes back to the queue until there is room again, here or elsewhere.
func TestShrunkRoom(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{act: func(ctx context.Context, r infer.Request, prompt string) error {
		if prompt == "prompt 0" {
			return r.Lease.Resize(ctx, 0, 900)
		}
		return nil
	}}
	w := newWorker(t, c, engine, unwatched)
	w.ledger.SetLimit(w.ledger.Snapshot().Charged().Total() - 200*w.pool.perCell) // 824 are left
	w.run(t)
	send(t, c, "b", prompts(3)...)
	require.Eventually(t, func() bool {
		n, err := c.CountResults(t.Context(), "b")
		return err == nil && n == 2 && engine.ran("prompt 0") > 0 // in whatever order they began
	}, 5*time.Second, time.Millisecond)
	require.Equal(t, 1, engine.ran("prompt 0"), "it waits in the queue: the pool was large enough")
	w.ledger.SetLimit(w.opts.Limit)
	for _, r := range results(t, c, "b", 3) {
		requireAnswered(t, r, 1)
	}
}

// TestTicketsShrinkWithTheRoom: so do leases for jobs to come, if jobs so far needed
// more than there is now.
func TestTicketsShrinkWithTheRoom(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	w := newWorker(t, c, &script{}, unwatched)
	w.ticket.Store(1000)
	w.ledger.SetLimit(w.ledger.Snapshot().Charged().Total() - 200*w.pool.perCell)
	require.Equal(t, w.pool.perCell.Mul(824), w.ticketSize())
	full, err := w.ledger.Acquire(t.Context(), w.pool.perCell.Mul(824), budget.Normal)
	require.NoError(t, err)
	w.run(t)
	require.Eventually(t, func() bool { return w.ledger.Snapshot().Waiting == 1 }, 5*time.Second, time.Millisecond)
	w.ledger.SetLimit(w.ledger.Snapshot().Limit - 300*w.pool.perCell) // while the intake waits
	full.Release()
	send(t, c, "b", prompts(3)...)
	for _, r := range results(t, c, "b", 3) {
		requireAnswered(t, r, 1)
	}
}
