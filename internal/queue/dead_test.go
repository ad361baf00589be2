package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// A job that is given up becomes a dead letter that says what became of every attempt, and its
// result says so too.
func TestBury(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 2)
	const ackWait = 300 * time.Millisecond
	one, vanish := newTaker(t, c, ackWait)
	d := take(t, one, 1)[0]
	require.Empty(t, d.Attempts())
	crashed := api.Attempt{Worker: "w1", Time: time.Now().UTC().Truncate(time.Second), Error: "the engine died", Crash: true}
	require.NoError(t, d.Fail(t.Context(), crashed, 0))
	for _, d = range take(t, one, 2) {
		if d.Job.ID == "1" { // the other one
			complete(t, d)
		} else {
			require.NoError(t, d.Begin(t.Context()))
		}
	}
	vanish()
	two, _ := newTaker(t, c, ackWait)
	d = take(t, two, 1)[0]
	require.Equal(t, 3, d.Attempt)
	require.Equal(t, crashed, d.Attempts()[0])
	require.True(t, d.Attempts()[1].Crash)

	last := api.Attempt{Worker: "w3", Error: "the third"}
	reason := api.Error{Code: "engine_crashed", Message: "it kills engines"}
	require.NoError(t, d.Bury(t.Context(), reason, &last, &api.Result{CustomID: d.Job.CustomID, Error: &reason}))
	requireCounts(t, c, "b", 0, 2)

	letter, err := c.DeadLetter(t.Context(), "b", d.Job.ID)
	require.NoError(t, err)
	require.Equal(t, d.Job, letter.Job)
	require.Equal(t, reason, letter.Reason)
	require.Len(t, letter.Attempts, 3)
	require.Equal(t, last, letter.Attempts[2])
	require.Equal(t, []string{d.Job.ID}, dead(t, c, "b"))
	require.Equal(t, []string{d.Job.ID}, dead(t, c, ""))
	require.Empty(t, dead(t, c, "other"))
	h, _, err := c.readHistory(t.Context(), d.Job)
	require.NoError(t, err)
	require.Zero(t, h, "it stands in the letter")

	require.NoError(t, c.DropDeadLetters(t.Context(), "b", d.Job.ID))
	require.Empty(t, dead(t, c, ""))
	_, err = c.DeadLetter(t.Context(), "b", d.Job.ID)
	require.ErrorIs(t, err, ErrNoDeadLetter)
}

// A dead letter that is sent again runs as if it were new, also when its batch has ended.
func TestRevive(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	d := take(t, taker, 1)[0]
	reason := api.Error{Code: "engine_crashed"}
	require.NoError(t, d.Bury(t.Context(), reason, nil, &api.Result{Error: &reason}))
	end := func(b *api.Batch) error {
		b.Status = api.Completed
		return nil
	}
	_, err := c.UpdateBatch(t.Context(), "b", end)
	require.NoError(t, err)
	letter, err := c.DeadLetter(t.Context(), "b", d.Job.ID)
	require.NoError(t, err)
	require.NoError(t, c.Revive(t.Context(), letter))
	requireCounts(t, c, "b", 1, 0)
	require.Empty(t, dead(t, c, "b"))
	d = take(t, taker, 1)[0]
	require.Equal(t, 1, d.Attempt)
	complete(t, d)
	requireCounts(t, c, "b", 0, 1)
}

// A worker that learns late that a batch had ended takes away nothing of what was queued when it
// was open again.
func TestClearLeavesWhatIsOpenAgain(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 3)
	require.NoError(t, c.clear(t.Context(), model, "b"))
	requireCounts(t, c, "b", 3, 0)
	_, err := c.UpdateBatch(t.Context(), "b", func(b *api.Batch) error {
		b.Status = api.Completed
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, c.clear(t.Context(), model, "b"))
	requireCounts(t, c, "b", 3, 0) // nor what nobody has answered
	taker, _ := newTaker(t, c, 0)
	require.NoError(t, c.storeResult(t.Context(), "b", "1", []byte("{}"), true))
	require.NoError(t, c.clear(t.Context(), model, "b"))
	requireCounts(t, c, "b", 2, 1)
	takeNone(t, taker)
	_, err = c.UpdateBatch(t.Context(), "b", func(b *api.Batch) error {
		b.Status = api.Cancelled
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, c.clear(t.Context(), model, "b"))
	requireCounts(t, c, "b", 0, 3)
}

func dead(t *testing.T, c *Client, batch string) (jobs []string) {
	t.Helper()
	require.NoError(t, c.DeadLetters(t.Context(), batch, func(l api.DeadLetter) error {
		jobs = append(jobs, l.Job.ID)
		return nil
	}))
	return jobs
}

func TestHistory(t *testing.T) {
	t.Parallel()
	one, two := holder{"one", "host", 1}, holder{"two", "host", 2}
	var h history
	h.take(1, one, false)
	require.Equal(t, history{Failed: []api.Attempt{{Error: "the worker that had the job vanished", Crash: true}}, Holder: &one}, h, "who had it first is not known")
	h.take(3, one, false)
	require.Len(t, h.Failed, 1, "it had not begun")
	require.Equal(t, 2, h.GivenBack)
	h.Begun = true
	h.take(5, two, true)
	require.Len(t, h.Failed, 2)
	require.Equal(t, api.Attempt{Worker: "one", Error: "the worker that had the job lost touch with the queue"}, h.Failed[1])
	require.Equal(t, 3, h.GivenBack, "it was given out again where it ran")
	h.take(5, two, false) // what is said twice counts once
	require.Len(t, h.Failed, 2)
	h.Begun = true
	h.GivenBack++
	h.take(6, one, false)
	require.Len(t, h.Failed, 2, "it was given back")
	h.Begun = true
	h.take(7, two, false)
	require.Equal(t, api.Attempt{Worker: "one", Error: "the worker that had the job vanished", Crash: true}, h.Failed[2])
}
