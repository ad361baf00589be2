package infertest

import (
	"context"
	"slices"
	"sync"
)

// Lease is an infer.Lease that records what it is asked. It grants everything at
// once, unless Grant says otherwise. Safe for concurrent use.
type Lease struct {
	// Grant decides before n tokens are granted; nil = always.
	Grant func(ctx context.Context, used, n int) error

	reclaim chan struct{}

	mu     sync.Mutex
	tokens int    // guarded by mu
	calls  []Call // guarded by mu
}

// Call is one call of Resize.
type Call struct {
	Before int // tokens of the lease until then
	Used   int
	Asked  int
}

// NewLease makes a lease of so many tokens.
func NewLease(tokens int) *Lease { return &Lease{tokens: tokens, reclaim: make(chan struct{}, 1)} }

// Reclaim is where TakeBack sends.
func (l *Lease) Reclaim() <-chan struct{} { return l.reclaim }

// TakeBack wants the lease back for a while, as the owner of the memory would.
func (l *Lease) TakeBack() {
	select {
	case l.reclaim <- struct{}{}:
	default: // it is wanted already
	}
}

// Tokens is the size of the lease.
func (l *Lease) Tokens() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tokens
}

// Resize grants n tokens if Grant has no objection.
func (l *Lease) Resize(ctx context.Context, used, n int) error {
	l.mu.Lock()
	l.calls = append(l.calls, Call{Before: l.tokens, Used: used, Asked: n})
	l.mu.Unlock()
	if l.Grant != nil {
		if err := l.Grant(ctx, used, n); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = n
	return nil
}

// Calls are the calls of Resize so far.
func (l *Lease) Calls() []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}
