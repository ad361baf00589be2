package queue

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"tempo/api"
)

// history is what became of the deliveries of a job that has no result yet, the value of
// its key in the bucket ATTEMPTS.
type history struct {
	GivenBack int           `json:"given_back,omitempty"` // deliveries that cost no attempt
	Failed    []api.Attempt `json:"failed,omitempty"`     // others, but for those of workers that vanished
}

func (h *history) empty() bool { return h.GivenBack == 0 && len(h.Failed) == 0 }

func attemptsKey(batch, job string) string { return Token(batch) + "." + Token(job) }

// history returns what was noted of a job. If that cannot be found out it is empty: the job
// then has an attempt less.
func (c *Client) history(ctx context.Context, j api.Job) (h history) {
	err := c.retry(ctx, "read the attempts at job "+j.ID, func(ctx context.Context) (err error) {
		h, _, err = c.readHistory(ctx, j)
		return err
	})
	if err != nil {
		c.log.Warn("deliveries that were given back count as attempts", zap.String("batch", j.Batch), zap.String("job", j.ID), zap.Error(err))
	}
	return h
}

// changeHistory changes what is noted of a job.
func (c *Client) changeHistory(ctx context.Context, j api.Job, change func(*history)) error {
	for {
		err := c.retry(ctx, "note the attempt at job "+j.ID, func(ctx context.Context) error {
			h, revision, err := c.readHistory(ctx, j)
			if err != nil {
				return err
			}
			change(&h)
			value, err := json.Marshal(h)
			if err != nil {
				return &finalError{err}
			}
			kv, err := c.bucket(ctx, bucketAttempts)
			if err != nil {
				return err
			}
			_, err = kv.Update(ctx, attemptsKey(j.Batch, j.ID), value, revision)
			return err //nolint:wrapcheck // retry wraps it
		})
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) { // another delivery of the job was faster
			return err
		}
	}
}

// readHistory is one try to read what is noted and its revision, 0 if there is nothing.
func (c *Client) readHistory(ctx context.Context, j api.Job) (h history, revision uint64, err error) {
	kv, err := c.bucket(ctx, bucketAttempts)
	if err != nil {
		return h, 0, err
	}
	e, err := kv.Get(ctx, attemptsKey(j.Batch, j.ID))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return h, 0, nil
	}
	if err != nil {
		return h, 0, err //nolint:wrapcheck // retry wraps it
	}
	if err := decode(e.Value(), &h); err != nil {
		return h, 0, err
	}
	return h, e.Revision(), nil
}
