package budget

import (
	"cmp"
	"slices"
)

// model is a group as naively as it can be said: everything is summed up, sorted
// and searched anew each time.
type model struct {
	ledgers  []*modelLedger
	leases   []*modelLease
	waiting  []*modelWaiter
	arrivals uint64
}

type modelLedger struct {
	real             *Ledger
	limit            Bytes
	booked, measured [lineCount]Bytes
	peak             Bytes
}

type modelLease struct {
	ledger *modelLedger
	size   Bytes
	real   *Lease
}

type modelWaiter struct {
	requests []Request
	priority Priority
	arrival  uint64
	passed   int
	real     *waiter
}

func (l *modelLedger) charged() (sum Bytes) {
	for i := range l.booked {
		sum += max(l.booked[i], l.measured[i])
	}
	return sum
}

func (l *modelLedger) held() (sum Bytes) {
	for i := range l.booked {
		if l.measured[i] > 0 {
			sum += l.measured[i]
		} else {
			sum += l.booked[i]
		}
	}
	return sum
}

func (l *modelLedger) room() Bytes {
	return l.booked[KVCache] - max(l.charged()-l.limit, 0)
}

func (l *modelLedger) pressure() Level {
	switch limit := float64(l.limit); {
	case l.held() > Bytes(limit*0.95):
		return Act
	case l.held() > Bytes(limit*0.85):
		return Warn
	}
	return OK
}

// of returns the ledger that r asks.
func (m *model) of(r Request) *modelLedger {
	i := slices.IndexFunc(m.ledgers, func(l *modelLedger) bool { return l.real == r.Ledger })
	return m.ledgers[i]
}

func (m *model) reserved(l *modelLedger) (sum Bytes) {
	for _, s := range m.leases {
		if s.ledger == l {
			sum += s.size
		}
	}
	return sum
}

func (m *model) available(l *modelLedger) Bytes {
	return l.room() - m.reserved(l)
}

func (m *model) fits(requests []Request) bool {
	for _, r := range requests {
		if r.Bytes > m.available(m.of(r)) {
			return false
		}
	}
	return true
}

// free reports whether requests fit and nobody waits for the same.
func (m *model) free(requests []Request) bool {
	for _, w := range m.waiting {
		if shares(w.requests, requests) {
			return false
		}
	}
	return m.fits(requests)
}

// shares reports whether a and b ask a ledger that is the same.
func shares(a, b []Request) bool {
	for _, r := range a {
		for _, o := range b {
			if r.Ledger == o.Ledger {
				return true
			}
		}
	}
	return false
}

// needs is what w asks of a ledger.
func (w *modelWaiter) needs(l *Ledger) Bytes {
	for _, r := range w.requests {
		if r.Ledger == l {
			return r.Bytes
		}
	}
	return 0
}

func (m *model) lease(requests []Request, leases []*Lease) {
	for i, r := range requests {
		m.leases = append(m.leases, &modelLease{ledger: m.of(r), size: r.Bytes, real: leases[i]})
	}
	m.notePeaks()
}

func (m *model) notePeaks() {
	for _, l := range m.ledgers {
		l.peak = max(l.peak, m.reserved(l))
	}
}

func (m *model) drop(w *modelWaiter) {
	m.waiting = slices.DeleteFunc(m.waiting, func(o *modelWaiter) bool { return o == w })
}

// next returns the first in the order that fits and has nobody before it who
// waits for one of the same ledgers.
func (m *model) next() *modelWaiter {
	var before []Request // what those before w wait for
	for _, w := range slices.SortedFunc(slices.Values(m.waiting), byOrder) {
		if !shares(before, w.requests) && m.fits(w.requests) {
			return w
		}
		for _, r := range w.requests {
			if !shares(before, []Request{r}) {
				before = append(before, r)
			}
		}
	}
	return nil
}

// byOrder sorts as [Group] says.
func byOrder(a, b *modelWaiter) int {
	aStarves, bStarves := a.passed >= 8, b.passed >= 8
	switch {
	case aStarves && bStarves:
		return cmp.Compare(a.arrival, b.arrival)
	case aStarves:
		return -1
	case bStarves:
		return 1
	}
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.arrival, b.arrival))
}

// passOver counts for all whom a grant to w passes over.
func (m *model) passOver(w *modelWaiter) {
	for _, o := range m.waiting {
		isFirst := !slices.ContainsFunc(m.waiting, func(e *modelWaiter) bool {
			return e.priority == o.priority && e.arrival < o.arrival && shares(e.requests, o.requests)
		})
		if o != w && isFirst && shares(o.requests, w.requests) && (o.priority < w.priority || len(w.requests) > 1) {
			o.passed++
		}
	}
}

// snapshot is what l should say of itself.
func (m *model) snapshot(l *modelLedger) Snapshot {
	footprint := func(f [lineCount]Bytes) Footprint { return Footprint{f[0], f[1], f[2], f[3]} }
	s := Snapshot{
		Device:       l.real.device,
		Limit:        l.limit,
		Booked:       footprint(l.booked),
		Measured:     footprint(l.measured),
		Held:         l.held(),
		Pressure:     l.pressure(),
		Room:         l.room(),
		Reserved:     m.reserved(l),
		PeakReserved: l.peak,
	}
	for _, lease := range m.leases {
		if lease.ledger == l {
			s.Leases++
		}
	}
	for _, w := range m.waiting {
		if slices.ContainsFunc(w.requests, func(r Request) bool { return r.Ledger == l.real }) {
			s.Waiting++
			s.WaitingBytes += w.needs(l.real)
		}
	}
	return s
}
