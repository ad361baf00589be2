package queue

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// A batch that is cancelled has a result for each job: answers that are there stay, the others say
// that it was cancelled, also those of jobs that a worker has.
func TestCancel(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 2500)
	newBatch(t, c, api.Batch{ID: "other"}, 3)
	taker, _ := startTaker(t, c, TakerOptions{Models: []string{model}, Batch: "b"})
	ds := take(t, taker, 3)
	complete(t, ds[0])
	b, err := c.Cancel(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, b.Status)
	require.NotZero(t, b.CancelledAt)
	requireCounts(t, c, "b", 0, 2500)
	requireCounts(t, c, "other", 3, 0)
	codes := map[string]int{}
	for _, r := range results(t, c, "b", 2500) {
		if r.Error == nil {
			codes["ok"]++
			continue
		}
		codes[r.Error.Code]++
		require.NotEmpty(t, r.CustomID)
		require.NotZero(t, r.Tempo.Line)
	}
	require.Equal(t, map[string]int{"ok": 1, CodeCancelled: 2499}, codes)

	select { // those that run hear of it
	case <-ds[1].Life().Done():
	case <-time.After(10 * time.Second):
		require.Fail(t, "the job was not ended")
	}
	var ended *EndedError
	require.ErrorAs(t, context.Cause(ds[1].Life()), &ended)
	require.NoError(t, ds[1].Refuse(t.Context(), ended))
	complete(t, ds[2]) // too late: refused, and off the queue
	requireCounts(t, c, "b", 0, 2500)
	takeNone(t, taker)

	again, err := c.Cancel(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, b, again)
	_, err = c.Cancel(t.Context(), "nobody")
	require.ErrorIs(t, err, ErrNoBatch)
}

// Jobs that come when their batch has ended end as the others did.
func TestEndAgain(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	_, err := c.Expire(t.Context(), "b")
	require.NoError(t, err)
	_, err = c.PublishJobs(t.Context(), jobs("b", 3))
	var ended *EndedError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, api.Expired, ended.Status)
	late := c.NewPublisher()
	late.checked = time.Now() // it had looked just before that
	for j, err := range jobs("b", 3) {
		require.NoError(t, err)
		require.NoError(t, late.Add(t.Context(), j))
	}
	_, err = late.Flush(t.Context())
	require.NoError(t, err)
	b, err := c.Batch(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, api.Expired, b.Status)
	require.NoError(t, c.EndAgain(t.Context(), b))
	requireCounts(t, c, "b", 0, 3)
	for _, r := range results(t, c, "b", 3) {
		require.Equal(t, CodeExpired, r.Error.Code)
	}
}

// A batch whose time is over ends, and so does one whose end was begun and left.
func TestOverdueBatchesEnd(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "late", ExpiresAt: time.Now().Add(time.Second).Unix()}, 5)
	left := time.Now().Add(-time.Minute).Unix()
	for id, begun := range map[string]int64{"left": left, "begun": time.Now().Unix()} {
		newBatch(t, c, api.Batch{ID: id}, 5)
		_, err := c.UpdateBatch(t.Context(), id, func(b *api.Batch) error {
			b.Status, b.CancellingAt = api.Cancelling, begun
			return nil
		})
		require.NoError(t, err)
	}
	newTaker(t, c, 0)
	for id, want := range map[string]api.BatchStatus{"late": api.Expired, "left": api.Cancelled} {
		require.Eventually(t, func() bool {
			b, err := c.Batch(t.Context(), id)
			return err == nil && b.Status == want
		}, 20*time.Second, 10*time.Millisecond, id)
		requireCounts(t, c, id, 0, 5)
	}
	require.Equal(t, CodeExpired, results(t, c, "late", 1)[0].Error.Code)
	requireCounts(t, c, "begun", 5, 0) // somebody is at it
}

// Of a batch that is cancelled while it is sent each job that was queued has its result, whatever
// workers see of it meanwhile.
func TestCancelWhileItIsSent(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "b", Status: api.Validating})
	taker, _ := newTaker(t, c, 0)
	sent := make(chan Published, 1)
	begun := make(chan struct{})
	go func() {
		p := c.NewPublisher()
		for j, err := range jobs("b", 30_000) {
			if err != nil || p.Add(t.Context(), j) != nil {
				break
			}
			if p.checked = time.Now(); p.count.New == 2*chunkJobs { // it looks only after the end
				select {
				case <-begun:
				default:
					close(begun)
				}
			}
		}
		n, _ := p.Flush(t.Context()) // what was counted is queued
		sent <- n
	}()
	<-begun
	_, err := c.Cancel(t.Context(), "b")
	require.NoError(t, err)
	n := <-sent
	b, err := c.Batch(t.Context(), "b")
	require.NoError(t, err)
	require.NoError(t, c.EndAgain(t.Context(), b))
	requireCounts(t, c, "b", 0, n.New)
	takeNone(t, taker)
}
