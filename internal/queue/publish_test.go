package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestPublishTwiceQueuesOnce(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	const n = 1500
	newBatch(t, c, api.Batch{ID: "b"}, n)
	published, err := c.PublishJobs(t.Context(), jobs("b", n+1))
	require.NoError(t, err)
	require.Equal(t, Published{New: 1, Known: n}, published)
	requireCounts(t, c, "b", n+1, 0)

	// Nor when they have left the queue.
	taker, _ := newTaker(t, c, 0)
	for _, d := range take(t, taker, 100) {
		complete(t, d)
	}
	published, err = c.PublishJobs(t.Context(), jobs("b", n+1))
	require.NoError(t, err)
	require.Equal(t, Published{Known: n + 1}, published)
	requireCounts(t, c, "b", n+1-100, 100)
}

// A job that gets known between the look at the queue and the sending does not
// hold up the others of its chunk.
func TestPublishChunkWithAKnownJob(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "b"})
	taker, _ := newTaker(t, c, 0)
	raced := func(yield func(api.Job, error) bool) {
		yield(newJob("b", 0), nil) // now the publisher has looked
		for i := 1; i <= 2; i++ {
			_, err := c.PublishJobs(t.Context(), oneJob(newJob("b", i)))
			require.NoError(t, err)
		}
		complete(t, take(t, taker, 1)[0])
		for i := 1; i < 5; i++ {
			yield(newJob("b", i), nil)
		}
	}
	published, err := c.PublishJobs(t.Context(), raced)
	require.NoError(t, err)
	require.Equal(t, Published{New: 3, Known: 2}, published)
	requireCounts(t, c, "b", 4, 1)
}

// The server remembers the ids of jobs for a while, also when the batch has been
// removed since.
func TestPublishAgainAfterRemoval(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"single": 1, "chunk": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newQueue(t)
			for range 2 {
				newBatch(t, c, api.Batch{ID: "b"}, n)
				taker, stop := newTaker(t, c, 0)
				for _, d := range take(t, taker, n) {
					complete(t, d)
				}
				stop()
				require.Len(t, results(t, c, "b", n), n)
				require.NoError(t, c.RemoveBatch(t.Context(), "b"))
				requireCounts(t, c, "b", 0, 0)
				_, err := c.Batch(t.Context(), "b")
				require.ErrorIs(t, err, ErrNoBatch)
			}
			require.NoError(t, c.RemoveBatch(t.Context(), "b"))
		})
	}
}

func TestPublishRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "b"})
	sized := func(i, size int) api.Job {
		j := newJob("b", i)
		j.Body, _ = json.Marshal(string(bytes.Repeat([]byte("x"), size)))
		return j
	}
	limit := int(c.nc.MaxPayload())
	p := c.NewPublisher()
	for i, size := range []int{10, mostBlob, limit - 1000, 10, limit - 1000, limit} {
		err := p.Add(t.Context(), sized(i, size))
		if i != 1 {
			require.NoError(t, err)
			continue
		}
		var refused *TooLargeError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 2, refused.Line)
		require.Equal(t, mostBlob, refused.Max)
		require.Greater(t, refused.Size, mostBlob)
		require.ErrorContains(t, refused, "line 2: ")
		require.NotEmpty(t, refused.Hint())
	}
	published, err := p.Flush(t.Context())
	require.NoError(t, err)
	require.Equal(t, Published{New: 5}, published)
	requireCounts(t, c, "b", 5, 0)
}

func TestKnownJobs(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 2)
	taker, _ := newTaker(t, c, 0)
	complete(t, take(t, taker, 1)[0])
	p := c.NewPublisher()
	for i, want := range []bool{true, true, false} { // done, queued, neither
		known, err := p.Known(t.Context(), newJob("b", i))
		require.NoError(t, err)
		require.Equal(t, want, known)
	}
	known, err := p.Known(t.Context(), newJob("another", 0))
	require.NoError(t, err)
	require.False(t, known)
}

func TestPublishEndsAtTheReadersError(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	broken := errors.New("disk on fire")
	_, err := c.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) { yield(api.Job{}, broken) })
	require.ErrorIs(t, err, broken)
}
