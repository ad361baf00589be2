package budget

import "container/list"

// Priority orders those who wait for memory. The zero value is Normal.
type Priority int

// Priorities, the least urgent first. A value beyond them counts as the nearest.
const (
	Low    Priority = -1
	Normal Priority = 0
	High   Priority = 1
)

const priorityCount = int(High-Low) + 1

// maxPassed is how often the first waiter of a priority sees others of a higher
// one go before it. Then it is next, whatever arrives: eight urgent jobs are a
// short wait, and a ninth of the grants is enough for progress.
const maxPassed = 8

// waiter is one Acquire that waits. Its fields belong to the ledger's lock
// until ready is closed; then lease and err are final.
type waiter struct {
	need     Bytes
	priority Priority
	arrival  uint64 // counts up over all waiters of a ledger
	passed   int    // grants to higher priorities while this was the first of its own
	place    *list.Element

	ready chan struct{} // closed when lease or err is set
	lease *Lease
	err   error
}

// waiters is who waits, in order:
//
//   - inside a priority, first come first served;
//   - between priorities the higher goes first, unless the first waiter of a
//     lower one has been passed over maxPassed times: then that one is next (of
//     two such, the earlier one);
//   - nobody goes before the one that is next, even if it does not fit and a
//     smaller one behind it would. So a large request is served as soon as
//     enough has been released.
//
// It is guarded by the ledger's lock.
type waiters struct {
	queues   [priorityCount]list.List // by Priority - Low
	arrivals uint64
	count    int
	bytes    Bytes
}

// push appends a new waiter to the queue of its priority.
func (q *waiters) push(need Bytes, p Priority) *waiter {
	p = min(max(p, Low), High)
	w := &waiter{need: need, priority: p, arrival: q.arrivals, ready: make(chan struct{})}
	q.arrivals++
	q.count++
	q.bytes = q.bytes.Add(need)
	w.place = q.queues[p-Low].PushBack(w)
	return w
}

// remove takes w out of its queue, wherever in it w stands.
func (q *waiters) remove(w *waiter) {
	q.queues[w.priority-Low].Remove(w.place)
	q.count--
	q.bytes = q.bytes.Sub(w.need)
}

// first returns the first waiter of a priority, nil if there is none.
func (q *waiters) first(p Priority) *waiter {
	if front := q.queues[p-Low].Front(); front != nil {
		return front.Value.(*waiter)
	}
	return nil
}

// next returns who is to be served next, nil if nobody waits.
func (q *waiters) next() *waiter {
	var best, starved *waiter
	for p := High; p >= Low; p-- {
		w := q.first(p)
		if w == nil {
			continue
		}
		if best == nil {
			best = w
		}
		if w.passed >= maxPassed && (starved == nil || w.arrival < starved.arrival) {
			starved = w
		}
	}
	if starved != nil {
		return starved
	}
	return best
}

// grant takes w out and notes that the lower priorities were passed over.
func (q *waiters) grant(w *waiter) {
	q.remove(w)
	for p := Low; p < w.priority; p++ {
		if lower := q.first(p); lower != nil {
			lower.passed++
		}
	}
}

// removeOver takes out and returns all who need more than capacity.
func (q *waiters) removeOver(capacity Bytes) []*waiter {
	var over []*waiter
	for i := range q.queues {
		for e := q.queues[i].Front(); e != nil; e = e.Next() {
			if w := e.Value.(*waiter); w.need > capacity {
				over = append(over, w)
			}
		}
	}
	for _, w := range over {
		q.remove(w)
	}
	return over
}
