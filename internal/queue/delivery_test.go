package queue

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestGiveBackCostsNoAttempt(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	const ackWait = 300 * time.Millisecond
	one, vanish := newTaker(t, c, ackWait)
	for range 3 {
		d := take(t, one, 1)[0]
		require.Equal(t, 1, d.Attempt)
		require.NoError(t, d.GiveBack(t.Context(), 0))
	}
	require.NoError(t, take(t, one, 1)[0].Begin(t.Context()))
	vanish() // this one does
	two, _ := newTaker(t, c, ackWait)
	d := take(t, two, 1)[0]
	require.Equal(t, 2, d.Attempt)
	complete(t, d)
	h, _, err := c.readHistory(t.Context(), d.Job)
	require.NoError(t, err)
	require.Zero(t, h, "it goes with the job")
}

func TestGiveBackWithDelay(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	start := time.Now()
	require.NoError(t, take(t, taker, 1)[0].GiveBack(t.Context(), 500*time.Millisecond))
	take(t, taker, 1)
	require.GreaterOrEqual(t, time.Since(start), 500*time.Millisecond)
}

func TestMessageThatIsNotAJob(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "b"})
	stray, err := json.Marshal(newJob("elsewhere", 7))
	require.NoError(t, err)
	base := "jobs.normal." + Token(model) + ".b."
	for subject, data := range map[string]string{
		base + "garbage": "{", base + "stray": string(stray), base + "too.deep": "{}", base + "=4": "{}",
	} {
		_, err := c.js.Publish(t.Context(), subject, []byte(data))
		require.NoError(t, err)
	}
	taker, _ := newTaker(t, c, 0)
	takeNone(t, taker)
	codes := map[string]string{}
	for _, r := range results(t, c, "b", 2) {
		require.Equal(t, api.ResultID("b", r.CustomID), r.ID)
		codes[r.CustomID] = r.Error.Code
	}
	require.Equal(t, map[string]string{"garbage": codeInvalidMessage, "stray": codeInvalidMessage}, codes)
	require.Eventually(t, func() bool {
		left, err := c.count(t.Context(), streamJobs, jobsOfBatch("b"))
		return err == nil && left == 0
	}, 5*time.Second, 5*time.Millisecond)
}

func TestHasResult(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	has, err := c.HasResult(t.Context(), "b", "0")
	require.NoError(t, err)
	require.False(t, has)
	taker, _ := newTaker(t, c, 0)
	complete(t, take(t, taker, 1)[0])
	has, err = c.HasResult(t.Context(), "b", "0")
	require.NoError(t, err)
	require.True(t, has)
}

// slowNak is a message whose NakWithDelay returns only when the job was taken again.
type slowNak struct {
	jetstream.Msg
	taken func()
}

func (m slowNak) NakWithDelay(delay time.Duration) error {
	err := m.Msg.NakWithDelay(delay)
	m.taken()
	return err
}

// A worker may get a job again that it gives back, before GiveBack has returned.
func TestGiveBackWhileFetching(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	d := take(t, taker, 1)[0]
	var again []*Delivery
	d.msg = slowNak{d.msg, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		again, _ = taker.Fetch(ctx, 1)
	}}
	require.NoError(t, d.GiveBack(t.Context(), 0))
	require.Len(t, again, 1)
	require.Len(t, taker.openMessages(), 1, "the second one keeps its signs of life")
	complete(t, again[0])
}

// After an outage that was longer than AckWait the server gives a job out again,
// also to the worker that is still busy with it.
func TestJobThatRunsIsNotTakenAgain(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *Client, *Taker, *Delivery){
		"completed": func(t *testing.T, c *Client, _ *Taker, d *Delivery) {
			complete(t, d)
			requireCounts(t, c, "b", 0, 1)
			consumer, err := c.js.Consumer(t.Context(), streamJobs, consumerName(model, "b"))
			require.NoError(t, err)
			require.Zero(t, consumer.CachedInfo().NumAckPending)
		},
		"given back": func(t *testing.T, _ *Client, taker *Taker, d *Delivery) {
			require.NoError(t, d.GiveBack(t.Context(), 0))
			require.Equal(t, 1, take(t, taker, 1)[0].Attempt, "it was one attempt all the time")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newQueue(t)
			newBatch(t, c, api.Batch{ID: "b"}, 1)
			taker := c.NewTaker(TakerOptions{Worker: "w", Models: []string{model}, AckWait: 200 * time.Millisecond}, nil)
			ctx, cancel := context.WithCancel(t.Context())
			followed := make(chan error, 1)
			go func() { followed <- taker.followBatches(ctx) }() // Run, without signs of life
			d := take(t, taker, 1)[0]
			sent := func() uint64 {
				m, _ := d.message()
				meta, err := m.Metadata()
				require.NoError(t, err)
				return meta.NumDelivered
			}
			require.EqualValues(t, 1, sent())
			for sent() < 3 {
				takeNone(t, taker)
			}
			require.Len(t, taker.openMessages(), 1)
			end(t, c, taker, d)
			cancel()
			require.ErrorIs(t, <-followed, context.Canceled)
		})
	}
}

// A job that was found done is only taken off the queue.
func TestCompleteWithoutAResult(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	require.NoError(t, take(t, taker, 1)[0].Complete(t.Context(), nil))
	requireCounts(t, c, "b", 0, 0)
}

// silent is a message whose ack nobody answers.
type silent struct {
	jetstream.Msg

	asked chan struct{}
}

func (s silent) DoubleAck(ctx context.Context) error {
	close(s.asked)
	<-ctx.Done()
	return ctx.Err()
}

// The batch can end with this job's result, and its consumer with it, before the ack has come:
// nobody answers it then.
func TestAckEndsWithTheBatch(t *testing.T) {
	t.Parallel()
	life, end := context.WithCancel(t.Context())
	d, m := &Delivery{life: life}, silent{asked: make(chan struct{})}
	go func() {
		<-m.asked
		end()
	}()
	require.ErrorIs(t, d.doubleAck(t.Context(), m), errEnded)

	d.life = t.Context()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, d.doubleAck(ctx, silent{asked: make(chan struct{})}), context.Canceled, "the caller's own end is no end of the batch")
}
