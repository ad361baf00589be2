package queue

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"tempo/api"
)

// history is what became of the deliveries of a job that has no result yet, the value of
// its key in the bucket ATTEMPTS.
type history struct {
	GivenBack int           `json:"given_back,omitempty"` // deliveries that cost no attempt
	Failed    []api.Attempt `json:"failed,omitempty"`     // others
	Holder    *holder       `json:"holder,omitempty"`     // who has it now, from the second delivery on
	Begun     bool          `json:"begun,omitempty"`      // and has begun to run it
}

// holder is a process that has a job.
type holder struct {
	Worker string `json:"worker"`
	Host   string `json:"host"`
	PID    int    `json:"pid"`
}

// take notes a delivery, before which there were so many in all. What came of the last one nobody
// has said, unless it is among those that are noted: its worker vanished, or, where alive says
// that it is there, lost touch with the queue. Of several that nobody has noted the others ran
// nothing: they came to the worker that had the job already, or to one that was gone at once.
func (h *history) take(before int, by holder, alive bool) {
	missing := before - h.GivenBack - len(h.Failed)
	switch waited := h.Holder != nil && !h.Begun; {
	case missing <= 0:
	case waited: // the job can have done nothing to it
		h.GivenBack += missing
	default:
		a := api.Attempt{Error: "the worker that had the job vanished", Crash: true}
		if h.Holder != nil {
			a.Worker = h.Holder.Worker
			if alive {
				a.Error, a.Crash = "the worker that had the job lost touch with the queue", false
			}
		}
		h.Failed = append(h.Failed, a)
		h.GivenBack += missing - 1
	}
	h.Holder, h.Begun = &by, false
}

func (h *history) empty() bool { return h.GivenBack == 0 && len(h.Failed) == 0 && h.Holder == nil }

func attemptsKey(batch, job string) string { return Token(batch) + "." + Token(job) }

// redelivered notes that a job was given out again, after so many deliveries before, and returns what
// is known of these. If that cannot be found out the job has an attempt less.
func (t *Taker) redelivered(ctx context.Context, j api.Job, before int) (h history) {
	alive, err := t.holderLives(ctx, j)
	if err == nil {
		err = t.c.changeHistory(ctx, j, func(now *history) {
			now.take(before, t.holder, alive)
			h = *now
		})
	}
	if err != nil {
		t.log.Warn("what became of earlier deliveries of a job is not known", zap.String("batch", j.Batch), zap.String("job", j.ID), zap.Error(err))
	}
	return h
}

// holderLives reports whether the process that had the job last is still there.
func (t *Taker) holderLives(ctx context.Context, j api.Job) (bool, error) {
	var h history
	err := t.c.retry(ctx, "read the attempts at job "+j.ID, func(ctx context.Context) (err error) {
		h, _, err = t.c.readHistory(ctx, j)
		return err
	})
	if err != nil || h.Holder == nil {
		return false, err
	}
	workers, err := t.c.Workers(ctx)
	return slices.ContainsFunc(workers, func(w api.Worker) bool {
		return holder{w.ID, w.Host, w.PID} == *h.Holder
	}), err
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
