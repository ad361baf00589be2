package worker

import (
	"context"
	"sync"
)

// under counts what is under way, and lets others wait until nothing is. The zero
// value counts nothing. Safe for concurrent use.
type under struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	over chan struct{} // closed when n falls to 0; guarded by mu
}

// begin counts one more until end is called.
func (u *under) begin() (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n++; u.n == 1 {
		u.over = make(chan struct{})
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.n--; u.n == 0 {
			close(u.over)
		}
	}
}

// wait returns when nothing is under way, or with ctx's error.
func (u *under) wait(ctx context.Context) error {
	for {
		u.mu.Lock()
		n, over := u.n, u.over
		u.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
