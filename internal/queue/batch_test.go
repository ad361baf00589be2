package queue

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
)

func TestCreateBatchTwice(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	first := api.Batch{ID: "b.1", InputFileID: "first.jsonl"}
	b, existed, err := c.CreateBatch(t.Context(), first)
	require.NoError(t, err)
	require.False(t, existed)
	require.Equal(t, first, b)

	b, existed, err = c.CreateBatch(t.Context(), api.Batch{ID: "b.1", Endpoint: "/v1/completions"})
	require.NoError(t, err)
	require.True(t, existed)
	require.Equal(t, first, b)
}

func TestUpdateBatchLosesNoChange(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	_, _, err := c.CreateBatch(t.Context(), api.Batch{ID: "b"})
	require.NoError(t, err)
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for range 10 {
				if _, err := c.UpdateBatch(t.Context(), "b", func(b *api.Batch) error {
					b.RequestCounts.Completed++
					return nil
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	b, err := c.Batch(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, 40, b.RequestCounts.Completed)

	refused := errors.New("not allowed")
	_, err = c.UpdateBatch(t.Context(), "b", func(*api.Batch) error { return refused })
	require.ErrorIs(t, err, refused)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	for _, id := range []string{"a", "b.1", "c"} {
		createBatch(t, c, api.Batch{ID: id})
	}
	require.NoError(t, c.RemoveBatch(t.Context(), "c"))
	batches, err := c.Batches(t.Context())
	require.NoError(t, err)
	ids := []string{}
	for _, b := range batches {
		ids = append(ids, b.ID)
	}
	require.ElementsMatch(t, []string{"a", "b.1"}, ids)
}

func TestBatchThatIsNotThere(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	_, err := c.Batch(t.Context(), "none")
	require.ErrorIs(t, err, ErrNoBatch)
	_, err = c.UpdateBatch(t.Context(), "none", func(*api.Batch) error { return nil })
	require.ErrorIs(t, err, ErrNoBatch)
}
