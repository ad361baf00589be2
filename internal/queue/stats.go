package queue

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"tempo/api"
)

// PublishStats publishes a measurement as plain JSON on
// stats.memory.<worker>.<device>, where the nats tool can read it:
//
//	nats sub 'stats.memory.>'
//
// It tries once: the next measurement replaces this one.
func (c *Client) PublishStats(ctx context.Context, s api.MemoryStats) error {
	return c.publishStats(ctx, s, "")
}

// PublishModelStats is PublishStats for a worker that serves several models on one
// device, on a subject for each: stats.memory.<worker>.<device>.<model>.
func (c *Client) PublishModelStats(ctx context.Context, s api.MemoryStats) error {
	return c.publishStats(ctx, s, "."+Token(s.Model))
}

func (c *Client) publishStats(ctx context.Context, s api.MemoryStats, suffix string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("publish statistics: %w", err)
	}
	return c.try(ctx, "publish statistics", func(ctx context.Context) error {
		_, err := c.js.Publish(ctx, "stats.memory."+Token(s.Worker)+"."+Token(s.Device)+suffix, data)
		return err //nolint:wrapcheck // try wraps it
	})
}

// LatestStats returns the last measurement of each worker and device, and of each model
// of a worker that serves several, at most an hour old, in no particular order.
func (c *Client) LatestStats(ctx context.Context) ([]api.MemoryStats, error) {
	var all []api.MemoryStats
	err := c.retry(ctx, "read statistics", func(ctx context.Context) error {
		all = nil
		return c.latest(ctx, streamStats, "stats.memory.>", func(m jetstream.Msg) error {
			var s api.MemoryStats
			if err := decode(m.Data(), &s); err != nil {
				return fmt.Errorf("%s: %w", m.Subject(), err)
			}
			all = append(all, s)
			return nil
		})
	})
	return all, err
}

// try is retry for what is repeated anyway: it tries once.
func (c *Client) try(ctx context.Context, what string, f func(context.Context) error) error {
	if err := c.once(ctx, f); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
