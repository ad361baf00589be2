package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"tempo/api"
)

// ErrNoDeadLetter says that there is no dead letter of this job.
var ErrNoDeadLetter = errors.New("no such dead letter")

func deadSubject(batch, job string) string { return "dlq." + Token(batch) + "." + Token(job) }

func deadBlob(batch, job string) string { return "dead." + Token(batch) + "." + Token(job) }

// deadOf filters the dead letters of a batch, "" = of all.
func deadOf(batch string) string {
	if batch == "" {
		return "dlq.>"
	}
	return "dlq." + Token(batch) + ".>"
}

// Bury gives the job up: it becomes a dead letter with the reason, the attempts before this one
// and the last, and r is its result, unless it has one already. It tries until ctx is done; if it
// fails, the job is given out again later.
func (d *Delivery) Bury(ctx context.Context, reason api.Error, last *api.Attempt, r *api.Result) error {
	letter := api.DeadLetter{Job: d.Job, Reason: reason, Attempts: d.Attempts(), Buried: time.Now().UTC()}
	if last != nil {
		letter.Attempts = append(letter.Attempts, *last)
	}
	data, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("bury job %s: %w", d.Job.ID, err)
	}
	m := nats.NewMsg(deadSubject(d.Job.Batch, d.Job.ID))
	m.Data = data
	if err := d.t.c.fit(ctx, m, deadBlob(d.Job.Batch, d.Job.ID), nil); err != nil {
		return err
	}
	// First, as the job leaves the queue with its result. A second letter of the job replaces it.
	err = d.t.c.retry(ctx, "bury job "+d.Job.ID, func(ctx context.Context) error {
		_, err := d.t.c.js.PublishMsg(ctx, m)
		return err //nolint:wrapcheck // retry wraps it
	})
	if err != nil {
		return err
	}
	return d.Complete(ctx, r)
}

// DeadLetters calls fn for the dead letters of a batch ("" = of all batches), the oldest first.
// It ends early, without an error, when fn returns [Stop].
func (c *Client) DeadLetters(ctx context.Context, batch string, fn func(api.DeadLetter) error) error {
	var letters []api.DeadLetter
	err := c.retry(ctx, "list dead letters", func(ctx context.Context) error {
		letters = nil
		return c.latest(ctx, streamDLQ, deadOf(batch), func(m jetstream.Msg) error {
			var letter api.DeadLetter
			data, err := c.body(ctx, m.Data(), m.Headers())
			if err == nil {
				err = json.Unmarshal(data, &letter)
			}
			if err != nil {
				c.log.Error("a message in DLQ is not a dead letter", zap.String("subject", m.Subject()), zap.Error(err))
				return nil
			}
			letters = append(letters, letter)
			return nil
		})
	})
	for _, letter := range letters {
		if err == nil {
			err = fn(letter)
		}
	}
	if errors.Is(err, Stop) {
		return nil
	}
	return err
}

// DeadLetter returns the dead letter of a job. The error is [ErrNoDeadLetter] if there is none.
func (c *Client) DeadLetter(ctx context.Context, batch, job string) (letter api.DeadLetter, err error) {
	err = c.retry(ctx, "read the dead letter of job "+job, func(ctx context.Context) error {
		s, err := c.stream(ctx, streamDLQ)
		if err != nil {
			return err
		}
		m, err := s.GetLastMsgForSubject(ctx, deadSubject(batch, job))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return &finalError{ErrNoDeadLetter}
		}
		if err != nil {
			return err //nolint:wrapcheck // retry wraps it
		}
		data, err := c.body(ctx, m.Data, m.Header)
		if err != nil {
			return err
		}
		return decode(data, &letter)
	})
	return letter, err
}

// DropDeadLetters removes the dead letters of a batch, or of one of its jobs (job not ""). Their
// results stay.
func (c *Client) DropDeadLetters(ctx context.Context, batch, job string) error {
	filter := deadOf(batch)
	if job != "" {
		filter = deadSubject(batch, job)
	}
	if err := c.dropBlobs(ctx, streamDLQ, filter); err != nil {
		return err
	}
	return c.purge(ctx, streamDLQ, filter)
}

// Revive puts the job of a dead letter into the queue again, as if it had never been tried: its
// result goes, and its batch is open again. It may be repeated after an error.
func (c *Client) Revive(ctx context.Context, letter api.DeadLetter) error {
	job := letter.Job
	if err := c.purge(ctx, "KV_"+bucketAttempts, "$KV."+bucketAttempts+"."+attemptsKey(job.Batch, job.ID)); err != nil {
		return err
	}
	answered, err := c.dropFailure(ctx, job)
	if err != nil {
		return err
	}
	if answered { // by a worker that was slow: nothing is to be done again
		return c.DropDeadLetters(ctx, job.Batch, job.ID)
	}
	if _, err := c.UpdateBatch(ctx, job.Batch, func(b *api.Batch) error {
		if b.Status.Ended() {
			b.Status, b.CompletedAt, b.CancelledAt, b.CancellingAt = api.InProgress, 0, 0, 0
			b.ExpiresAt, b.ExpiredAt = 0, 0
		}
		b.RequestCounts.Completed, b.RequestCounts.Failed, b.Tempo.Counted = 0, 0, 0 // one is gone
		return nil
	}); err != nil {
		return err
	}
	m, err := c.newMessage(ctx, job)
	if err != nil {
		return err
	}
	if _, err := c.publishJob(ctx, m); err != nil {
		return err
	}
	return c.DropDeadLetters(ctx, job.Batch, job.ID) // last: until then it can be repeated
}

// dropFailure removes the result of a job that failed, and reports whether it has an answer instead.
func (c *Client) dropFailure(ctx context.Context, job api.Job) (answered bool, err error) {
	subject := resultSubject(job.Batch, job.ID)
	var failed bool
	err = c.retry(ctx, "look for the result of job "+job.ID, func(ctx context.Context) error {
		m, err := c.last(ctx, streamResults, subject)
		if m != nil {
			failed = m.Header.Get(headerOutcome) == outcomeFailed
			answered = !failed
		}
		return err
	})
	if err != nil || !failed {
		return answered, err
	}
	return false, c.purge(ctx, streamResults, subject)
}
