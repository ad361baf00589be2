package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestResultsComeInOrderAndOnce(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	const n = 300
	newBatch(t, c, api.Batch{ID: "b"}, n)
	newBatch(t, c, api.Batch{ID: "b2"}, 3)
	taker, _ := newTaker(t, c, 0)
	var want []string
	for _, d := range take(t, taker, n+3) {
		complete(t, d)
		if d.Job.Batch == "b" {
			want = append(want, d.Job.CustomID)
		}
	}
	for range 2 { // from the first one on each time
		var got []string
		for _, r := range results(t, c, "b", n) {
			got = append(got, r.CustomID)
		}
		require.Equal(t, want, got)
	}
}

func TestResultsEnd(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	complete(t, take(t, taker, 1)[0])

	broken := errors.New("disk full")
	require.Equal(t, broken, c.Results(t.Context(), "b", func(api.Result) error { return broken }))

	ctx, cancel := context.WithCancel(t.Context())
	err := c.Results(ctx, "b", func(api.Result) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestResultThatCannotBeRead(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	_, err := c.js.Publish(t.Context(), "results.b.7", []byte("?"))
	require.NoError(t, err)
	r := results(t, c, "b", 1)[0]
	require.Equal(t, "7", r.CustomID)
	require.Equal(t, codeInvalidMessage, r.Error.Code)
}

func TestResultHasTheIDOfItsSubject(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	_, err := c.js.Publish(t.Context(), "results.b.7", []byte(`{"id":"batch_req_b-8","custom_id":"x"}`))
	require.NoError(t, err)
	require.Equal(t, "batch_req_b-7", results(t, c, "b", 1)[0].ID)
}

// A reader, a taker and a publisher that are in the middle of their work when the
// server goes away carry on when it is back.
func TestServerRestartLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := StartEmbedded(EmbeddedOptions{Dir: dir, Listen: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	addr := e.server.Addr().String()
	c, err := Connect(t.Context(), Options{URL: e.URL()}, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.EnsureTopology(t.Context(), Topology{}))
	newBatch(t, c, api.Batch{ID: "b"}, 100)
	taker, _ := newTaker(t, c, 2*time.Second)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	before := make(chan struct{})
	var got []string
	read := make(chan error, 1)
	go func() {
		read <- c.Results(ctx, "b", func(r api.Result) error {
			if got = append(got, r.CustomID); len(got) == 50 {
				close(before)
			}
			if len(got) == 200 {
				return Stop
			}
			return nil
		})
	}()
	for _, d := range take(t, taker, 50) {
		complete(t, d)
	}
	<-before
	held := take(t, taker, 10)

	e.Stop()
	require.Eventually(t, func() bool { return !c.nc.IsConnected() }, 5*time.Second, time.Millisecond)
	finished := make(chan error, len(held)+1)
	for _, d := range held { // results that cannot be stored now
		go func() { finished <- d.Complete(ctx, answer200(d.Job, "")) }()
	}
	go func() { // and jobs that cannot be queued
		_, err := c.PublishJobs(ctx, jobs("b", 200))
		finished <- err
	}()
	e, err = StartEmbedded(EmbeddedOptions{Dir: dir, Listen: addr}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	for range cap(finished) {
		require.NoError(t, <-finished)
	}
	for range 140 {
		more, err := taker.Fetch(ctx, 1)
		require.NoError(t, err)
		complete(t, more[0])
	}
	require.NoError(t, <-read)
	slices.Sort(got)
	want := make([]string, 200)
	for i := range want {
		want[i] = fmt.Sprintf("custom %d", i)
	}
	slices.Sort(want)
	require.Equal(t, want, got)
	requireCounts(t, c, "b", 0, 200)
}
