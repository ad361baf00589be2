package budget

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crowd is many jobs at once on three ledgers whose limits, pools and
// measurements change meanwhile.
type crowd struct {
	group   *Group
	ledgers []*Ledger
	out     [3]atomic.Int64 // what jobs know to have; never more than is reserved
	room    sync.RWMutex    // held for writing where the room changes
	served  atomic.Int64
}

// TestThousandsOfGoroutines has the invariants hold at any time, and nothing
// left behind.
func TestThousandsOfGoroutines(t *testing.T) {
	t.Parallel()
	c := &crowd{}
	c.group, c.ledgers = newGroup(t, 3, 600)
	for _, l := range c.ledgers {
		require.NoError(t, l.Book(Weights, 200))
	}
	stop := make(chan struct{})
	var jobs, others sync.WaitGroup
	others.Go(func() { c.disturb(stop) })
	others.Go(func() { c.watch(t, stop) })
	for i := range 3000 {
		jobs.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 5 {
				c.job(t, random)
			}
		})
	}
	jobs.Wait()
	close(stop)
	others.Wait()

	for i, s := range c.group.Snapshot() {
		require.Zero(t, c.out[i].Load())
		require.Zero(t, s.Reserved)
		require.Zero(t, s.Leases)
		require.Zero(t, s.Waiting)
		require.Zero(t, s.WaitingBytes)
		require.LessOrEqual(t, s.PeakReserved, Bytes(600))
		require.Positive(t, s.PeakReserved)
	}
	require.Positive(t, c.served.Load())
}

// job leases from some ledgers, uses what it got and gives it back.
func (c *crowd) job(t *testing.T, random *rand.Rand) {
	var requests []Request
	var which []int // the ledger of each request
	for _, i := range random.Perm(3)[:1+random.IntN(3)] {
		requests = append(requests, Request{c.ledgers[i], Bytes(random.IntN(300))})
		which = append(which, i)
	}
	leases, err := c.acquire(random, requests)
	var tooLarge *TooLargeError
	switch {
	case errors.As(err, &tooLarge), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrNoRoom):
		return
	case err != nil:
		t.Error(err)
		return
	}
	c.served.Add(1)
	for i, s := range leases {
		out := &c.out[which[i]]
		if s.Size() != requests[i].Bytes {
			t.Errorf("asked for %v, got %v", requests[i].Bytes, s.Size())
		}
		out.Add(int64(s.Size()))
		if more := Bytes(random.IntN(50)); s.Grow(more) == nil {
			out.Add(int64(more))
		}
		less := min(Bytes(random.IntN(50)), s.Size())
		out.Add(-int64(less))
		s.Shrink(less)
	}
	for i, s := range leases {
		c.out[which[i]].Add(-int64(s.Size()))
		s.Release()
	}
}

// acquire tries, waits, or waits for a moment only.
func (c *crowd) acquire(random *rand.Rand, requests []Request) ([]*Lease, error) {
	p := Priority(random.IntN(3) - 1)
	switch random.IntN(8) {
	case 0:
		leases, ok := c.group.TryAcquire(requests...)
		if !ok {
			return nil, ErrNoRoom
		}
		return leases, nil
	case 1, 2:
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(20))*time.Millisecond)
		defer cancel()
		return c.group.Acquire(ctx, p, requests...)
	}
	return c.group.Acquire(context.Background(), p, requests...)
}

// disturb changes what room there is until stop.
func (c *crowd) disturb(stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(7, 7))
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		l := c.ledgers[random.IntN(3)]
		c.room.Lock()
		switch random.IntN(3) {
		case 0:
			l.SetLimit(Bytes(600 + random.IntN(400)))
		case 1:
			most := [lineCount]int{300, 600, 60, 60}
			line := Line(random.IntN(len(most)))
			l.SetMeasured(line, Bytes(random.IntN(most[line])))
		case 2:
			_ = l.Book(KVCache, Bytes(250+random.IntN(350))) // refused now and then
		}
		c.room.Unlock()
	}
}

// watch checks the invariants until stop.
func (c *crowd) watch(t *testing.T, stop <-chan struct{}) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		c.room.RLock()
		before := c.group.Snapshot()
		c.checkMoment(t)
		runtime.Gosched()
		after := c.group.Snapshot()
		c.room.RUnlock()
		for i, s := range after {
			if s.Reserved > before[i].Reserved && s.Reserved > s.Room {
				t.Errorf("%s: reserved rose from %v to %v, the room is %v", s.Device, before[i].Reserved, s.Reserved, s.Room)
			}
			if s.Reserved < 0 || s.Leases < 0 || s.Waiting < 0 || s.WaitingBytes < 0 || s.PeakReserved < s.Reserved ||
				(s.Leases == 0 && s.Reserved != 0) || s.Held < 0 || (s.Pressure == Act) != (s.Held > s.Limit.Scale(0.95)) {
				t.Errorf("%+v", s)
			}
		}
	}
}

// checkMoment holds the group still and compares it with the model: the books of
// the queues are right, and nobody waits who could be served.
func (c *crowd) checkMoment(t *testing.T) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	m := &model{}
	byReal := map[*waiter]*modelWaiter{}
	for i, l := range c.ledgers {
		if out := Bytes(c.out[i].Load()); out > l.reserved {
			t.Errorf("%s: %v are out, %v are reserved", l.device, out, l.reserved)
		}
		b, f := l.booked, l.measured
		ml := &modelLedger{
			real: l, limit: l.limit,
			booked:   [lineCount]Bytes{b.Weights, b.KVCache, b.ParallelBatch, b.Overhead},
			measured: [lineCount]Bytes{f.Weights, f.KVCache, f.ParallelBatch, f.Overhead},
		}
		m.ledgers = append(m.ledgers, ml)
		m.leases = append(m.leases, &modelLease{ledger: ml, size: l.reserved})
		var count int
		var bytes Bytes
		for _, p := range l.waiting.over(-1) { // everybody
			count++
			bytes += p.Bytes
			w := byReal[p.waiter]
			if w == nil {
				w = &modelWaiter{priority: p.waiter.priority, arrival: p.waiter.arrival, passed: p.waiter.passed}
				byReal[p.waiter] = w
				m.waiting = append(m.waiting, w)
			}
			w.requests = append(w.requests, p.Request)
		}
		if count != l.waiting.count || bytes != l.waiting.bytes {
			t.Errorf("%s: %d wait for %v, counted as %d for %v", l.device, count, bytes, l.waiting.count, l.waiting.bytes)
		}
	}
	for real, w := range byReal {
		if len(w.requests) != len(real.places) {
			t.Errorf("a waiter for %d ledgers stands in the queues of %v", len(real.places), w.requests)
		}
	}
	if w := m.next(); w != nil {
		t.Errorf("%v waits though it is its turn", w.requests)
	}
}
