package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// The counts of a batch are those of its results at any moment, whoever has counted before.
func TestCounts(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	const n = noteCounts + 500
	newBatch(t, c, api.Batch{ID: "b", RequestCounts: api.RequestCounts{Total: n}}, n)
	taker, _ := newTaker(t, c, 0)
	want := api.RequestCounts{Total: n}
	check := func() api.Batch {
		b, err := c.Counts(t.Context(), "b")
		require.NoError(t, err)
		require.Equal(t, want, b.RequestCounts)
		return b
	}
	check()
	for i, d := range take(t, taker, n-1) {
		if i%3 == 0 {
			require.NoError(t, d.Complete(t.Context(), &api.Result{Error: &api.Error{Code: "x"}}))
			want.Failed++
		} else {
			complete(t, d)
			want.Completed++
		}
		if i == 10 || i == noteCounts+5 || i == noteCounts+6 {
			check()
		}
	}
	require.NotZero(t, check().Tempo.Counted, "they are not counted from the beginning each time")
	d := take(t, taker, 1)[0]
	complete(t, d)
	want.Completed++
	b, err := c.CompleteBatch(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, api.Completed, b.Status)
	require.Equal(t, want, check().RequestCounts)
	stored, err := c.Batch(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, want, stored.RequestCounts)
}

// A batch of which all jobs have their results is completed by the workers, if nobody else does it.
func TestDoneBatchesAreCompleted(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	for _, id := range []string{"done", "open", "short"} {
		newBatch(t, c, api.Batch{ID: id, RequestCounts: api.RequestCounts{Total: 3}}, 3)
	}
	_, err := c.UpdateBatch(t.Context(), "short", func(b *api.Batch) error {
		b.RequestCounts.Total = 4 // one is not there yet
		return nil
	})
	require.NoError(t, err)
	taker, _ := newTaker(t, c, 0)
	for _, d := range take(t, taker, 9) {
		if d.Job.Batch != "open" || d.Job.ID != "0" {
			complete(t, d)
		}
	}
	takeNone(t, taker)
	require.Eventually(t, func() bool {
		b, err := c.Batch(t.Context(), "done")
		return err == nil && b.Status == api.Completed
	}, 10*time.Second, 10*time.Millisecond)
	for _, id := range []string{"open", "short"} {
		b, err := c.Batch(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, api.InProgress, b.Status, id)
	}
}
