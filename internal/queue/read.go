package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	readChunk  = 64              // messages asked for at once; each may have the size of a result
	readExpiry = 2 * time.Second // of one request for messages; the next follows at once
)

var errGap = errors.New("a message got lost on its way")

// follow calls fn for the messages of a stream that match filter, in their order
// and each once, from the first one on, until fn fails or ctx is done. After an
// outage it goes on behind the last message that fn has got. The consumers of the
// client library that do this wait for up to ten seconds between tries, deaf to
// the context.
func (c *Client) follow(ctx context.Context, stream, filter string, fn func(jetstream.Msg) error) error {
	var last uint64
	for attempt := 0; ; attempt++ {
		before := last
		err := c.followOn(ctx, stream, filter, &last, fn)
		var final *finalError
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("read %s: %w", filter, context.Cause(ctx))
		case errors.As(err, &final):
			return final.err
		case status(err) == 404 && !errors.Is(err, jetstream.ErrConsumerNotFound):
			return fmt.Errorf("read %s: %w", filter, err)
		case errors.Is(err, nats.ErrConnectionClosed):
			return fmt.Errorf("read %s: %w", filter, err)
		}
		c.log.Debug("reading is interrupted, going on", zap.String("filter", filter), zap.Uint64("after", last), zap.Error(err))
		if last > before {
			attempt = 0
		}
		pause(ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second))
	}
}

// followOn is follow until the first interruption. It keeps *last.
func (c *Client) followOn(ctx context.Context, stream, filter string, last *uint64, fn func(jetstream.Msg) error) error {
	cons, err := c.ephemeral(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject: filter, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *last + 1,
	})
	if err != nil {
		return err
	}
	defer c.discard(ctx, stream, cons)
	for delivered := uint64(1); ; {
		err := c.fetch(ctx, cons, readChunk, func(m jetstream.Msg) error {
			meta, err := m.Metadata()
			if err != nil {
				return err //nolint:wrapcheck // follow only logs it
			}
			if meta.Sequence.Consumer != delivered {
				return errGap
			}
			if err := fn(m); err != nil {
				return &finalError{err}
			}
			delivered++
			*last = meta.Sequence.Stream
			return nil
		})
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// latest calls fn for the last message of each subject of a stream that matches
// filter.
func (c *Client) latest(ctx context.Context, stream, filter string, fn func(jetstream.Msg) error) error {
	cons, err := c.ephemeral(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject: filter, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	})
	if err != nil {
		return err
	}
	defer c.discard(ctx, stream, cons)
	for left := int(cons.CachedInfo().NumPending); left > 0; {
		if err := c.fetch(ctx, cons, min(left, readChunk), func(m jetstream.Msg) error {
			left--
			return fn(m)
		}); err != nil {
			return err
		}
	}
	return nil
}

// fetch asks for up to n messages and waits for them for up to readExpiry.
func (c *Client) fetch(ctx context.Context, cons jetstream.Consumer, n int, fn func(jetstream.Msg) error) error {
	ctx, cancel := c.bound(ctx, readExpiry)
	defer cancel()
	batch, err := cons.Fetch(n, jetstream.FetchContext(ctx))
	if err != nil {
		return err //nolint:wrapcheck // the callers wrap it
	}
	for m := range batch.Messages() {
		if err := fn(m); err != nil {
			return err
		}
	}
	return batch.Error() //nolint:wrapcheck // the callers wrap it
}

// ephemeral makes a consumer of a stream's messages for one reader, without acks.
func (c *Client) ephemeral(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	ctx, cancel := c.bound(ctx, tryTimeout)
	defer cancel()
	cfg.AckPolicy = jetstream.AckNonePolicy
	cfg.MemoryStorage = true
	cfg.Replicas = 1
	cfg.InactiveThreshold = time.Minute          // if discard does not get through
	return c.js.CreateConsumer(ctx, stream, cfg) //nolint:wrapcheck // the callers wrap it
}

// discard removes a consumer of ephemeral, also when ctx is done.
func (c *Client) discard(ctx context.Context, stream string, cons jetstream.Consumer) {
	if !c.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := c.js.DeleteConsumer(ctx, stream, cons.CachedInfo().Name); err != nil {
		c.log.Debug("a consumer is left to expire", zap.String("stream", stream), zap.Error(err))
	}
}

// count returns how many messages of a stream match filter. It asks for one
// message and how many there are behind it, which costs the same for any number.
func (c *Client) count(ctx context.Context, stream, filter string) (int, error) {
	var n int
	err := c.retry(ctx, "count "+filter, func(ctx context.Context) error {
		request := fmt.Appendf(nil, `{"seq":1,"batch":1,"next_by_subj":%q}`, filter)
		answer, err := c.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, request)
		if err != nil {
			return err //nolint:wrapcheck // retry wraps it
		}
		if answer.Header.Get("Status") == "404" {
			n = 0
			return nil
		}
		behind, err := strconv.Atoi(answer.Header.Get("Nats-Num-Pending"))
		if err != nil {
			return &finalError{fmt.Errorf("read the server's answer: %w", err)}
		}
		n = behind + 1
		return nil
	})
	return n, err
}

// has is one try to find out whether a stream has a message on a subject.
func (c *Client) has(ctx context.Context, stream, subject string) (bool, error) {
	m, err := c.last(ctx, stream, subject)
	return m != nil, err
}

// last is one try to read a stream's last message on a subject, nil if there is none.
func (c *Client) last(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	s, err := c.stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil //nolint:nilnil // there is none
	}
	return m, err //nolint:wrapcheck // retry wraps it
}

// lastRevision is one try to find out the revision of a bucket's key; 0 = there is
// none.
func (c *Client) lastRevision(ctx context.Context, bucket, key string) (uint64, error) {
	_, revision, err := c.lastValue(ctx, bucket, key)
	return revision, err
}

// lastValue is one try to read the last message of a bucket's key and its revision; 0 = there is
// none. It asks the leader: what has() and kv.Get say may be a moment old.
func (c *Client) lastValue(ctx context.Context, bucket, key string) (value []byte, revision uint64, err error) {
	request := fmt.Appendf(nil, `{"last_by_subj":%q}`, "$KV."+bucket+"."+key)
	m, err := c.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+bucket, request)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // retry wraps it
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64 `json:"seq"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := decode(m.Data, &answer); err != nil {
		return nil, 0, err
	}
	switch {
	case answer.Error == nil:
		return answer.Message.Data, answer.Message.Sequence, nil
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, 0, nil
	}
	return nil, 0, answer.Error
}
