package infertest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/internal/infer"
)

// narrow bounds the width at any time from Open on. Jobs with one token at each position
// notice nothing.
func narrow(t *testing.T, s *suite) {
	require.ErrorIs(t, s.Narrow(t.Context(), 2), infer.ErrNotOpen)
	_, err := s.Open(t.Context(), s.spec)
	require.NoError(t, err)
	require.NoError(t, s.Narrow(t.Context(), 2), "before Load")
	_, err = s.Load(t.Context(), shape())
	require.NoError(t, err)

	// While a job runs, and stays until it is cancelled.
	ctx, stop := context.WithCancel(t.Context())
	arrived := make(chan struct{})
	l := NewLease(0)
	l.Grant = func(ctx context.Context, _, _ int) error {
		close(arrived)
		<-ctx.Done()
		return ctx.Err()
	}
	stays := s.begin(ctx, complete("stays", Words(20), 20, l))
	<-arrived
	within, end := context.WithTimeout(t.Context(), prompt)
	defer end()
	var both errgroup.Group
	for i := range 8 {
		both.Go(func() error { return s.Narrow(within, i) })
		both.Go(func() error { return s.check(within, fmt.Sprint(i), 30, 20) })
	}
	require.NoError(t, both.Wait())
	require.Empty(t, stays)
	stop()
	require.ErrorIs(t, (<-stays).err, context.Canceled)

	_, err = s.Reshape(t.Context(), infer.Shape{})
	require.NoError(t, err)
	require.NoError(t, s.Narrow(t.Context(), 1), "while it is unloaded")
	_, err = s.Reshape(t.Context(), shape())
	require.NoError(t, err)
	require.NoError(t, s.check(t.Context(), "then", 30, 20))
	require.NoError(t, s.Narrow(t.Context(), 0))
	require.NoError(t, s.Close())
	require.Error(t, s.Narrow(within, 1), "after Close")
}
