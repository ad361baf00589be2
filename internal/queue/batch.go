package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"tempo/api"
)

// CreateBatch stores a new batch object. If there is one with its id, that one is
// returned and existed is true.
func (c *Client) CreateBatch(ctx context.Context, b api.Batch) (_ api.Batch, existed bool, err error) {
	value, err := json.Marshal(b)
	if err != nil {
		return api.Batch{}, false, fmt.Errorf("create batch %s: %w", b.ID, err)
	}
	id := b.ID
	asked := false // a try may have succeeded without an answer
	err = c.retry(ctx, "create batch "+id, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, bucketBatches)
		if err != nil {
			return err
		}
		_, err = kv.Create(ctx, Token(id), value)
		if errors.Is(err, jetstream.ErrKeyExists) {
			e, err := kv.Get(ctx, Token(id))
			if err != nil {
				return err //nolint:wrapcheck // retry wraps it
			}
			existed = !asked || string(e.Value()) != string(value)
			b = api.Batch{}
			return decode(e.Value(), &b)
		}
		asked = true
		return err //nolint:wrapcheck // retry wraps it
	})
	if err != nil {
		return api.Batch{}, false, err
	}
	return b, existed, nil
}

// Batch returns a batch object. The error is [ErrNoBatch] if there is none.
func (c *Client) Batch(ctx context.Context, id string) (api.Batch, error) {
	var b api.Batch
	err := c.retry(ctx, "read batch "+id, func(ctx context.Context) error {
		_, err := c.getBatch(ctx, id, &b)
		return err
	})
	if err != nil {
		return api.Batch{}, err
	}
	return b, nil
}

// Batches returns all batch objects, in no particular order.
func (c *Client) Batches(ctx context.Context) ([]api.Batch, error) {
	var all []api.Batch
	err := c.retry(ctx, "list batches", func(ctx context.Context) error {
		all = nil
		return c.latest(ctx, "KV_"+bucketBatches, "$KV."+bucketBatches+".>", func(m jetstream.Msg) error {
			if removed(m) {
				return nil
			}
			var b api.Batch
			if err := decode(m.Data(), &b); err != nil {
				return fmt.Errorf("%s: %w", m.Subject(), err)
			}
			all = append(all, b)
			return nil
		})
	})
	return all, err
}

// UpdateBatch changes a batch object: change gets what is stored, and is called
// again if somebody else has changed that in the meantime, or if the answer of the
// server got lost. Its error ends the update and is returned wrapped. UpdateBatch
// returns what was stored; the error is [ErrNoBatch] if there is no such batch.
func (c *Client) UpdateBatch(ctx context.Context, id string, change func(*api.Batch) error) (api.Batch, error) {
	for {
		var b api.Batch
		err := c.retry(ctx, "update batch "+id, func(ctx context.Context) error {
			b = api.Batch{}
			revision, err := c.getBatch(ctx, id, &b)
			if err != nil {
				return err
			}
			if err := change(&b); err != nil {
				return &finalError{err}
			}
			value, err := json.Marshal(b)
			if err != nil {
				return &finalError{err}
			}
			kv, err := c.bucket(ctx, bucketBatches)
			if err != nil {
				return err
			}
			_, err = kv.Update(ctx, Token(id), value, revision)
			return err //nolint:wrapcheck // retry wraps it
		})
		switch {
		case err == nil:
			return b, nil
		case !errors.Is(err, jetstream.ErrKeyRevisionMismatch):
			return api.Batch{}, err
		}
	}
}

// RemoveBatch removes a batch with its jobs, results and consumers. It is for
// batches on which nobody works any more; there need not be one with this id.
func (c *Client) RemoveBatch(ctx context.Context, id string) error {
	b, err := c.Batch(ctx, id)
	if err != nil && !errors.Is(err, ErrNoBatch) {
		return err
	}
	if err := errors.Join(c.dropJobBlobs(ctx, jobsOfBatch(id)), c.dropBlobs(ctx, streamResults, resultsOf(id))); err != nil {
		return fmt.Errorf("remove batch %s: %w", id, err)
	}
	for _, p := range []struct{ stream, filter string }{
		{streamJobs, jobsOfBatch(id)},
		{streamResults, resultsOf(id)},
		{"KV_" + bucketAttempts, "$KV." + bucketAttempts + "." + Token(id) + ".>"},
	} {
		if err := c.purge(ctx, p.stream, p.filter); err != nil {
			return fmt.Errorf("remove batch %s: %w", id, err)
		}
	}
	if b.ID == "" {
		return nil
	}
	// The entry goes before the consumers: as long as it is there, workers make
	// them again.
	err = c.retry(ctx, "remove batch "+id, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, bucketBatches)
		if err != nil {
			return err
		}
		return kv.Delete(ctx, Token(id))
	})
	if err != nil {
		return err
	}
	for _, model := range b.Tempo.Models {
		if err := c.deleteConsumer(ctx, consumerName(model, id)); err != nil {
			return err
		}
	}
	return nil
}

// getBatch is one try to read a batch object and its revision.
func (c *Client) getBatch(ctx context.Context, id string, into *api.Batch) (uint64, error) {
	kv, err := c.bucket(ctx, bucketBatches)
	if err != nil {
		return 0, err
	}
	e, err := kv.Get(ctx, Token(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, &finalError{ErrNoBatch}
	}
	if err != nil {
		return 0, err //nolint:wrapcheck // retry wraps it
	}
	return e.Revision(), decode(e.Value(), into)
}

// Reclaim gives out again at once what workers have taken of a batch that are gone;
// without it those jobs wait for their AckWait. No worker may be running: one that
// is would do its jobs for nothing. It does nothing if there is no such batch.
func (c *Client) Reclaim(ctx context.Context, id string) error {
	b, err := c.Batch(ctx, id)
	if errors.Is(err, ErrNoBatch) {
		return nil
	}
	for _, model := range b.Tempo.Models {
		if err == nil {
			err = c.deleteConsumer(ctx, consumerName(model, id)) // the next taker makes it anew
		}
	}
	return err
}

// clear removes what a batch that has ended has in JOBS for a model. Jobs that are queued when it is
// open again, meanwhile, stay.
func (c *Client) clear(ctx context.Context, model, id string) error {
	last, err := c.lastJob(ctx)
	if err != nil {
		return err
	}
	var b *api.Batch // nil = it was removed
	err = c.retry(ctx, "read batch "+id, func(ctx context.Context) error {
		value, _, err := c.lastValue(ctx, bucketBatches, Token(id))
		if err != nil || value == nil {
			return err
		}
		b = &api.Batch{}
		return decode(value, b)
	})
	if err != nil || b != nil && !b.Status.Ended() {
		return err
	}
	if err := c.deleteConsumer(ctx, consumerName(model, id)); err != nil {
		return err
	}
	if b != nil { // what came late has no answer yet
		return c.clearAnswered(ctx, *b, jobsOf(model, id))
	}
	return c.purge(ctx, streamJobs, jobsOf(model, id), jetstream.WithPurgeSequence(last+1))
}

// clearAnswered takes jobs of a batch that has ended off the queue. Those that have no result get
// the one that it was ended; of a completed batch there are none, and if there are they stay.
func (c *Client) clearAnswered(ctx context.Context, b api.Batch, filter string) error {
	if b.Status != api.Completed {
		return c.refuseQueued(ctx, &EndedError{Batch: b.ID, Status: b.Status})
	}
	return c.eachQueued(ctx, filter, func(list []queued) error {
		for _, q := range list {
			has, err := c.HasResult(ctx, q.job.Batch, q.job.ID)
			if err == nil && has {
				err = c.purge(ctx, streamJobs, jobSubject(q.job))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// lastJob is the sequence of the newest message in JOBS.
func (c *Client) lastJob(ctx context.Context) (last uint64, err error) {
	err = c.retry(ctx, "read the state of "+streamJobs, func(ctx context.Context) error {
		s, err := c.stream(ctx, streamJobs)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx)
		if err != nil {
			return err //nolint:wrapcheck // retry wraps it
		}
		last = info.State.LastSeq
		return nil
	})
	return last, err
}

// deleteConsumer removes a consumer of JOBS, if it is there.
func (c *Client) deleteConsumer(ctx context.Context, name string) error {
	return c.retry(ctx, "delete consumer "+name, func(ctx context.Context) error {
		err := c.js.DeleteConsumer(ctx, streamJobs, name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil
		}
		return err //nolint:wrapcheck // retry wraps it
	})
}

// decode reads JSON; what cannot be read now cannot be read later.
func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return &finalError{fmt.Errorf("parse JSON: %w", err)}
	}
	return nil
}
