package budget

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzLedger runs operations of three bytes each on a group of one to three
// ledgers and on the model, and compares them after each. Fuzz it with
// -fuzzminimizetime 10x: minimising every new input takes most of the time
// otherwise.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{0, 7, 1, 200, 0, 1, 150, 0, 0, 100, 0, 2, 60, 5, 0, 0, 5, 0, 0})
	f.Add([]byte{0, 7, 1, 200, 2, 0, 200, 9, 0, 20, 4, 0, 150, 0, 1, 40, 9, 0, 100, 3, 0, 9})
	f.Add([]byte{0, 7, 1, 200, 2, 0, 100, 8, 0, 255, 8, 3, 255, 0, 0, 1, 7, 1, 10, 8, 3, 0, 5, 0, 0})
	f.Add([]byte{1, 7, 1, 200, 7, 5, 200, 2, 1, 200, 0, 8, 77, 0, 136, 80, 0, 1, 9, 0, 5, 9, 5, 0, 0, 7, 5, 20, 6, 0, 0})
	for seed := range byte(30) { // a long walk each, with many that wait
		walk := []byte{seed, 9, 0, 255, 9, 1, 255, 9, 2, 255, 7, 1, 250, 7, 5, 250, 7, 9, 250}
		for i, x := 0, uint32(seed)+1; i < 600; i++ {
			x = x*1664525 + 1013904223
			walk = append(walk, byte(x>>24))
		}
		f.Add(walk)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) == 0 {
			return
		}
		g, m := NewGroup(), &model{}
		for i := range 1 + int(ops[0])%3 {
			l, err := g.NewLedger([]string{"gpu0", "gpu1", "host"}[i], 1000)
			require.NoError(t, err)
			m.ledgers = append(m.ledgers, &modelLedger{real: l, limit: 1000})
		}
		for ops = ops[1:]; len(ops) >= 3; ops = ops[3:] {
			before := g.Snapshot()
			m.step(t, g, ops[0], ops[1], ops[2])
			m.checkGrants(t)
			m.checkLedgers(t, before, g.Snapshot())
			m.checkQuestions(t, Bytes(ops[1])+Bytes(ops[2]))
		}
	})
}

// step runs one operation on both. a and b choose what it is about.
func (m *model) step(t *testing.T, g *Group, op, a, b byte) {
	n := Bytes(b)
	switch op % 10 {
	case 0, 1:
		m.enqueue(t, g, Priority(a%3)-1, m.requests(a/3, b))
	case 2:
		m.tryAcquire(t, g, m.requests(a, b))
	case 3, 4, 5:
		if len(m.leases) > 0 {
			m.change(t, m.leases[int(a)%len(m.leases)], op%10, n)
		}
	case 6:
		if len(m.waiting) > 0 {
			w := m.waiting[int(a)%len(m.waiting)]
			g.abandon(w.real)
			m.drop(w)
		}
	case 7:
		m.book(t, m.ledgers[int(a/4)%len(m.ledgers)], Line(a%4), n)
	case 8:
		l := m.ledgers[int(a/4)%len(m.ledgers)]
		l.real.SetMeasured(Line(a%4), n)
		l.measured[a%4] = n
	case 9:
		l := m.ledgers[int(a)%len(m.ledgers)]
		l.real.SetLimit(4 * n)
		l.limit = 4 * n
	}
}

// requests asks one to all ledgers, for different amounts and in either order.
func (m *model) requests(which, n byte) (requests []Request) {
	set := 1 + int(which)%(1<<len(m.ledgers)-1)
	for i, l := range m.ledgers {
		if set&(1<<i) != 0 {
			requests = append(requests, Request{l.real, Bytes(bits.RotateLeft8(n, 3*i))})
		}
	}
	if which%2 == 1 {
		slices.Reverse(requests)
	}
	return requests
}

func (m *model) enqueue(t *testing.T, g *Group, p Priority, requests []Request) {
	leases, w, err := g.enqueue(p, requests)
	if slices.ContainsFunc(requests, func(r Request) bool { return r.Bytes > m.of(r).booked[KVCache] }) {
		require.Error(t, err)
		return
	}
	require.NoError(t, err)
	if w == nil {
		require.True(t, m.free(requests), "given at once, though it was not its turn")
		m.lease(requests, leases)
		return
	}
	require.False(t, m.free(requests), "not given at once")
	m.arrivals++
	m.waiting = append(m.waiting, &modelWaiter{requests: requests, priority: p, arrival: m.arrivals, real: w})
}

func (m *model) tryAcquire(t *testing.T, g *Group, requests []Request) {
	leases, ok := g.TryAcquire(requests...)
	require.Equal(t, m.free(requests), ok)
	if ok {
		m.lease(requests, leases)
	}
}

// change grows, shrinks or releases a lease.
func (m *model) change(t *testing.T, s *modelLease, op byte, n Bytes) {
	switch op {
	case 3:
		err := s.real.Grow(n)
		require.Equal(t, n <= m.available(s.ledger) && s.size+n <= s.ledger.booked[KVCache], err == nil)
		if err == nil {
			s.size += n
			m.notePeaks()
		}
	case 4:
		s.real.Shrink(n)
		s.size -= min(n, s.size)
	case 5:
		s.real.Release()
		m.leases = slices.DeleteFunc(m.leases, func(o *modelLease) bool { return o == s })
	}
}

func (m *model) book(t *testing.T, l *modelLedger, line Line, n Bytes) {
	before := l.booked[line]
	l.booked[line] = n
	refused := n > before && l.charged() > l.limit
	err := l.real.Book(line, n)
	require.Equal(t, refused, err != nil)
	if refused {
		l.booked[line] = before
		return
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(w *modelWaiter) bool {
		need := w.needs(l.real)
		if need <= l.booked[KVCache] {
			return false
		}
		<-w.real.ready
		var tooLarge *TooLargeError
		require.ErrorAs(t, w.real.err, &tooLarge)
		require.Equal(t, need, tooLarge.Need)
		return true
	})
}

// checkGrants serves in the model and checks that the group served the same.
func (m *model) checkGrants(t *testing.T) {
	for w := m.next(); w != nil; w = m.next() {
		m.passOver(w)
		m.drop(w)
		require.True(t, granted(w.real), "%v waits though it is its turn", w.requests)
		leases, err := w.real.result()
		require.NoError(t, err)
		m.lease(w.requests, leases)
	}
	for _, w := range m.waiting {
		require.False(t, granted(w.real), "%v went before its turn", w.requests)
		same(t, w.passed, w.real.passed)
	}
}

// checkLedgers compares all that can be seen, and leases one by one.
func (m *model) checkLedgers(t *testing.T, before, after []Snapshot) {
	for i, l := range m.ledgers {
		same(t, m.snapshot(l), after[i])
		same(t, true, after[i].Reserved <= before[i].Reserved || after[i].Reserved <= after[i].Room)
	}
	for _, s := range m.leases {
		same(t, s.size, s.real.Size())
	}
}

func (m *model) checkQuestions(t *testing.T, n Bytes) {
	for _, l := range m.ledgers {
		free := m.available(l)
		same(t, free, l.real.Available())
		same(t, max(n-free, 0), l.real.Shortfall(n))
		same(t, l.real.Pressure() == Act, l.held() > Bytes(float64(l.limit)*0.95))
	}
}

// same is require.Equal without its cost where all is well.
func same[T comparable](t *testing.T, want, got T) {
	if want != got {
		t.Helper()
		require.Equal(t, want, got)
	}
}
