package worker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSlotsAhead(t *testing.T) {
	t.Parallel()
	s := newSlots(8, true)
	fill := func() int {
		for s.tryEnter() { //nolint:revive // until it is full
		}
		_, inside := s.counts()
		return inside
	}
	require.Equal(t, 10, fill(), "a quarter more")
	s.queue(1000)
	require.Equal(t, 10, fill(), "other workers come first, where none has ended yet")
	s.end()
	require.Equal(t, 16, fill(), "as many again")
	s.end()
	s.queue(15)
	require.Equal(t, 15, fill(), "those that are left are for others too: nobody more comes")
	for range 8 {
		s.end()
	}
	require.Equal(t, 10, fill())
	s.queue(0)
	s.queue(1000)
	require.Equal(t, 10, fill(), "these have just come, and others may be idle")

	s.set(8, false)
	for range 4 {
		s.leave()
	}
	require.Equal(t, 8, fill())
}
