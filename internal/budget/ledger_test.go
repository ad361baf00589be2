package budget

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newPool returns a ledger of 1000 bytes with a pool of that size.
func newPool(t *testing.T, pool Bytes) *Ledger {
	t.Helper()
	l, err := NewLedger("cpu", 1000)
	require.NoError(t, err)
	require.NoError(t, l.Book(KVCache, pool))
	return l
}

func acquire(t *testing.T, l *Ledger, n Bytes) *Lease {
	t.Helper()
	s, ok := l.TryAcquire(n)
	require.True(t, ok, "acquire %v", n)
	return s
}

// enqueue lines up for n bytes without waiting for them.
func enqueue(t *testing.T, l *Ledger, n Bytes, p Priority) *waiter {
	t.Helper()
	return enqueueAll(t, p, Request{l, n})
}

// enqueueAll is enqueue for several ledgers. A request that is met at once gets
// a waiter too, which is ready.
func enqueueAll(t *testing.T, p Priority, requests ...Request) *waiter {
	t.Helper()
	leases, w, err := requests[0].Ledger.group.enqueue(p, requests)
	require.NoError(t, err)
	if w == nil {
		w = newWaiter(0, p, requests)
		for i, s := range leases {
			w.places[i].lease = s
		}
		close(w.ready)
	}
	return w
}

// granted reports whether w has its leases.
func granted(w *waiter) bool {
	select {
	case <-w.ready:
		return w.err == nil
	default:
		return false
	}
}

// lease is what w was given by its first ledger.
func (w *waiter) lease() *Lease {
	return w.places[0].lease
}

func hint(t *testing.T, err error) string {
	t.Helper()
	var h interface{ Hint() string }
	require.ErrorAs(t, err, &h)
	return h.Hint()
}

func TestNewLedgerLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []Bytes{0, -1} {
		_, err := NewLedger("cpu", limit)
		require.ErrorContains(t, err, "must be over 0")
		require.Contains(t, hint(t, err), "--max-memory-gb")
	}
}

func TestBook(t *testing.T) {
	t.Parallel()
	l, err := NewLedger("cpu", GiB)
	require.NoError(t, err)
	require.NoError(t, l.Book(Weights, 600*MiB))
	require.NoError(t, l.Book(Overhead, 24*MiB))
	require.NoError(t, l.Book(KVCache, 400*MiB), "up to the limit")

	err = l.Book(KVCache, 500*MiB)
	var tooLarge *TooLargeError
	require.ErrorAs(t, err, &tooLarge)
	require.Equal(t, 500*MiB, tooLarge.Need)
	require.Equal(t, 400*MiB, tooLarge.Capacity)
	require.Equal(t, "no room for kv_cache on cpu: 500 MiB needed, at most 400 MiB can be had", err.Error())
	require.Equal(t, "raise --max-memory-gb to at least 1.10, if the device has it", tooLarge.Hint())
	require.Equal(t, 400*MiB, l.Snapshot().Booked.KVCache, "a refused booking changes nothing")

	require.ErrorAs(t, l.Book(KVCache, maxBytes), &tooLarge)
	require.Equal(t, 400*MiB, tooLarge.Capacity, "even if the sum is beyond counting")

	require.NoError(t, l.Book(Weights, 500*MiB), "replaces")
	require.NoError(t, l.Book(KVCache, 500*MiB))
	require.Equal(t, Footprint{Weights: 500 * MiB, KVCache: 500 * MiB, Overhead: 24 * MiB}, l.Snapshot().Booked)
	require.ErrorIs(t, l.Book(Weights, -1), ErrNegative)
	require.ErrorContains(t, l.Book(Line(9), 1), "there is no line 9")
}

func TestMeasuredBeyondLimit(t *testing.T) {
	t.Parallel()
	l := newPool(t, 500)
	require.NoError(t, l.Book(Weights, 400))
	s := acquire(t, l, 300)

	l.SetMeasured(Weights, 300)
	require.Equal(t, Footprint{Weights: 400, KVCache: 500}, l.Snapshot().Charged(), "less than booked: the booking counts")
	l.SetMeasured(Weights, 800)
	snap := l.Snapshot()
	require.Equal(t, Bytes(200), snap.Room)
	require.Equal(t, Bytes(300), snap.Reserved, "more than the room")
	require.Equal(t, Footprint{Weights: 800, KVCache: 500}, snap.Charged())

	_, ok := l.TryAcquire(0)
	require.False(t, ok, "nothing is reserved while the leases do not fit")
	require.ErrorIs(t, s.Grow(1), ErrNoRoom)
	require.NoError(t, l.Book(KVCache, 400), "booking less is never refused")
	l.SetMeasured(Weights, -5) // forgotten
	l.SetMeasured(Line(9), 5)
	require.NoError(t, s.Grow(100))
	require.Equal(t, Footprint{}, l.Snapshot().Measured)
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	l := newPool(t, 500)
	_, err := l.Acquire(t.Context(), 501, Normal)
	var tooLarge *TooLargeError
	require.ErrorAs(t, err, &tooLarge)
	require.Equal(t, Bytes(501), tooLarge.Need)
	require.Equal(t, Bytes(500), tooLarge.Capacity)
	require.Contains(t, tooLarge.Hint(), "max_tokens")
	require.Contains(t, tooLarge.Hint(), "--max-memory-gb")

	s := acquire(t, l, 400)
	require.ErrorAs(t, s.Grow(101), &tooLarge)
	require.NoError(t, s.Grow(100))

	e := &TooLargeError{What: "x", Need: GiB + 1, Capacity: GiB}
	require.Equal(t, "no room for x: 1073741825 bytes needed, at most 1073741824 bytes can be had", e.Error())
}

func TestLoweredPoolFailsWaiters(t *testing.T) {
	t.Parallel()
	l := newPool(t, 500)
	s := acquire(t, l, 500)
	large, small := enqueue(t, l, 400, Normal), enqueue(t, l, 100, Normal)
	require.NoError(t, l.Book(KVCache, 200))
	<-large.ready
	var tooLarge *TooLargeError
	require.ErrorAs(t, large.err, &tooLarge)
	require.False(t, granted(small))
	require.Equal(t, 1, l.Snapshot().Waiting)
	s.Shrink(399)
	require.False(t, granted(small), "101 + 100 do not fit into 200")
	s.Shrink(1)
	require.True(t, granted(small))
}

// TestShrunkLimit has others take memory under leases that exist: these stay,
// nothing is given until what is left fits, and then in order.
func TestShrunkLimit(t *testing.T) {
	t.Parallel()
	l := newPool(t, 1000)
	a, b := acquire(t, l, 400), acquire(t, l, 400)
	low, high, last := enqueue(t, l, 250, Low), enqueue(t, l, 300, High), enqueue(t, l, 400, Low)
	l.SetLimit(500)
	snap := l.Snapshot()
	require.Equal(t, Bytes(500), snap.Room)
	require.Equal(t, Bytes(800), snap.Reserved, "leases stay")
	require.Equal(t, Bytes(-300), l.Available())
	require.Equal(t, Bytes(301), l.Shortfall(1))
	require.ErrorIs(t, a.Grow(0), ErrNoRoom)
	a.Release()
	require.False(t, granted(high), "400 + 300 do not fit into 500")
	b.Shrink(200)
	require.True(t, granted(high))
	require.False(t, granted(low))
	b.Release()
	require.False(t, granted(low), "300 + 250")
	high.lease().Shrink(50)
	require.True(t, granted(low))

	l.SetLimit(-1)
	require.Zero(t, l.Snapshot().Limit)
	high.lease().Release()
	low.lease().Release()
	require.False(t, granted(last), "nobody is failed by a limit")
	l.SetLimit(400)
	require.True(t, granted(last))
}

func TestLease(t *testing.T) {
	t.Parallel()
	l := newPool(t, 500)
	s := acquire(t, l, 100)
	require.NoError(t, s.Grow(200))
	s.Shrink(250)
	s.Shrink(-1)
	require.Equal(t, Bytes(50), s.Size())
	require.Equal(t, Bytes(300), s.Peak())
	require.ErrorIs(t, s.Grow(-1), ErrNegative)
	snap := l.Snapshot()
	require.Equal(t, Bytes(50), snap.Reserved)
	require.Equal(t, Bytes(300), snap.PeakReserved)
	require.Equal(t, 1, snap.Leases)

	s.Release()
	s.Release()
	s.Shrink(10)
	require.Zero(t, s.Size())
	require.Equal(t, Bytes(300), s.Peak())
	require.ErrorIs(t, s.Grow(1), ErrReleased)
	snap = l.Snapshot()
	require.Zero(t, snap.Reserved)
	require.Zero(t, snap.Leases)

	acquire(t, l, 10).Shrink(maxBytes)
	require.Zero(t, l.Snapshot().Reserved, "at most all there is")
	_, ok := l.TryAcquire(-1)
	require.False(t, ok)
	_, err := l.Acquire(t.Context(), -1, Normal)
	require.ErrorIs(t, err, ErrNegative)
}

func TestOrder(t *testing.T) {
	t.Parallel()
	l := newPool(t, 100)
	s := acquire(t, l, 100)
	low, normal := enqueue(t, l, 10, Low), enqueue(t, l, 100, Normal)
	high1, high2 := enqueue(t, l, 60, High+5), enqueue(t, l, 60, High)
	require.Equal(t, Bytes(230), l.Snapshot().WaitingBytes)

	s.Shrink(50)
	require.False(t, granted(low), "nobody goes before the one that is next, even where it would fit")
	_, ok := l.TryAcquire(10)
	require.False(t, ok, "nor does TryAcquire")
	require.NoError(t, s.Grow(20), "but a running job may grow")

	s.Release()
	require.True(t, granted(high1))
	require.False(t, granted(high2))
	high1.lease().Release()
	require.True(t, granted(high2))
	require.False(t, granted(normal))
	high2.lease().Release()
	require.True(t, granted(normal))
	require.False(t, granted(low))
	normal.lease().Release()
	require.True(t, granted(low))
}

// TestNoStarvation has an urgent request more at every step, and room for one:
// those of lower priority go after maxPassed of them, the earlier one first.
func TestNoStarvation(t *testing.T) {
	t.Parallel()
	l := newPool(t, 100)
	running := acquire(t, l, 100)
	waiting := []*waiter{enqueue(t, l, 100, Low), enqueue(t, l, 100, Normal), enqueue(t, l, 100, Low)}
	var order []Priority
	for range 3*maxPassed + 2 {
		waiting = append(waiting, enqueue(t, l, 100, High))
		running.Release()
		next := slices.IndexFunc(waiting, granted)
		require.GreaterOrEqual(t, next, 0)
		order = append(order, waiting[next].priority)
		running = waiting[next].lease()
		waiting = slices.Delete(waiting, next, next+1)
	}
	highs := func(n int) []Priority { return slices.Repeat([]Priority{High}, n) }
	want := slices.Concat(highs(maxPassed), []Priority{Low, Normal},
		highs(maxPassed-1), []Priority{Low}, highs(maxPassed))
	require.Equal(t, want, order, "the second low one was passed over by normal too")
}

func TestAcquireEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPool(t, 100)
		s := acquire(t, l, 50)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		failed := make(chan error)
		go func() {
			_, err := l.Acquire(ctx, 100, High)
			failed <- err
		}()
		synctest.Wait()
		behind := enqueue(t, l, 50, Low)
		require.False(t, granted(behind))
		err := <-failed
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "wait for 100 B on cpu")
		require.True(t, granted(behind), "those behind have their turn")

		_, err = l.Acquire(ctx, 0, Normal)
		require.ErrorIs(t, err, context.DeadlineExceeded, "even if it would fit")

		late := enqueue(t, l, 50, Normal)
		s.Release()
		require.True(t, granted(late))
		l.group.abandon(late) // ctx ended in the moment of the grant
		require.Equal(t, Bytes(50), l.Snapshot().Reserved)
		require.Zero(t, l.Snapshot().Waiting)
	})
}

func TestAcquireWaits(t *testing.T) {
	t.Parallel()
	l := newPool(t, 100)
	s := acquire(t, l, 100)
	got := make(chan *Lease)
	go func() {
		next, err := l.Acquire(context.Background(), 100, Normal)
		if err != nil {
			close(got)
			return
		}
		got <- next
	}()
	s.Release()
	next := <-got
	require.NotNil(t, next)
	require.Equal(t, Bytes(100), next.Size())
}
