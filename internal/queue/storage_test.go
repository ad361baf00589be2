package queue

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// Before the results run out of room no more jobs are taken; those that are there wait for room
// to end in, and lose nothing.
func TestStorageRunsOut(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	c := newQueueWith(t, Topology{ResultsMax: limit})
	newBatch(t, c, api.Batch{ID: "old"}, 12)
	newBatch(t, c, api.Batch{ID: "new"}, 1)
	large := func(d *Delivery) *api.Result {
		r := answer200(d.Job, "")
		r.Response.Body, _ = json.Marshal(string(bytes.Repeat([]byte("x"), limit/12)))
		return r
	}
	taker, _ := startTaker(t, c, TakerOptions{Models: []string{model}, Batch: "old"})
	ds := take(t, taker, 12)
	for _, d := range ds[:10] {
		require.NoError(t, d.Complete(t.Context(), large(d)))
	}
	_, err := c.PublishJobs(t.Context(), jobs("new", 5))
	var full *StorageError
	require.ErrorAs(t, err, &full)
	require.Contains(t, err.Error(), "stream RESULTS holds")
	require.Contains(t, full.Hint(), "submit purge")

	for _, d := range ds[10:11] { // what was taken has room
		require.NoError(t, d.Complete(t.Context(), large(d)))
	}
	stored := make(chan error, 1)
	go func() { stored <- ds[11].Complete(t.Context(), large(ds[11])) }()
	select {
	case err := <-stored:
		require.Fail(t, "it was stored", err)
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, c.purge(t.Context(), streamResults, resultSubject("old", ds[0].Job.ID)))
	require.NoError(t, <-stored)
	requireCounts(t, c, "old", 0, 11)
	require.NoError(t, c.RemoveBatch(t.Context(), "old"))
	_, err = c.PublishJobs(t.Context(), jobs("new", 5))
	require.NoError(t, err)
	requireCounts(t, c, "new", 5, 0)
}
