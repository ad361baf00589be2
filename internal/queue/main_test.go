package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tempo/api"
)

const model = "tiny-0.1b"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newQueue starts a server of its own for a test, with the streams.
func newQueue(t *testing.T) *Client {
	t.Helper()
	return newQueueWith(t, Topology{})
}

func newQueueWith(t *testing.T, topology Topology) *Client {
	t.Helper()
	e, err := StartEmbedded(EmbeddedOptions{Dir: t.TempDir(), MaxPayload: 1 << 20}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	c, err := ConnectEmbedded(t.Context(), e, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.EnsureTopology(t.Context(), topology))
	return c
}

// newBatch creates a batch and queues n jobs of it.
func newBatch(t *testing.T, c *Client, b api.Batch, n int) {
	t.Helper()
	createBatch(t, c, b)
	published, err := c.PublishJobs(t.Context(), jobs(b.ID, n))
	require.NoError(t, err)
	require.Equal(t, Published{New: n}, published)
}

func createBatch(t *testing.T, c *Client, b api.Batch) {
	t.Helper()
	b.Object, b.Tempo.Models = "batch", []string{model}
	if b.Status == "" {
		b.Status = api.InProgress
	}
	_, existed, err := c.CreateBatch(t.Context(), b)
	require.NoError(t, err)
	require.False(t, existed)
}

func newJob(batch string, i int) api.Job {
	return api.Job{
		ID: fmt.Sprint(i), Batch: batch, CustomID: fmt.Sprintf("custom %d", i), Model: model, Priority: api.Normal,
		URL: api.ChatCompletions, Body: json.RawMessage(`{"messages":[{"role":"user","content":"Hello"}]}`), Line: i + 1,
	}
}

func jobs(batch string, n int) iter.Seq2[api.Job, error] {
	return func(yield func(api.Job, error) bool) {
		for i := range n {
			if !yield(newJob(batch, i), nil) {
				return
			}
		}
	}
}

func oneJob(j api.Job) iter.Seq2[api.Job, error] {
	return func(yield func(api.Job, error) bool) { yield(j, nil) }
}

// newTaker starts a taker; stop has it vanish, with its deliveries.
func newTaker(t *testing.T, c *Client, ackWait time.Duration) (taker *Taker, stop func()) {
	t.Helper()
	return startTaker(t, c, TakerOptions{Worker: "w", Models: []string{"other", model}, AckWait: ackWait})
}

func startTaker(t *testing.T, c *Client, o TakerOptions) (taker *Taker, stop func()) {
	t.Helper()
	taker = c.NewTaker(o, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- taker.Run(ctx) }()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return taker, stop
}

// take takes exactly n jobs.
func take(t *testing.T, taker *Taker, n int) []*Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []*Delivery
	for len(got) < n {
		more, err := taker.Fetch(ctx, n-len(got))
		require.NoError(t, err)
		got = append(got, more...)
	}
	require.Len(t, got, n)
	return got
}

// takeNone checks that there is nothing to take for a moment.
func takeNone(t *testing.T, taker *Taker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	got, err := taker.Fetch(ctx, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, got)
}

func complete(t *testing.T, d *Delivery) {
	t.Helper()
	require.NoError(t, d.Complete(t.Context(), answer200(d.Job, "")))
}

func answer200(j api.Job, worker string) *api.Result {
	return &api.Result{
		ID: api.ResultID(j.Batch, j.ID), CustomID: j.CustomID,
		Response: &api.Response{StatusCode: 200, RequestID: "r", Body: json.RawMessage(`{}`)},
		Tempo:    &api.Tempo{Worker: worker},
	}
}

// results reads n results of a batch.
func results(t *testing.T, c *Client, batch string, n int) []api.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all []api.Result
	if n == 0 {
		return nil
	}
	require.NoError(t, c.Results(ctx, batch, func(r api.Result) error {
		if all = append(all, r); len(all) == n {
			return Stop
		}
		return nil
	}))
	return all
}

func requireCounts(t *testing.T, c *Client, batch string, pending, done int) {
	t.Helper()
	p, err := c.count(t.Context(), streamJobs, jobsOfBatch(batch))
	require.NoError(t, err)
	n, err := c.CountResults(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, []int{pending, done}, []int{p, n}, "pending, done")
}
