package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// Of a batch that is paused no more jobs are taken, until it goes on; another is served meanwhile.
func TestPause(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "a"}, 3)
	taker, _ := newTaker(t, c, 0)
	running := take(t, taker, 1)[0]
	pause := func(paused bool) {
		_, err := c.UpdateBatch(t.Context(), "a", func(b *api.Batch) error {
			b.Tempo.Paused = paused
			return nil
		})
		require.NoError(t, err)
	}
	pause(true)
	require.Eventually(t, func() bool {
		taker.mu.Lock()
		defer taker.mu.Unlock()
		return taker.batches["a"].Tempo.Paused
	}, 10*time.Second, time.Millisecond)
	takeNone(t, taker)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	require.Equal(t, "b", take(t, taker, 1)[0].Job.Batch)
	require.NoError(t, running.Life().Err(), "what runs goes on")
	complete(t, running)
	pause(false)
	take(t, taker, 2)
}

// All workers together have no more jobs of a batch than it allows, also when that changes.
func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b", Tempo: api.BatchTempo{MaxInFlight: 3}}, 10)
	one, _ := newTaker(t, c, 0)
	two, _ := newTaker(t, c, 0)
	got := append(take(t, one, 2), take(t, two, 1)...)
	takeNone(t, one)
	takeNone(t, two)
	complete(t, got[0])
	take(t, two, 1)
	takeNone(t, one)
	_, err := c.UpdateBatch(t.Context(), "b", func(b *api.Batch) error {
		b.Tempo.MaxInFlight = 5
		return nil
	})
	require.NoError(t, err)
	take(t, one, 2)
	takeNone(t, one)
}
