package budget

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// model is the ledger as naively as it can be said: everything is summed up and
// searched anew each time.
type model struct {
	limit            Bytes
	booked, measured [lineCount]Bytes
	leases           []*modelLease
	waiting          []*modelWaiter // in order of arrival
}

type modelLease struct {
	size Bytes
	real *Lease
}

type modelWaiter struct {
	need     Bytes
	priority Priority
	passed   int
	real     *waiter
}

func (m *model) charged() (sum Bytes) {
	for i := range m.booked {
		sum += max(m.booked[i], m.measured[i])
	}
	return sum
}

func (m *model) reserved() (sum Bytes) {
	for _, s := range m.leases {
		sum += s.size
	}
	return sum
}

func (m *model) fits(n Bytes) bool {
	missing := max(m.charged()-m.limit, 0)
	return m.reserved()+n <= m.booked[KVCache]-missing
}

func (m *model) first(p Priority) *modelWaiter {
	for _, w := range m.waiting {
		if w.priority == p {
			return w
		}
	}
	return nil
}

func (m *model) next() *modelWaiter {
	for _, w := range m.waiting { // in order of arrival: the earliest that is starved
		if w == m.first(w.priority) && w.passed >= maxPassed {
			return w
		}
	}
	for _, p := range []Priority{High, Normal, Low} {
		if w := m.first(p); w != nil {
			return w
		}
	}
	return nil
}

func (m *model) drop(w *modelWaiter) {
	m.waiting = slices.DeleteFunc(m.waiting, func(o *modelWaiter) bool { return o == w })
}

// admit grants in the model and checks that the ledger granted the same.
func (m *model) admit(t *testing.T) {
	for w := m.next(); w != nil && m.fits(w.need); w = m.next() {
		m.drop(w)
		for p := Low; p < w.priority; p++ {
			if lower := m.first(p); lower != nil {
				lower.passed++
			}
		}
		require.True(t, granted(w.real), "%v waits though it is its turn", w.need)
		m.leases = append(m.leases, &modelLease{size: w.need, real: w.real.lease})
	}
	for _, w := range m.waiting {
		require.False(t, granted(w.real), "%v went before its turn", w.need)
	}
}

// step runs one operation on both. a and b choose what it is about.
func (m *model) step(t *testing.T, l *Ledger, op, a, b byte) {
	n := Bytes(b)
	var lease *modelLease
	if len(m.leases) > 0 {
		lease = m.leases[int(a)%len(m.leases)]
	}
	switch op % 10 {
	case 0, 1:
		p := Priority(a%3) - 1
		w, err := l.enqueue(n, p)
		require.Equal(t, n > m.booked[KVCache], err != nil)
		if err == nil {
			m.waiting = append(m.waiting, &modelWaiter{need: n, priority: p, real: w})
		}
	case 2:
		s, ok := l.TryAcquire(n)
		require.Equal(t, len(m.waiting) == 0 && m.fits(n), ok)
		if ok {
			m.leases = append(m.leases, &modelLease{size: n, real: s})
		}
	case 3:
		if lease != nil {
			err := lease.real.Grow(n)
			require.Equal(t, m.fits(n) && lease.size+n <= m.booked[KVCache], err == nil)
			if err == nil {
				lease.size += n
			}
		}
	case 4:
		if lease != nil {
			lease.real.Shrink(n)
			lease.size -= min(n, lease.size)
		}
	case 5:
		if lease != nil {
			lease.real.Release()
			m.leases = slices.DeleteFunc(m.leases, func(o *modelLease) bool { return o == lease })
		}
	case 6:
		if len(m.waiting) > 0 {
			w := m.waiting[int(a)%len(m.waiting)]
			l.abandon(w.real)
			m.drop(w)
		}
	case 7:
		m.book(t, l, Line(a%4), n)
	case 8:
		l.SetMeasured(Line(a%4), n)
		m.measured[a%4] = n
	case 9:
		l.SetLimit(4 * n)
		m.limit = 4 * n
	}
}

func (m *model) book(t *testing.T, l *Ledger, line Line, n Bytes) {
	before := m.booked[line]
	m.booked[line] = n
	refused := n > before && m.charged() > m.limit
	err := l.Book(line, n)
	require.Equal(t, refused, err != nil)
	if refused {
		m.booked[line] = before
		return
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(w *modelWaiter) bool {
		if w.need <= m.booked[KVCache] {
			return false
		}
		<-w.real.ready
		require.Error(t, w.real.err)
		return true
	})
}

// FuzzLedger runs operations of three bytes each on a ledger and on the model
// and compares them after each. Fuzz it with -fuzzminimizetime 10x: minimising
// every new input takes most of the time otherwise.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{7, 1, 200, 0, 1, 150, 0, 0, 100, 0, 2, 60, 5, 0, 0, 5, 0, 0})
	f.Add([]byte{7, 1, 200, 2, 0, 200, 9, 0, 20, 4, 0, 150, 0, 1, 40, 9, 0, 100, 3, 0, 9})
	f.Add([]byte{7, 1, 200, 2, 0, 100, 8, 0, 255, 8, 3, 255, 0, 0, 1, 7, 1, 10, 8, 3, 0, 5, 0, 0})
	for seed := range byte(30) { // a long walk each, with many that wait
		walk := []byte{9, 0, 255, 7, 1, 250}
		for i, x := 0, uint32(seed)+1; i < 600; i++ {
			x = x*1664525 + 1013904223
			walk = append(walk, byte(x>>24))
		}
		f.Add(walk)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		l, err := NewLedger("cpu", 1000)
		require.NoError(t, err)
		m := &model{limit: 1000}
		for ; len(ops) >= 3; ops = ops[3:] {
			before := l.Snapshot()
			m.step(t, l, ops[0], ops[1], ops[2])
			m.admit(t)
			compare(t, m, before, l.Snapshot())
		}
		for _, s := range m.leases {
			require.Equal(t, s.size, s.real.Size())
			s.real.Release()
		}
	})
}

func compare(t *testing.T, m *model, before, after Snapshot) {
	var asked Bytes
	for _, w := range m.waiting {
		asked += w.need
	}
	require.Equal(t,
		fmt.Sprintln(m.reserved(), len(m.leases), len(m.waiting), asked, m.limit, m.charged()),
		fmt.Sprintln(after.Reserved, after.Leases, after.Waiting, after.WaitingBytes, after.Limit, after.Charged().Total()))
	require.GreaterOrEqual(t, after.PeakReserved, after.Reserved)
	require.True(t, after.Reserved <= before.Reserved || after.Reserved <= after.Room, "reserved beyond the room")
}
