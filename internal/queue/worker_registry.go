package queue

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"tempo/api"
)

// Announce says that a worker is there. The entry expires after 30 s, so the
// worker says it again every 10 s. It tries once.
func (c *Client) Announce(ctx context.Context, w api.Worker) error {
	value, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("announce worker: %w", err)
	}
	return c.try(ctx, "announce worker", func(ctx context.Context) error {
		kv, err := c.bucket(ctx, bucketWorkers)
		if err != nil {
			return err
		}
		_, err = kv.Put(ctx, Token(w.ID), value)
		return err //nolint:wrapcheck // try wraps it
	})
}

// Withdraw says that a worker has left; without it the entry expires. It tries
// once.
func (c *Client) Withdraw(ctx context.Context, id string) error {
	return c.try(ctx, "withdraw worker", func(ctx context.Context) error {
		kv, err := c.bucket(ctx, bucketWorkers)
		if err != nil {
			return err
		}
		return kv.Delete(ctx, Token(id))
	})
}

// Workers returns the workers that are there, in no particular order.
func (c *Client) Workers(ctx context.Context) ([]api.Worker, error) {
	var all []api.Worker
	err := c.retry(ctx, "read workers", func(ctx context.Context) error {
		all = nil
		return c.latest(ctx, "KV_"+bucketWorkers, "$KV."+bucketWorkers+".>", func(m jetstream.Msg) error {
			if removed(m) {
				return nil
			}
			var w api.Worker
			if err := decode(m.Data(), &w); err != nil {
				return fmt.Errorf("%s: %w", m.Subject(), err)
			}
			all = append(all, w)
			return nil
		})
	})
	return all, err
}

// removed reports whether a message of a bucket says that its key was removed.
func removed(m jetstream.Msg) bool { return m.Headers().Get("KV-Operation") != "" }
