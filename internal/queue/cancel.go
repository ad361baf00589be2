package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"

	"tempo/api"
)

// Codes of the results of jobs that nobody answered any more.
const (
	CodeCancelled = "batch_cancelled"
	CodeExpired   = "batch_expired"
)

// EndedError says that a batch was ended before all its jobs were answered.
type EndedError struct {
	Batch  string
	Status api.BatchStatus
}

func (e *EndedError) Error() string {
	if e.Status == api.Expired {
		return fmt.Sprintf("batch %s could not be completed in its time", e.Batch)
	}
	return fmt.Sprintf("batch %s was cancelled", e.Batch)
}

// Code is that of the results of its jobs.
func (e *EndedError) Code() string {
	if e.Status == api.Expired {
		return CodeExpired
	}
	return CodeCancelled
}

// Cancel ends a batch: jobs that are queued get a result that says so and leave the queue, those
// that run are ended at their next step. It returns the batch as it is then, and may be
// repeated; a batch that has ended stays as it is. The error is [ErrNoBatch] if there is none.
func (c *Client) Cancel(ctx context.Context, id string) (api.Batch, error) {
	return c.endBatch(ctx, id, api.Cancelled)
}

// Expire is Cancel for a batch whose time is over.
func (c *Client) Expire(ctx context.Context, id string) (api.Batch, error) {
	return c.endBatch(ctx, id, api.Expired)
}

// endBatch has workers stop, answers for them, and notes the end.
func (c *Client) endBatch(ctx context.Context, id string, as api.BatchStatus) (api.Batch, error) {
	if err := c.completeIfDone(ctx, id); err != nil { // nothing is left to end
		return api.Batch{}, err
	}
	b, err := c.UpdateBatch(ctx, id, func(b *api.Batch) error {
		if b.Status.Runs() {
			b.Status, b.CancellingAt = api.Cancelling, time.Now().Unix()
		}
		return nil
	})
	if err != nil || b.Status.Ended() {
		return b, err
	}
	if err := c.refuseQueued(ctx, &EndedError{Batch: id, Status: as}); err != nil {
		return b, err
	}
	return c.bringUpToDate(ctx, id, 0, func(b *api.Batch) {
		now := time.Now().Unix()
		switch {
		case b.Status.Ended(): // somebody else was faster
		case as == api.Expired:
			b.Status, b.ExpiredAt = as, now
		default:
			b.Status, b.CancelledAt = as, now
		}
	})
}

// checkOpen returns an *[EndedError] if a batch was ended before all its jobs were sent.
func (c *Client) checkOpen(ctx context.Context, id string) error {
	b, err := c.Batch(ctx, id)
	switch {
	case errors.Is(err, ErrNoBatch): // jobs may come before it
		return nil
	case err != nil || b.Status.Runs() || b.Status == api.Completed:
		return err
	case b.Status.Ended():
		return &EndedError{Batch: id, Status: b.Status}
	}
	return &EndedError{Batch: id, Status: endOf(b)}
}

// EndAgain is for jobs that were queued after their batch was ended: they end as the others did.
func (c *Client) EndAgain(ctx context.Context, b api.Batch) error {
	as := b.Status
	if !as.Ended() {
		as = endOf(b)
	}
	return c.refuseQueued(ctx, &EndedError{Batch: b.ID, Status: as})
}

// refuseQueued gives every job of a batch that is in JOBS, be it with a worker or not, the result
// that its batch has ended, unless it has one, and then takes it off the queue.
func (c *Client) refuseQueued(ctx context.Context, ended *EndedError) error {
	last := uint64(0)
	err := c.eachQueued(ctx, jobsOfBatch(ended.Batch), func(list []queued) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(refuseAtOnce)
		for _, q := range list {
			last = max(last, q.sequence)
			data, err := json.Marshal(ended.result(q.job))
			if err != nil {
				return fmt.Errorf("encode the result of job %s: %w", q.job.ID, err)
			}
			group.Go(func() error {
				if err := c.storeResult(ctx, q.job.Batch, q.job.ID, data, false); err != nil || q.blob == "" {
					return err
				}
				return c.dropBlob(ctx, q.blob)
			})
		}
		return group.Wait()
	})
	if err != nil || last == 0 {
		return err
	}
	return c.purge(ctx, streamJobs, jobsOfBatch(ended.Batch), jetstream.WithPurgeSequence(last+1))
}

// refuseAtOnce is how many results are on their way at once.
const refuseAtOnce = 256

// result is that of a job of the batch.
func (e *EndedError) result(j api.Job) *api.Result {
	return &api.Result{
		ID: api.ResultID(j.Batch, j.ID), CustomID: j.CustomID,
		Error: &api.Error{Code: e.Code(), Message: e.Error() + " before this job was done"},
		Tempo: &api.Tempo{Line: j.Line},
	}
}

// queued is a job in JOBS; one that is a blob has no body here.
type queued struct {
	job      api.Job
	blob     string // "" = none
	sequence uint64
}

// eachQueued calls fn for the jobs in JOBS that match filter, many at a time, whether a worker has
// them or not. Messages that are no jobs are left out.
func (c *Client) eachQueued(ctx context.Context, filter string, fn func([]queued) error) error {
	for next := uint64(1); ; {
		var list []queued
		after := next
		err := c.retry(ctx, "read "+filter, func(ctx context.Context) error {
			list, after = list[:0], next
			msgs, err := jetstreamext.GetBatch(ctx, c.js, streamJobs, chunkJobs,
				jetstreamext.GetBatchSubject(filter), jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchMaxBytes(chunkBytes))
			if err != nil {
				return err //nolint:wrapcheck // retry wraps it
			}
			for m, err := range msgs {
				if errors.Is(err, jetstreamext.ErrNoMessages) {
					return nil
				}
				if err != nil {
					return err
				}
				after = m.Sequence + 1
				q := queued{sequence: m.Sequence, blob: m.Header.Get(headerBlob)}
				if json.Unmarshal(m.Data, &q.job) == nil && jobSubject(q.job) == m.Subject {
					list = append(list, q)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if after == next {
			return nil
		}
		if err := fn(list); err != nil {
			return err
		}
		next = after
	}
}
