package budget

import (
	"context"
	"fmt"
)

// Ledger is the account of one device's memory. Safe for concurrent use.
//
// Each line is charged at the larger of what is booked and what was measured,
// until it is booked anew. Bookings never pass the limit; measurements and a
// lowered limit can, because they state facts. The excess is then taken from
// the room for leases:
//
//	headroom  = limit - Σ charges            negative: more is held than allowed
//	room      = booked KV pool, less the missing headroom
//	available = room - reserved              negative: leases no longer fit
//	Σ leases  = reserved; a lease is given or grown by n only if n ≤ available
//
// The memory of the host has a ledger too, beside those of GPUs. Its pool
// (KVCache) is what jobs hold there: KV that was swapped out, the bodies and the
// results of running jobs. A job that needs both asks for both through a [Group].
type Ledger struct {
	group  *Group // constant; its lock guards all below
	device string // constant

	limit        Bytes
	booked       Footprint
	measured     Footprint
	thresholds   Thresholds
	reserved     Bytes
	peakReserved Bytes
	leases       int
	waiting      waiters
}

// NewLedger returns a ledger in a group of its own; see [Group.NewLedger].
func NewLedger(device string, limit Bytes) (*Ledger, error) {
	return NewGroup().NewLedger(device, limit)
}

// Book sets a line to n bytes; what was booked in it before is replaced. It
// returns *TooLargeError, and changes nothing, if the line would grow and the
// charges would pass the limit. Booking less is never refused.
//
// The KVCache line is the pool. Lowering it fails the waiters that no longer
// fit into it with *TooLargeError; leases stay as they are, and nothing is
// reserved until they fit again.
func (l *Ledger) Book(line Line, n Bytes) error {
	if n < 0 {
		return fmt.Errorf("book %v as %v on %s: %w", n, line, l.device, ErrNegative)
	}
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	booked := l.booked
	at := booked.at(line)
	if at == nil {
		return fmt.Errorf("book %v on %s: there is no %v", n, l.device, line)
	}
	before := *at
	*at = n
	charges := charge(booked, l.measured)
	if total := charges.Total(); n > before && total > l.limit {
		*charges.at(line) = 0
		return &TooLargeError{
			What:     fmt.Sprintf("%v on %s", line, l.device),
			Need:     n,
			Capacity: max(l.limit.Sub(charges.Total()), 0),
			Hints:    []string{raiseLimit(total)},
		}
	}
	l.booked = booked
	l.failTooLarge()
	l.group.admit()
	return nil
}

// SetMeasured records what a line really holds. It is never refused, even
// beyond the limit: then leases have less room ([Snapshot.Room]). 0 forgets the
// measurement (the engine has ended). There being no such line, it does nothing.
func (l *Ledger) SetMeasured(line Line, n Bytes) {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	if at := l.measured.at(line); at != nil {
		*at = max(n, 0)
		l.group.admit()
	}
}

// SetLimit changes the limit, because others took memory or gave it back, or
// the user wants it so. Below 0 counts as 0. Nobody who waits is failed by it.
func (l *Ledger) SetLimit(n Bytes) {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	l.limit = max(n, 0)
	l.group.admit()
}

// Acquire reserves n bytes of the pool for a job, and waits for them while they
// are not there; see [Group.Acquire], of which it is the case of one request, and
// [Group] for the order of those who wait.
func (l *Ledger) Acquire(ctx context.Context, n Bytes, p Priority) (*Lease, error) {
	leases, err := l.group.Acquire(ctx, p, Request{l, n})
	if err != nil {
		return nil, err
	}
	return leases[0], nil
}

// TryAcquire is Acquire without waiting. It never overtakes those who wait: it
// fails while there are any.
func (l *Ledger) TryAcquire(n Bytes) (*Lease, bool) {
	leases, ok := l.group.TryAcquire(Request{l, n})
	if !ok {
		return nil, false
	}
	return leases[0], true
}

// Available is what can be leased or grown into now, those who wait aside. It is
// negative by as much as leases that exist do not fit any more.
func (l *Ledger) Available() Bytes {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return l.available()
}

// Shortfall is how much must be released before n more bytes fit, 0 if they do
// now; n below 0 counts as 0. More than what is reserved says that releasing is
// not enough. Those who wait are not counted: growth overtakes them, and a new
// request has to wait for those before it as well.
func (l *Ledger) Shortfall(n Bytes) Bytes {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return max(max(n, 0).Sub(l.available()), 0)
}

// failTooLarge ends the wait of those who ask for more than the whole pool.
func (l *Ledger) failTooLarge() {
	for _, p := range l.waiting.over(l.booked.KVCache) {
		p.waiter.leave()
		p.waiter.err = l.tooLarge(p.Bytes)
		close(p.waiter.ready)
	}
}

// lease makes a lease of n bytes, which must fit.
func (l *Ledger) lease(n Bytes) *Lease {
	l.leases++
	l.reserve(n)
	return &Lease{ledger: l, size: n, peak: n}
}

func (l *Ledger) reserve(n Bytes) {
	l.reserved = l.reserved.Add(n)
	l.peakReserved = max(l.peakReserved, l.reserved)
}

// fits reports whether n more bytes can be reserved now.
func (l *Ledger) fits(n Bytes) bool {
	return n <= l.available()
}

func (l *Ledger) available() Bytes {
	return l.room().Sub(l.reserved)
}

// room is what may be reserved in all; negative if more than the pool is missing.
func (l *Ledger) room() Bytes {
	headroom := l.limit.Sub(charge(l.booked, l.measured).Total())
	return l.booked.KVCache.Add(min(headroom, 0))
}

func (l *Ledger) tooLarge(n Bytes) *TooLargeError {
	pool := l.booked.KVCache
	return &TooLargeError{
		What:     "a job's KV cache on " + l.device,
		Need:     n,
		Capacity: pool,
		Hints: []string{
			fmt.Sprintf("shorten the prompt or lower max_tokens to about %.0f %% of what the job asks for", 100*float64(pool)/float64(max(n, 1))),
			raiseLimit(l.limit.Add(n.Sub(pool))),
		},
	}
}
