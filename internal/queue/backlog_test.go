package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// TestBacklog: jobs are seen without being taken, and told from those that others
// have.
func TestBacklog(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	one, _ := newTaker(t, c, 0)
	two, _ := newTaker(t, c, 0)
	backlog := func(taker *Taker) Backlog {
		got, err := taker.Backlog(t.Context())
		require.NoError(t, err)
		return got
	}
	require.Equal(t, NoJobs, backlog(one))
	changed := one.Changed()
	createBatch(t, c, api.Batch{ID: "empty"})
	<-changed
	require.Equal(t, NoJobs, backlog(one))

	newBatch(t, c, api.Batch{ID: "b"}, 3)
	for _, taker := range []*Taker{one, two} {
		require.Eventually(t, func() bool { return backlog(taker) == JobsWaiting }, 5*time.Second, time.Millisecond)
	}
	taken := take(t, one, 3)
	require.Equal(t, NoJobs, backlog(one), "its own jobs")
	require.Equal(t, JobsElsewhere, backlog(two))
	require.NoError(t, taken[0].GiveBack(t.Context(), 0))
	require.Equal(t, JobsElsewhere, backlog(one), "one that was given back")
	complete(t, take(t, two, 1)[0])
	complete(t, taken[1])
	complete(t, taken[2])
	require.Eventually(t, func() bool { return backlog(one) == NoJobs && backlog(two) == NoJobs }, 5*time.Second, time.Millisecond)

	// The consumer is gone, as after Reclaim.
	newBatch(t, c, api.Batch{ID: "again"}, 1)
	require.Eventually(t, func() bool { return backlog(one) == JobsWaiting }, 5*time.Second, time.Millisecond)
	require.NoError(t, c.Reclaim(t.Context(), "again"))
	require.Eventually(t, func() bool { return backlog(one) == JobsWaiting }, 5*time.Second, time.Millisecond)
}
