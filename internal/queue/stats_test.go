package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestLatestStats(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	none, err := c.LatestStats(t.Context())
	require.NoError(t, err)
	require.Empty(t, none)

	plain, err := c.nc.SubscribeSync("stats.memory.>")
	require.NoError(t, err)
	for i := range 3 {
		for _, device := range []string{"cpu", "GPU-1.2"} {
			require.NoError(t, c.PublishStats(t.Context(), api.MemoryStats{Worker: "host.1", Device: device, Running: i, Memory: api.Memory{Weights: 7}}))
		}
	}
	m, err := plain.NextMsg(5 * time.Second)
	require.NoError(t, err)
	require.Equal(t, "stats.memory.host=2E1.cpu", m.Subject)
	require.Contains(t, string(m.Data), `"weights":7`)
	require.NoError(t, plain.Unsubscribe())

	stats, err := c.LatestStats(t.Context())
	require.NoError(t, err)
	require.Len(t, stats, 2)
	for _, s := range stats {
		require.Equal(t, 2, s.Running)
		require.Equal(t, "host.1", s.Worker)
	}
}

// TestStatsOfEachModel: the models of one worker do not hide one another.
func TestStatsOfEachModel(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	plain, err := c.nc.SubscribeSync("stats.memory.>")
	require.NoError(t, err)
	for i := range 2 {
		for _, model := range []string{"a", "b.1"} {
			require.NoError(t, c.PublishModelStats(t.Context(), api.MemoryStats{Worker: "w", Device: "cpu", Model: model, Running: i}))
			m, err := plain.NextMsg(5 * time.Second)
			require.NoError(t, err)
			require.Equal(t, "stats.memory.w.cpu."+Token(model), m.Subject)
		}
	}
	stats, err := c.LatestStats(t.Context())
	require.NoError(t, err)
	require.Len(t, stats, 2)
	require.ElementsMatch(t, []string{"a", "b.1"}, []string{stats[0].Model, stats[1].Model})
	require.Equal(t, []int{1, 1}, []int{stats[0].Running, stats[1].Running})
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	for _, id := range []string{"a.1", "b", "b"} {
		require.NoError(t, c.Announce(t.Context(), api.Worker{ID: id, PID: 5}))
	}
	workers, err := c.Workers(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []api.Worker{{ID: "a.1", PID: 5}, {ID: "b", PID: 5}}, workers)

	require.NoError(t, c.Withdraw(t.Context(), "b"))
	workers, err = c.Workers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []api.Worker{{ID: "a.1", PID: 5}}, workers)

	kv, err := c.bucket(t.Context(), bucketWorkers)
	require.NoError(t, err)
	status, err := kv.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, workerTTL, status.TTL())
}
