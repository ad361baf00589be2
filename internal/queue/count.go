package queue

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"tempo/api"
)

// Counts returns a batch with its counts as they are now. They follow from what is in RESULTS, so
// they are right whoever was killed; what was counted is noted in the batch now and then, so that
// it is not counted again. The error is [ErrNoBatch] if there is no such batch.
func (c *Client) Counts(ctx context.Context, id string) (api.Batch, error) {
	return c.bringUpToDate(ctx, id, noteCounts, func(*api.Batch) {})
}

// CompleteBatch notes that all jobs of a batch have their results, and how many there are of
// which kind. One that was ended before stays what it is.
func (c *Client) CompleteBatch(ctx context.Context, id string) (api.Batch, error) {
	return c.bringUpToDate(ctx, id, 0, func(b *api.Batch) {
		if c := b.RequestCounts; b.Status == api.InProgress && c.Completed+c.Failed >= c.Total {
			b.Status, b.CompletedAt = api.Completed, time.Now().Unix()
		}
	})
}

// bringUpToDate counts the results of a batch that were not counted yet. If there are at least so
// many, they are noted, with what change does.
func (c *Client) bringUpToDate(ctx context.Context, id string, note int, change func(*api.Batch)) (api.Batch, error) {
	b, err := c.Batch(ctx, id)
	if err != nil {
		return api.Batch{}, err
	}
	counted := 0
	var more api.RequestCounts
	last := b.Tempo.Counted
	err = c.retry(ctx, "count the results of batch "+id, func(context.Context) error {
		ctx, cancel := c.bound(ctx, longTimeout)
		defer cancel()
		counted, more, last = 0, api.RequestCounts{}, b.Tempo.Counted
		return c.headers(ctx, streamResults, resultsOf(id), last+1, func(m jetstream.Msg, sequence uint64) {
			counted, last = counted+1, sequence
			if m.Headers().Get(headerOutcome) == outcomeFailed {
				more.Failed++
			} else {
				more.Completed++
			}
		})
	})
	if err != nil {
		return b, err
	}
	from := b.Tempo.Counted
	add := func(b *api.Batch) error {
		if b.Tempo.Counted != from {
			return errCounted
		}
		b.RequestCounts.Completed += more.Completed
		b.RequestCounts.Failed += more.Failed
		b.Tempo.Counted = last
		change(b)
		return nil
	}
	if counted < note {
		_ = add(&b) // it has just been read
		return b, nil
	}
	stored, err := c.UpdateBatch(ctx, id, add)
	if errors.Is(err, errCounted) {
		return c.bringUpToDate(ctx, id, note, change)
	}
	return stored, err
}

// noteCounts is from how many results on the counts are noted.
const noteCounts = 1000

// errCounted says that the counts were brought up to date by somebody else.
var errCounted = errors.New("the results were counted meanwhile")

// headers is one try to call fn for the messages of a stream that match filter, from a sequence on
// to the last that is there now, without their bodies.
func (c *Client) headers(ctx context.Context, stream, filter string, from uint64, fn func(m jetstream.Msg, sequence uint64)) error {
	cons, err := c.ephemeral(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject: filter, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, HeadersOnly: true,
	})
	if err != nil {
		return err
	}
	defer c.discard(ctx, stream, cons)
	for left := int(cons.CachedInfo().NumPending); left > 0; {
		if err := c.fetch(ctx, cons, min(left, headersChunk), func(m jetstream.Msg) error {
			meta, err := m.Metadata()
			if err != nil {
				return err //nolint:wrapcheck // the callers wrap it
			}
			left--
			fn(m, meta.Sequence.Stream)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// longTimeout bounds one try to go through what a batch has; there may be millions.
const longTimeout = 5 * time.Minute

// headersChunk is how many messages without bodies are asked for at once.
const headersChunk = 5000
