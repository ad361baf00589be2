package queue

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func TestEnsureTopologyFromManyAtOnce(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded(EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	var group errgroup.Group
	for range 4 {
		c, err := ConnectEmbedded(t.Context(), e, nil)
		require.NoError(t, err)
		t.Cleanup(c.Close)
		group.Go(func() error { return c.EnsureTopology(t.Context(), Topology{}) })
	}
	require.NoError(t, group.Wait())
}

func TestEnsureTopologyLeavesWhatIsThere(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	s, err := c.js.Stream(t.Context(), streamResults)
	require.NoError(t, err)
	before := s.CachedInfo().Config
	require.Equal(t, 7*24*time.Hour, before.MaxAge)
	require.NoError(t, c.EnsureTopology(t.Context(), Topology{}))
	s, err = c.js.Stream(t.Context(), streamResults)
	require.NoError(t, err)
	require.Equal(t, before, s.CachedInfo().Config)
	require.NoError(t, c.EnsureTopology(t.Context(), Topology{ResultsMaxAge: time.Hour}))
	s, err = c.js.Stream(t.Context(), streamResults)
	require.NoError(t, err)
	before.MaxAge = time.Hour // what is asked for
	require.Equal(t, before, s.CachedInfo().Config)
}

func TestEnsureTopologyNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded(EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	c, err := ConnectEmbedded(t.Context(), e, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	_, err = c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}})
	require.NoError(t, err)

	err = c.EnsureTopology(t.Context(), Topology{})
	var differs *TopologyError
	require.ErrorAs(t, err, &differs)
	require.Equal(t, "JOBS", differs.Stream)
	require.ErrorContains(t, err, "retention is Limits, must be WorkQueue")
	require.ErrorContains(t, err, "allow_atomic is false, must be true")
	require.Contains(t, differs.Hint(), "nats stream rm JOBS")
}
