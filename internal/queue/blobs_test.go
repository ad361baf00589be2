package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"tempo/api"
)

// largeJob is one that is larger than a message may be, and so is its result.
func largeJob(c *Client, batch string, i int) (api.Job, *api.Result) {
	text, _ := json.Marshal(string(bytes.Repeat([]byte("x"), int(c.nc.MaxPayload()))))
	j := newJob(batch, i)
	j.Body = json.RawMessage(`{"prompt":` + string(text) + `}`)
	r := answer200(j, "w")
	r.Response.Body = text
	return j, r
}

// sendLarge queues one, in a batch b.
func sendLarge(t *testing.T, c *Client) (api.Job, *api.Result) {
	t.Helper()
	createBatch(t, c, api.Batch{ID: "b"})
	job, result := largeJob(c, "b", 0)
	_, err := c.PublishJobs(t.Context(), oneJob(job))
	require.NoError(t, err)
	return job, result
}

func blobNames(t *testing.T, c *Client) (names []string) {
	t.Helper()
	o, err := c.blobs(t.Context())
	require.NoError(t, err)
	list, err := o.List(t.Context())
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil
	}
	require.NoError(t, err)
	for _, b := range list {
		names = append(names, b.Name)
	}
	return names
}

// Jobs and results that are larger than a message may be go through the queue like others, and
// leave nothing behind.
func TestBlobs(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "b"})
	job, result := largeJob(c, "b", 0)
	for range 2 { // sent twice, it is one
		p := c.NewPublisher()
		require.NoError(t, p.Add(t.Context(), job))
		require.NoError(t, p.Add(t.Context(), newJob("b", 1)))
		_, err := p.Flush(t.Context())
		require.NoError(t, err)
	}
	requireCounts(t, c, "b", 2, 0)
	taker, _ := newTaker(t, c, 0)
	for _, d := range take(t, taker, 2) {
		if d.Job.ID == "0" {
			require.Equal(t, job, d.Job)
			require.NoError(t, d.Complete(t.Context(), result))
			require.NoError(t, c.storeResult(t.Context(), "b", "0", bytes.Repeat([]byte(" "), 2<<20), true), "the second is refused")
		} else {
			complete(t, d)
		}
	}
	for _, r := range results(t, c, "b", 2) {
		if r.CustomID == job.CustomID {
			require.Equal(t, *result, r)
		}
	}
	require.Len(t, blobNames(t, c), 1, "the result's")
	require.NoError(t, c.RemoveBatch(t.Context(), "b"))
	require.Empty(t, blobNames(t, c))
}

func TestCancelOfBlobs(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	job, _ := sendLarge(t, c)
	require.Len(t, blobNames(t, c), 1)
	_, err := c.Cancel(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, job.CustomID, results(t, c, "b", 1)[0].CustomID)
	require.Empty(t, blobNames(t, c))
}

func TestDeadLetterOfABlob(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	job, result := sendLarge(t, c)
	taker, _ := newTaker(t, c, 0)
	require.NoError(t, take(t, taker, 1)[0].Bury(t.Context(), api.Error{Code: "x"}, nil, &api.Result{Error: &api.Error{Code: "x"}}))
	letter, err := c.DeadLetter(t.Context(), "b", "0")
	require.NoError(t, err)
	require.Equal(t, job, letter.Job)
	require.Equal(t, []string{"0"}, dead(t, c, "b"))
	require.NoError(t, c.Revive(t.Context(), letter))
	d := take(t, taker, 1)[0]
	require.Equal(t, job, d.Job)
	require.NoError(t, d.Complete(t.Context(), result))
	require.NoError(t, c.RemoveBatch(t.Context(), "b"))
	require.Empty(t, blobNames(t, c))
}
