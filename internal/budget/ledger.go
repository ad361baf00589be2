package budget

import (
	"context"
	"fmt"
	"sync"
)

// Ledger is the account of one device's memory. Safe for concurrent use.
//
// Each line is charged at the larger of what is booked and what was measured,
// until it is booked anew. Bookings never pass the limit; measurements and a
// lowered limit can, because they state facts. The excess is then taken from
// the room for leases:
//
//	headroom = limit - Σ charges             negative: more is held than allowed
//	room     = booked KV pool, less the missing headroom
//	Σ leases = reserved; a lease is given or grown only if reserved then ≤ room
type Ledger struct {
	device string // constant

	mu           sync.Mutex // guards all below, and the fields of its leases
	limit        Bytes
	booked       Footprint
	measured     Footprint
	thresholds   Thresholds
	reserved     Bytes
	peakReserved Bytes
	leases       int
	waiting      waiters
}

// NewLedger returns a ledger in which nothing is booked. The device's name is
// for messages; limit must be over 0.
func NewLedger(device string, limit Bytes) (*Ledger, error) {
	if limit <= 0 {
		return nil, &hintedError{
			err:  fmt.Errorf("make ledger for %s: limit is %v, must be over 0", device, limit),
			hint: "free memory on the device, or raise --max-memory-gb",
		}
	}
	return &Ledger{device: device, limit: limit, thresholds: DefaultThresholds()}, nil
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
	l.mu.Lock()
	defer l.mu.Unlock()
	booked := l.booked
	at := booked.at(line)
	if at == nil {
		return fmt.Errorf("book %v on %s: there is no %v", n, l.device, line)
	}
	before := *at
	*at = n
	total := charge(booked, l.measured).Total()
	if n > before && total > l.limit {
		others := total.Sub(max(n, *l.measured.at(line)))
		return &TooLargeError{
			What:     fmt.Sprintf("%v on %s", line, l.device),
			Need:     n,
			Capacity: max(l.limit.Sub(others), 0),
			Hints:    []string{raiseLimit(total)},
		}
	}
	l.booked = booked
	for _, w := range l.waiting.removeOver(l.booked.KVCache) {
		w.err = l.tooLarge(w.need)
		close(w.ready)
	}
	l.admit()
	return nil
}

// SetMeasured records what a line really holds. It is never refused, even
// beyond the limit: then leases have less room
// ([Snapshot.Room]). 0 forgets the measurement (the engine has ended). There being no such
// line, it does nothing.
func (l *Ledger) SetMeasured(line Line, n Bytes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.measured.at(line); at != nil {
		*at = max(n, 0)
		l.admit()
	}
}

// SetLimit changes the limit, because others took memory or gave it back, or
// the user wants it so. Below 0 counts as 0. Nobody who waits is failed by it.
func (l *Ledger) SetLimit(n Bytes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = max(n, 0)
	l.admit()
}

// Acquire reserves n bytes of the pool for a job, and waits for them while they
// are not there. It returns *TooLargeError at once if n is more than the whole
// pool, ErrNegative, or an error that wraps ctx's if ctx ends first.
//
// Order: first come first served inside a priority, the higher priority first,
// except that one who has been passed over eight times goes next; and nobody
// goes before the one whose turn it is, even where a smaller request would fit.
func (l *Ledger) Acquire(ctx context.Context, n Bytes, p Priority) (*Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("acquire %v on %s: %w", n, l.device, err)
	}
	w, err := l.enqueue(n, p)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.ready:
		return w.lease, w.err
	case <-ctx.Done():
		l.abandon(w)
		return nil, fmt.Errorf("wait for %v on %s: %w", n, l.device, ctx.Err())
	}
}

// TryAcquire is Acquire without waiting. It never overtakes those who wait: it
// fails while there are any.
func (l *Ledger) TryAcquire(n Bytes) (*Lease, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n < 0 || l.waiting.count > 0 || !l.fits(n) {
		return nil, false
	}
	return l.lease(n), true
}

// enqueue lines up for n bytes; if they are free and it is w's turn, w is ready
// on return.
func (l *Ledger) enqueue(n Bytes, p Priority) (*waiter, error) {
	if n < 0 {
		return nil, fmt.Errorf("acquire %v on %s: %w", n, l.device, ErrNegative)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > l.booked.KVCache {
		return nil, l.tooLarge(n)
	}
	w := l.waiting.push(n, p)
	l.admit()
	return w, nil
}

// abandon ends a wait. A lease that was given in the same moment is released.
func (l *Ledger) abandon(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.ready:
		if w.lease != nil {
			w.lease.release()
		}
	default:
		l.waiting.remove(w)
	}
	l.admit() // those behind w may have their turn now
}

// admit serves waiters in their order for as long as the next one fits. It is
// called after every change that can make room or change who is next.
func (l *Ledger) admit() {
	for w := l.waiting.next(); w != nil && l.fits(w.need); w = l.waiting.next() {
		l.waiting.grant(w)
		w.lease = l.lease(w.need)
		close(w.ready)
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
	return l.reserved.Add(n) <= l.room()
}

// room is what may be reserved in all; negative if more than the pool is missing.
func (l *Ledger) room() Bytes {
	headroom := l.limit.Sub(charge(l.booked, l.measured).Total())
	return l.booked.KVCache.Add(min(headroom, 0))
}

// charge is what each line counts for: the larger of booking and measurement.
func charge(booked, measured Footprint) Footprint {
	return combine(booked, measured, func(a, b Bytes) Bytes { return max(a, b) })
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
