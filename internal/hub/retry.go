package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	// maxTries is how often in a row something may fail without one more byte.
	maxTries = 8
	// firstPause is about the first wait; each is twice the one before, up to maxPause.
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
	// maxAfter is the longest wait that a hub can ask for.
	maxAfter = 10 * time.Minute
	// stallAfter is the time without a byte after which a connection counts as broken.
	stallAfter = time.Minute
)

// passing is an error that may be gone at the next try.
type passing struct {
	err   error
	after time.Duration // the hub asks to wait so long; 0 = it says nothing
}

func (e *passing) Error() string { return e.err.Error() }

func (e *passing) Unwrap() error { return e.err }

var (
	errStalled = errors.New("nothing came for a minute")
	errRange   = errors.New("the hub has fewer bytes than were fetched")
)

// retry calls try until it succeeds, or fails for good, or has failed maxTries times
// in a row. try says whether it has got further than ever before.
func (c *Client) retry(ctx context.Context, r Ref, try func() (further bool, err error)) error {
	for failed := 0; ; {
		further, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("fetch %v: %w", r, context.Cause(ctx))
		}
		if further {
			failed = 0
		}
		failed++
		again, ok := errors.AsType[*passing](err)
		if !ok {
			return err
		}
		if failed == maxTries || again.after > maxAfter {
			return again.err
		}
		wait := max(backoff(failed), again.after)
		c.opts.Note(fmt.Sprintf("%v; next try in %s", again.err, wait.Round(100*time.Millisecond)))
		if !c.pause(ctx, wait) {
			return fmt.Errorf("%w; then: %w", again.err, context.Cause(ctx))
		}
	}
}

// backoff is how long to wait after so many failures: about twice as long each time,
// and not all at once where many wait.
func backoff(failed int) time.Duration {
	d := min(firstPause<<min(failed-1, 10), maxPause)
	return d/2 + rand.N(d/2)
}

// pause waits, and reports whether ctx was not done before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryAfter is the wait that an answer asks for: in seconds, or until a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return max(time.Duration(seconds)*time.Second, 0)
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

// watch returns a context that ends when nothing has come for a time; alive says that
// something came.
func (c *Client) watch(ctx context.Context) (watched context.Context, alive, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(c.stall, func() { cancel(errStalled) })
	return watched, func() { t.Reset(c.stall) }, func() {
		t.Stop()
		cancel(nil)
	}
}
