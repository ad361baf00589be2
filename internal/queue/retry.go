package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// tryTimeout bounds one try of a request.
const tryTimeout = 5 * time.Second

// Codes of the server that the client library does not name.
const (
	codeStoreFailed     jetstream.ErrorCode = 10077 // also: the subject is taken
	codeBatchIncomplete jetstream.ErrorCode = 10176 // a message of an atomic batch got lost on its way
	codeBatchDuplicate  jetstream.ErrorCode = 10201 // an id of an atomic batch is known
)

// retry calls try until it succeeds, fails for good, or ctx is done; each call
// gets a context that is bounded by tryTimeout. Errors begin with what.
func (c *Client) retry(ctx context.Context, what string, try func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		err := c.once(ctx, try)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), err)
		case !transient(err):
			return fmt.Errorf("%s: %w", what, err)
		case c.nc.IsConnected(): // a lost connection is logged by its handler
			c.log.Warn("the queue did not do it, trying again",
				zap.String("what", what), zap.Int("attempt", attempt+1), zap.Error(err))
		}
		if !pause(ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second)) {
			return fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), err)
		}
	}
}

// once calls try with a context that is bounded by tryTimeout.
func (c *Client) once(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := c.bound(ctx, tryTimeout)
	defer cancel()
	err := try(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) { // the library does not always say so
		return errors.Join(err, ctx.Err())
	}
	return err
}

// bound bounds a context by a time and by the connection: what was asked for
// before it is lost is not answered behind that.
func (c *Client) bound(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	go func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// endTries ends the contexts of bound.
func (c *Client) endTries() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.lost)
	c.lost = make(chan struct{})
}

// pause waits; it reports false if ctx is done first.
func pause(ctx context.Context, d time.Duration) bool {
	pauseUnless(ctx, nil, d)
	return ctx.Err() == nil
}

// pauseUnless waits for d, but not longer than until changed is closed or ctx is done.
func pauseUnless(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// transient reports whether the same request can succeed later.
func transient(err error) bool {
	var final *finalError
	var known jetstream.JetStreamError
	switch {
	case errors.As(err, &final), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrMaxPayload):
		return false
	case errors.Is(err, jetstream.ErrNoStreamResponse), code(err) == codeBatchIncomplete, errors.Is(err, context.DeadlineExceeded):
		return true
	case status(err) != 0:
		return status(err) == 429 || status(err) >= 500
	case errors.As(err, &known): // no answer of the server, but a complaint of the library
		return false
	default:
		return true
	}
}

// finalError keeps retry from trying again.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }

func (e *finalError) Unwrap() error { return e.err }

// code is the server's code of an error, 0 if the error is not from the server.
func code(err error) jetstream.ErrorCode {
	if api := answer(err); api != nil {
		return api.ErrorCode
	}
	return 0
}

// status is the server's status of an error, in the manner of HTTP; 0 if the
// error is not from the server.
func status(err error) int {
	if api := answer(err); api != nil {
		return api.Code
	}
	return 0
}

func answer(err error) *jetstream.APIError {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api
	}
	if known, ok := errors.AsType[jetstream.JetStreamError](err); ok {
		return known.APIError()
	}
	return nil
}

// stream opens a stream, or returns it if it was opened before.
func (c *Client) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	c.mu.Lock()
	s, ok := c.streams[name]
	c.mu.Unlock()
	if ok {
		return s, nil
	}
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	c.mu.Lock()
	c.streams[name] = s
	c.mu.Unlock()
	return s, nil
}

// bucket opens a key-value bucket, or returns it if it was opened before.
func (c *Client) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	c.mu.Lock()
	kv, ok := c.buckets[name]
	c.mu.Unlock()
	if ok {
		return kv, nil
	}
	kv, err := c.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	c.mu.Lock()
	c.buckets[name] = kv
	c.mu.Unlock()
	return kv, nil
}

// purge removes the messages of a stream that match filter, those before a sequence only if
// asked to.
func (c *Client) purge(ctx context.Context, stream, filter string, more ...jetstream.StreamPurgeOpt) error {
	return c.retry(ctx, "purge "+filter, func(ctx context.Context) error {
		s, err := c.stream(ctx, stream)
		if err != nil {
			return err
		}
		return s.Purge(ctx, append([]jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(filter)}, more...)...)
	})
}
