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
	s.queue(1000, false)
	require.Equal(t, 10, fill(), "other workers come first, where none has ended yet")
	s.end()
	require.Equal(t, 16, fill(), "as many again")
	s.end()
	s.queue(15, false)
	require.Equal(t, 15, fill(), "those that are left are for others too: nobody more comes")
	for range 8 {
		s.end()
	}
	require.Equal(t, 10, fill())
	s.queue(0, false)
	s.queue(1000, false)
	require.Equal(t, 10, fill(), "these have just come, and others may be idle")

	s.end()
	s.queue(1000, true)
	require.Equal(t, 10, fill(), "there is no room for so many")
	s.queue(1000, false)
	require.Equal(t, 16, fill())
	require.Equal(t, 64, mostAhead(100))
	require.Equal(t, 100, mostAhead(400))

	for range 6 {
		s.leave()
	}
	s.set(8, false)
	for range 4 {
		s.leave()
	}
	require.Equal(t, 8, fill())
}
