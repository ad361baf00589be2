package queue

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tempo/api"
)

// takeOver is how long after it was begun the end of a batch is left to who began it.
const takeOver = 30 * time.Second

// tendBatches ends batches whose time is over, and those whose end was begun and left, and
// completes those that are done, until ctx is done. All workers do; one is enough.
func (t *Taker) tendBatches(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-tick.C:
		}
		for _, b := range t.overdue(now) {
			if _, err := t.c.endBatch(ctx, b.ID, endOf(b)); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNoBatch) {
				t.log.Warn("a batch could not be ended yet", zap.String("batch", b.ID), zap.Error(err))
			}
		}
		for _, id := range t.dry() {
			if err := t.c.completeIfDone(ctx, id); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNoBatch) {
				t.log.Warn("it could not be found out whether a batch is done", zap.String("batch", id), zap.Error(err))
			}
		}
	}
}

// dry are the batches that are queued whole and had no jobs when they were asked last.
func (t *Taker) dry() (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, b := range t.batches {
		dry := b.Status == api.InProgress
		for _, model := range b.Tempo.Models {
			l := t.lanes[consumerName(model, id)]
			dry = dry && (!t.serves(model) || l != nil && l.rest > 0)
		}
		if dry {
			ids = append(ids, id)
		}
	}
	return ids
}

// completeIfDone completes a batch that has all its results.
func (c *Client) completeIfDone(ctx context.Context, id string) error {
	b, err := c.Batch(ctx, id)
	if err != nil || b.Status != api.InProgress {
		return err
	}
	pending, err := c.Pending(ctx, id)
	if err != nil || pending > 0 {
		return err
	}
	b, err = c.Counts(ctx, id)
	if err != nil || b.RequestCounts.Completed+b.RequestCounts.Failed < b.RequestCounts.Total {
		return err
	}
	_, err = c.CompleteBatch(ctx, id)
	return err
}

// overdue are the batches that this taker should end.
func (t *Taker) overdue(now time.Time) (list []api.Batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range t.batches {
		if b.ExpiresAt > 0 && now.Unix() >= b.ExpiresAt {
			list = append(list, b)
		}
	}
	for id, b := range t.ending {
		if now.Sub(time.Unix(b.CancellingAt, 0)) >= takeOver {
			list = append(list, b)
			delete(t.ending, id)
		}
	}
	return list
}

// endOf is what a batch that is being ended, or is to be, ends as.
func endOf(b api.Batch) api.BatchStatus {
	if b.ExpiresAt > 0 && (b.CancellingAt == 0 || b.CancellingAt >= b.ExpiresAt) {
		return api.Expired
	}
	return api.Cancelled
}
