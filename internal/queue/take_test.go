package queue

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestTwoTakersShareABatch(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	const n = 2500
	newBatch(t, c, api.Batch{ID: "b"}, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 2 {
		taker, _ := newTaker(t, c, 0)
		wg.Go(func() {
			for {
				got, err := taker.Fetch(ctx, 16)
				if err != nil {
					return
				}
				for _, d := range got {
					if d.Attempt != 1 || d.Complete(t.Context(), answer200(d.Job, fmt.Sprint(i))) != nil {
						t.Errorf("job %s: attempt %d", d.Job.ID, d.Attempt)
					}
				}
			}
		})
	}
	seen, workers := map[string]bool{}, map[string]bool{}
	for _, r := range results(t, c, "b", n) {
		seen[r.CustomID] = true
		workers[r.Tempo.Worker] = true
	}
	require.Len(t, seen, n)
	require.Len(t, workers, 2)
	require.Eventually(t, func() bool {
		left, err := c.count(t.Context(), streamJobs, jobsOfBatch("b"))
		return err == nil && left == 0
	}, 5*time.Second, 5*time.Millisecond)
	cancel()
	wg.Wait()
	requireCounts(t, c, "b", 0, n)
}

func TestFetchTakesNoMoreThanAskedFor(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "a"}, 10)
	newBatch(t, c, api.Batch{ID: "b"}, 10)
	one, _ := newTaker(t, c, 0)
	take(t, one, 5)
	two, _ := newTaker(t, c, 0)
	take(t, two, 15)
	takeNone(t, one)
}

func TestSecondBatchStartsBeforeTheFirstIsDone(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "long", CreatedAt: 1}, 200)
	taker, _ := newTaker(t, c, 0)
	for _, d := range take(t, taker, 20) {
		complete(t, d)
	}
	newBatch(t, c, api.Batch{ID: "short", CreatedAt: 2}, 5)
	short := 0
	for range 40 { // far fewer than the long one has left
		d := take(t, taker, 1)[0]
		if d.Job.Batch == "short" {
			short++
		}
		complete(t, d)
	}
	require.Equal(t, 5, short)
	long, err := c.count(t.Context(), streamJobs, jobsOfBatch("long"))
	require.NoError(t, err)
	require.Equal(t, 200-20-35, long)
}

func TestPriorityGoesFirstButLowDoesNotStarve(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	for _, p := range []api.Priority{api.Low, api.Normal, api.High} {
		b := api.Batch{ID: string(p), Tempo: api.BatchTempo{Priority: p}}
		newBatch(t, c, b, 100)
	}
	taker, _ := newTaker(t, c, 0)
	require.Eventually(t, func() bool {
		taker.mu.Lock()
		defer taker.mu.Unlock()
		return len(taker.lanes) == 3
	}, 5*time.Second, time.Millisecond)
	taken := map[string]int{}
	for range 64 {
		taken[take(t, taker, 1)[0].Job.Batch]++
	}
	require.Equal(t, map[string]int{"high": 48, "normal": 12, "low": 4}, taken)
}

func TestVanishedTakersJobIsGivenOutAgain(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	const ackWait = 300 * time.Millisecond
	first, vanish := newTaker(t, c, ackWait)
	d := take(t, first, 1)[0]
	require.Equal(t, 1, d.Attempt)
	second, _ := newTaker(t, c, ackWait)
	ctx, cancel := context.WithTimeout(t.Context(), 3*ackWait) // signs of life keep it
	defer cancel()
	_, err := second.Fetch(ctx, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	vanish()
	again := take(t, second, 1)[0]
	require.Equal(t, 2, again.Attempt)
	require.Equal(t, d.Job, again.Job)
	require.Equal(t, d.Published, again.Published)
	require.NoError(t, again.Complete(t.Context(), answer200(again.Job, "second")))

	// The first one was only slow: its result comes too late, and is no error.
	require.NoError(t, d.Complete(t.Context(), answer200(d.Job, "first")))
	require.Equal(t, "second", results(t, c, "b", 1)[0].Tempo.Worker)
	requireCounts(t, c, "b", 0, 1)
}

func TestTakerOfOneBatch(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "others"}, 3)
	newBatch(t, c, api.Batch{ID: "mine"}, 2)
	taker, _ := startTaker(t, c, TakerOptions{Models: []string{model}, Batch: "mine"})
	for _, d := range take(t, taker, 2) {
		require.Equal(t, "mine", d.Job.Batch)
	}
	takeNone(t, taker)
}

func TestBatchStartsWhileItIsPublished(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b", Status: api.Validating}, 1)
	taker, _ := newTaker(t, c, 0)
	complete(t, take(t, taker, 1)[0])
}

func TestEndedBatchLosesItsConsumer(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "a"}, 2)
	newBatch(t, c, api.Batch{ID: "b"}, 2)
	end := func(id string) {
		_, err := c.UpdateBatch(t.Context(), id, func(b *api.Batch) error { b.Status = api.Completed; return nil })
		require.NoError(t, err)
	}
	requireConsumers := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool {
			s, err := c.js.Stream(t.Context(), streamJobs)
			return err == nil && s.CachedInfo().State.Consumers == n
		}, 5*time.Second, 5*time.Millisecond)
	}
	taker, stop := newTaker(t, c, 0)
	held := take(t, taker, 4)
	requireConsumers(2)

	end("a")
	requireConsumers(1)
	for _, d := range held { // also those whose consumer is gone
		complete(t, d)
	}
	requireCounts(t, c, "a", 0, 2)
	stop()

	end("b") // while no worker looks
	newTaker(t, c, 0)
	requireConsumers(0)
}

func TestConsumerThatSomebodyRemovedIsMadeAgain(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 2)
	taker, _ := newTaker(t, c, 0)
	complete(t, take(t, taker, 1)[0])
	require.NoError(t, c.deleteConsumer(t.Context(), consumerName(model, "b")))
	complete(t, take(t, taker, 1)[0])
}

// A worker whose batch has just ended looks at the next one at once.
func TestNewBatchEndsAPause(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "a"})
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 1)
	changed := taker.Changed()
	createBatch(t, c, api.Batch{ID: "b"})
	pauseUnless(t.Context(), changed, time.Hour)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	pauseUnless(ctx, taker.Changed(), time.Hour)
	pauseUnless(t.Context(), taker.Changed(), time.Nanosecond)
}
