package budget

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// Group is a set of ledgers from which a job can lease together, all or nothing:
// several GPUs, or a GPU and the host. Safe for concurrent use.
//
// # Order
//
// All who wait stand in one order, whichever ledgers they wait for: the starved
// first, by arrival; then by priority; inside a priority, first come first
// served. A waiter is served when all that it asks for fits and nobody before it
// waits for one of the same ledgers. So those who wait for other devices do not
// hold it up, and nobody takes the turn of another on a ledger, even where a
// smaller request would fit: a large one is served as soon as enough was released.
//
// A waiter that is the first of its priority in each of its ledgers is passed
// over when one of a higher priority is served in any of them, or one of
// whatever priority that leases from several (it may have starved on a ledger
// that the two do not share). Passed over eight times, it is starved.
//
// # Why nobody waits for ever
//
// As long as jobs end, and the room is there that was asked for:
//
//   - The first of all is the first in each of its ledgers, and nobody holds
//     memory by waiting. So there is always one that waits for running jobs only,
//     and requests for the same devices in crossed order cannot block each other.
//   - A starved waiter lets only earlier ones go before it: they become fewer.
//   - Any other becomes the first of its priority, since those before it become
//     fewer too. From then on it is passed over at most eight times. Who goes
//     before it uncounted has a lower priority, waits for one ledger and is
//     starved: either it was so already, or those eight who passed it over there
//     have passed over both.
type Group struct {
	mu       sync.Mutex // guards all below, the group's ledgers, their leases and waiters
	ledgers  []*Ledger  // in order of creation
	arrivals uint64     // of waiters so far
}

// Request is what a job asks of one ledger.
type Request struct {
	Ledger *Ledger
	Bytes  Bytes // at least 0
}

// NewGroup returns a group without ledgers.
func NewGroup() *Group {
	return &Group{}
}

// NewLedger adds a ledger in which nothing is booked, for as long as the group
// lives. The device's name is for messages; limit must be over 0.
func (g *Group) NewLedger(device string, limit Bytes) (*Ledger, error) {
	if limit <= 0 {
		return nil, &hintedError{
			err:  fmt.Errorf("make ledger for %s: limit is %v, must be over 0", device, limit),
			hint: "free memory on the device, or raise --max-memory-gb",
		}
	}
	l := &Ledger{group: g, device: device, limit: limit, thresholds: DefaultThresholds()}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledgers = append(g.ledgers, l)
	return l, nil
}

// Acquire leases from several ledgers of the group at one moment, and waits
// until that is possible; the leases are in the order of the requests. It holds
// nothing while it waits. One who already holds a lease should release it first,
// or use [Lease.Grow]: two who hold and wait can wait for each other.
//
// It returns *TooLargeError at once if a request is for more than its whole pool,
// later if the pool is lowered below it; ErrNegative; ErrBadRequest; or an error
// that wraps ctx's if ctx ends first. In each case nothing is leased.
func (g *Group) Acquire(ctx context.Context, p Priority, requests ...Request) ([]*Lease, error) {
	if err := g.check(requests); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("acquire %s: %w", inWords(requests), err)
	}
	leases, w, err := g.enqueue(p, requests)
	if w == nil {
		return leases, err
	}
	select {
	case <-w.ready:
		return w.result()
	case <-ctx.Done():
		g.abandon(w)
		return nil, fmt.Errorf("wait for %s: %w", inWords(requests), ctx.Err())
	}
}

// TryAcquire is Acquire without waiting; false stands for all its errors. It
// never overtakes: it fails while anybody waits for one of the ledgers.
func (g *Group) TryAcquire(requests ...Request) ([]*Lease, bool) {
	if g.check(requests) != nil {
		return nil, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.try(requests)
}

// check refuses what makes no sense, whatever is free.
func (g *Group) check(requests []Request) error {
	if len(requests) == 0 {
		return fmt.Errorf("acquire nothing: %w", ErrBadRequest)
	}
	for i, r := range requests {
		switch {
		case r.Ledger == nil:
			return fmt.Errorf("acquire %v on no ledger: %w", r.Bytes, ErrBadRequest)
		case r.Ledger.group != g:
			return fmt.Errorf("acquire %v on %s, a ledger of another group: %w", r.Bytes, r.Ledger.device, ErrBadRequest)
		case r.Bytes < 0:
			return fmt.Errorf("acquire %v on %s: %w", r.Bytes, r.Ledger.device, ErrNegative)
		}
		for _, earlier := range requests[:i] {
			if earlier.Ledger == r.Ledger {
				return fmt.Errorf("acquire %v on %s, which was asked before: %w", r.Bytes, r.Ledger.device, ErrBadRequest)
			}
		}
	}
	return nil
}

// enqueue leases at once if all is free and nobody waits for it, else it returns
// a new waiter. If it is that one's turn, it is ready on return.
func (g *Group) enqueue(p Priority, requests []Request) ([]*Lease, *waiter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range requests {
		if r.Bytes > r.Ledger.booked.KVCache {
			return nil, nil, r.Ledger.tooLarge(r.Bytes)
		}
	}
	if leases, ok := g.try(requests); ok {
		return leases, nil, nil
	}
	w := newWaiter(g.arrivals, p, requests)
	g.arrivals++
	w.enter()
	g.admit()
	return nil, w, nil
}

// abandon ends a wait. Leases that were given in the same moment are released.
func (g *Group) abandon(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.ready:
		leases, _ := w.result()
		for _, s := range leases {
			s.release()
		}
	default:
		w.leave()
	}
	g.admit() // those behind w may have their turn now
}

// try leases if all is free and nobody waits for it.
func (g *Group) try(requests []Request) ([]*Lease, bool) {
	for _, r := range requests {
		if r.Ledger.waiting.count > 0 || !r.Ledger.fits(r.Bytes) {
			return nil, false
		}
	}
	leases := make([]*Lease, len(requests))
	for i, r := range requests {
		leases[i] = r.Ledger.lease(r.Bytes)
	}
	return leases, true
}

// admit serves those who wait, in their order, until nobody can be served. It is
// called after every change that can make room or change who is next.
func (g *Group) admit() {
	for w := g.next(); w != nil; w = g.next() {
		w.passOver()
		w.leave()
		w.serve()
	}
}

// next returns the first in the order that can be served, nil if there is none.
// It must be first in each of its ledgers, so that only the first of each ledger
// is looked at, however many wait.
func (g *Group) next() *waiter {
	var next *waiter
	for _, l := range g.ledgers {
		w := l.waiting.next()
		if w != nil && (next == nil || w.before(next)) && w.fits() && w.isNext() {
			next = w
		}
	}
	return next
}

// inWords names requests for messages.
func inWords(requests []Request) string {
	parts := make([]string, len(requests))
	for i, r := range requests {
		parts[i] = fmt.Sprintf("%v on %s", r.Bytes, r.Ledger.device)
	}
	return strings.Join(parts, " and ")
}
