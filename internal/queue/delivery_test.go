package queue

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

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
	take(t, one, 1)
	vanish() // this one does
	two, _ := newTaker(t, c, ackWait)
	d := take(t, two, 1)[0]
	require.Equal(t, 2, d.Attempt)
	complete(t, d)
	n, _, err := c.readGiveBacks(t.Context(), d.Job)
	require.NoError(t, err)
	require.Zero(t, n, "the count goes with the job")
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

func TestResultThatIsTooLarge(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	d := take(t, taker, 1)[0]
	r := answer200(d.Job, "")
	r.Response.Body, _ = json.Marshal(string(bytes.Repeat([]byte("x"), int(c.nc.MaxPayload()))))
	err := d.Complete(t.Context(), r)
	var large *TooLargeError
	require.ErrorAs(t, err, &large)
	require.ErrorContains(t, err, "the result")
	require.Len(t, taker.openDeliveries(), 1)
	complete(t, d)
	require.Empty(t, taker.openDeliveries())
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
		require.Equal(t, resultID("b", r.CustomID), r.ID)
		codes[r.CustomID] = r.Error.Code
	}
	require.Equal(t, map[string]string{"garbage": codeInvalidMessage, "stray": codeInvalidMessage}, codes)
	require.Eventually(t, func() bool {
		left, err := c.Pending(t.Context(), "b")
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

// A job that was found done is only taken off the queue.
func TestCompleteWithoutAResult(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 1)
	taker, _ := newTaker(t, c, 0)
	require.NoError(t, take(t, taker, 1)[0].Complete(t.Context(), nil))
	requireCounts(t, c, "b", 0, 0)
}
