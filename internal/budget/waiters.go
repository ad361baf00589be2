package budget

import "slices"

// Priority orders those who wait for memory. The zero value is Normal.
type Priority int

// Priorities, the least urgent first. A value beyond them counts as the nearest.
const (
	Low    Priority = -1
	Normal Priority = 0
	High   Priority = 1
)

const priorityCount = int(High-Low) + 1

// maxPassed is how often a waiter is passed over ([Group]) before it is starved
// and goes next, whatever arrives: eight urgent jobs are a short wait, and a
// ninth of the grants is enough for progress.
const maxPassed = 8

// waiter is one Acquire that waits. Its fields belong to the group's lock until
// ready is closed; then they are final.
type waiter struct {
	places   []place // one for each request
	priority Priority
	arrival  uint64 // counts up over all waiters of a group
	passed   int    // how often it was passed over

	ready chan struct{} // closed when the leases or err are set
	err   error
}

// place is where a waiter stands in the queue of one of its ledgers.
type place struct {
	Request
	lease      *Lease // nil while it waits
	waiter     *waiter
	prev, next *place
}

func newWaiter(arrival uint64, p Priority, requests []Request) *waiter {
	w := &waiter{
		places:   make([]place, len(requests)),
		priority: min(max(p, Low), High),
		arrival:  arrival,
		ready:    make(chan struct{}),
	}
	for i, r := range requests {
		w.places[i] = place{Request: r, waiter: w}
	}
	return w
}

// starved reports whether w goes before all who came later.
func (w *waiter) starved() bool {
	return w.passed >= maxPassed
}

// before is the order of those who wait; see [Group].
func (w *waiter) before(o *waiter) bool {
	switch {
	case w.starved() != o.starved():
		return w.starved()
	case !w.starved() && w.priority != o.priority:
		return w.priority > o.priority
	}
	return w.arrival < o.arrival
}

// enter appends w to the queues of all its ledgers.
func (w *waiter) enter() {
	for i := range w.places {
		w.places[i].Ledger.waiting.push(&w.places[i])
	}
}

// leave takes w out of its queues, wherever in them it stands.
func (w *waiter) leave() {
	for i := range w.places {
		w.places[i].Ledger.waiting.remove(&w.places[i])
	}
}

// isNext reports whether nobody before w waits for one of its ledgers.
func (w *waiter) isNext() bool {
	for i := range w.places {
		if w.places[i].Ledger.waiting.next() != w {
			return false
		}
	}
	return true
}

// isFirst is isNext among those of w's priority. Once it is so, it stays so.
func (w *waiter) isFirst() bool {
	for i := range w.places {
		if w.places[i].Ledger.waiting.first(w.priority) != w {
			return false
		}
	}
	return true
}

// fits reports whether all that w asks for is free.
func (w *waiter) fits() bool {
	for i := range w.places {
		if p := &w.places[i]; !p.Ledger.fits(p.Bytes) {
			return false
		}
	}
	return true
}

// serve gives w its leases, which must fit.
func (w *waiter) serve() {
	for i := range w.places {
		p := &w.places[i]
		p.lease = p.Ledger.lease(p.Bytes)
	}
	close(w.ready)
}

// result is what the wait came to. w must be ready.
func (w *waiter) result() ([]*Lease, error) {
	if w.err != nil {
		return nil, w.err
	}
	leases := make([]*Lease, len(w.places))
	for i := range w.places {
		leases[i] = w.places[i].lease
	}
	return leases, nil
}

// passOver notes who is passed over when w, which still waits, is served.
func (w *waiter) passOver() {
	highest := w.priority - 1
	if len(w.places) > 1 {
		highest = High
	}
	var passed []*waiter // one that shares two ledgers with w is passed over once
	for i := range w.places {
		for p := Low; p <= highest; p++ {
			o := w.places[i].Ledger.waiting.first(p)
			if o != nil && o != w && o.isFirst() && !slices.Contains(passed, o) {
				o.passed++
				passed = append(passed, o)
			}
		}
	}
}

// waiters is who waits for one ledger: its part of the group's order. Guarded by
// the group's lock.
type waiters struct {
	queues [priorityCount]fifo // by Priority - Low
	count  int
	bytes  Bytes
}

// fifo is the places of one priority by arrival, linked to each other, so that
// the one who waits brings all the memory that its waiting takes.
type fifo struct {
	first, last *place
}

// push appends p to the queue of its priority.
func (q *waiters) push(p *place) {
	q.count++
	q.bytes = q.bytes.Add(p.Bytes)
	line := &q.queues[p.waiter.priority-Low]
	if p.prev = line.last; p.prev == nil {
		line.first = p
	} else {
		p.prev.next = p
	}
	line.last = p
}

// remove undoes a push.
func (q *waiters) remove(p *place) {
	q.count--
	q.bytes = q.bytes.Sub(p.Bytes)
	line := &q.queues[p.waiter.priority-Low]
	if p.prev == nil {
		line.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		line.last = p.prev
	} else {
		p.next.prev = p.prev
	}
}

// first returns the first waiter of a priority, nil if there is none.
func (q *waiters) first(p Priority) *waiter {
	if first := q.queues[p-Low].first; first != nil {
		return first.waiter
	}
	return nil
}

// next returns the first in the order, nil if nobody waits. It is the first of a
// priority, because only these can be starved.
func (q *waiters) next() *waiter {
	var next *waiter
	for p := High; p >= Low; p-- {
		if w := q.first(p); w != nil && (next == nil || w.before(next)) {
			next = w
		}
	}
	return next
}

// over returns all places that ask for more than capacity.
func (q *waiters) over(capacity Bytes) []*place {
	var over []*place
	for i := range q.queues {
		for p := q.queues[i].first; p != nil; p = p.next {
			if p.Bytes > capacity {
				over = append(over, p)
			}
		}
	}
	return over
}
