package budget

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newGroup returns a group of n ledgers of 1000 bytes, each with a pool of that
// size.
func newGroup(t *testing.T, n int, pool Bytes) (*Group, []*Ledger) {
	t.Helper()
	g := NewGroup()
	var ledgers []*Ledger
	for _, device := range []string{"gpu0", "gpu1", "host"}[:n] {
		l, err := g.NewLedger(device, 1000)
		require.NoError(t, err)
		require.NoError(t, l.Book(KVCache, pool))
		ledgers = append(ledgers, l)
	}
	return g, ledgers
}

// reserved is what each ledger has reserved.
func reserved(g *Group) (all []Bytes) {
	for _, s := range g.Snapshot() {
		all = append(all, s.Reserved)
	}
	return all
}

func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	g, l := newGroup(t, 3, 100)
	leases, ok := g.TryAcquire(Request{l[2], 30}, Request{l[0], 10})
	require.True(t, ok)
	require.Equal(t, []Bytes{30, 10}, []Bytes{leases[0].Size(), leases[1].Size()}, "in the order of the requests")
	require.Equal(t, []Bytes{10, 0, 30}, reserved(g))

	_, ok = g.TryAcquire(Request{l[0], 90}, Request{l[1], 1}, Request{l[2], 71})
	require.False(t, ok)
	w := enqueueAll(t, Normal, Request{l[0], 90}, Request{l[1], 1}, Request{l[2], 71})
	require.Equal(t, []Bytes{10, 0, 30}, reserved(g), "nothing of what is free")
	_, ok = l[1].TryAcquire(99)
	require.False(t, ok, "nor is it given to others meanwhile")

	leases[0].Release()
	require.True(t, granted(w))
	require.Equal(t, []Bytes{100, 1, 71}, reserved(g))
	w.places[2].lease.Release()
	require.Equal(t, []Bytes{100, 1, 0}, reserved(g), "each is released by itself")
}

func TestAcquireRefuses(t *testing.T) {
	t.Parallel()
	g, l := newGroup(t, 2, 100)
	other := newPool(t, 100)
	for name, c := range map[string]struct {
		requests []Request
		want     error
		text     string
	}{
		"nothing":   {nil, ErrBadRequest, "acquire nothing"},
		"no ledger": {[]Request{{l[0], 1}, {nil, 2}}, ErrBadRequest, "acquire 2 B on no ledger"},
		"foreign":   {[]Request{{l[0], 1}, {other, 2}}, ErrBadRequest, "acquire 2 B on cpu, a ledger of another group"},
		"twice":     {[]Request{{l[0], 1}, {l[1], 1}, {l[0], 1}}, ErrBadRequest, "acquire 1 B on gpu0, which was asked before"},
		"negative":  {[]Request{{l[0], 1}, {l[1], -1}}, ErrNegative, "on gpu1"},
	} {
		_, err := g.Acquire(t.Context(), Normal, c.requests...)
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.text, name)
		_, ok := g.TryAcquire(c.requests...)
		require.False(t, ok, name)
	}

	full := acquire(t, l[0], 100)
	_, err := g.Acquire(t.Context(), Normal, Request{l[0], 50}, Request{l[1], 101})
	var tooLarge *TooLargeError
	require.ErrorAs(t, err, &tooLarge, "at once, though the first would have to wait")
	require.ErrorContains(t, err, "gpu1")
	full.Release()
	require.Equal(t, []Bytes{0, 0}, reserved(g))
}

func TestOrderOverLedgers(t *testing.T) {
	t.Parallel()
	g, l := newGroup(t, 3, 100)
	full0, full1 := acquire(t, l[0], 100), acquire(t, l[1], 100)

	only0 := enqueue(t, l[0], 100, High)
	both := enqueueAll(t, Normal, Request{l[0], 10}, Request{l[1], 10})
	only1 := enqueue(t, l[1], 10, Normal)
	first1 := enqueue(t, l[1], 10, High)
	require.True(t, granted(enqueue(t, l[2], 100, Low)), "those who wait for others do not hold it up")

	full1.Release()
	require.True(t, granted(first1))
	require.False(t, granted(only1), "both is before it and waits for the same ledger")
	full0.Release()
	require.True(t, granted(only0))
	require.False(t, granted(both))
	only0.lease().Release()
	require.True(t, granted(both))
	require.True(t, granted(only1))
	require.Equal(t, []Bytes{10, 30, 100}, reserved(g))
}

// TestCrossedOrder has two requests for the same devices in crossed order, each
// with one of them free.
func TestCrossedOrder(t *testing.T) {
	t.Parallel()
	g, l := newGroup(t, 2, 100)
	full := acquire(t, l[1], 100)
	a := enqueueAll(t, Normal, Request{l[0], 100}, Request{l[1], 100})
	b := enqueueAll(t, Normal, Request{l[1], 100}, Request{l[0], 100})
	require.Equal(t, []Bytes{0, 100}, reserved(g), "nobody holds by waiting")
	full.Release()
	require.True(t, granted(a))
	a.places[0].lease.Release()
	require.False(t, granted(b))
	a.places[1].lease.Release()
	require.True(t, granted(b))
}

func TestLoweredPoolFailsWaitersOfSeveral(t *testing.T) {
	t.Parallel()
	g, l := newGroup(t, 2, 100)
	full := acquire(t, l[0], 100)
	both := enqueueAll(t, High, Request{l[0], 50}, Request{l[1], 60})
	behind := enqueue(t, l[1], 40, Normal)
	require.NoError(t, l[1].Book(KVCache, 59))
	<-both.ready
	var tooLarge *TooLargeError
	require.ErrorAs(t, both.err, &tooLarge)
	require.Equal(t, Bytes(60), tooLarge.Need)
	require.True(t, granted(behind))
	for _, s := range g.Snapshot() {
		require.Zero(t, s.Waiting, s.Device)
		require.Zero(t, s.WaitingBytes, s.Device)
	}
	full.Release()
	require.Equal(t, []Bytes{0, 40}, reserved(g))
}

func TestGroupAcquireEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, l := newGroup(t, 2, 100)
		full := acquire(t, l[0], 100)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := g.Acquire(ctx, High, Request{l[1], 100}, Request{l[0], 1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "wait for 100 B on gpu1 and 1 B on gpu0")
		acquire(t, l[1], 100).Release()

		late := enqueueAll(t, High, Request{l[1], 100}, Request{l[0], 1})
		full.Release()
		require.True(t, granted(late))
		g.abandon(late) // ctx ended in the moment of the grant
		require.Equal(t, []Bytes{0, 0}, reserved(g))
		require.Zero(t, l[0].Snapshot().Leases)
	})
}

// TestServedInOrder has two be served by one change, on two ledgers: the more
// urgent one first, so that who comes behind the other is not passed over.
func TestServedInOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		g, l := newGroup(t, 2, 100)
		a, b := l[order[0]], l[order[1]]
		acquire(t, a, 50)
		before := enqueueAll(t, High, Request{a, 100}, Request{b, 1})
		low, behind := enqueue(t, a, 10, Low), enqueueAll(t, Low, Request{a, 100}, Request{b, 100})
		high := enqueue(t, b, 10, High)
		require.False(t, granted(low) || granted(high))
		g.abandon(before)
		require.True(t, granted(low) && granted(high))
		require.Zero(t, behind.passed)
	}
}

// TestPassedOverOnce has a waiter for two ledgers passed over by requests for
// the same two: each counts once.
func TestPassedOverOnce(t *testing.T) {
	t.Parallel()
	_, l := newGroup(t, 2, 100)
	both := []Request{{l[0], 100}, {l[1], 100}}
	running := enqueueAll(t, High, both...)
	low := enqueueAll(t, Low, both...)
	behind := enqueue(t, l[0], 1, Low)
	finish := func(w *waiter) {
		w.places[0].lease.Release()
		w.places[1].lease.Release()
	}
	for passed := range maxPassed {
		require.Equal(t, passed, low.passed)
		high := enqueueAll(t, High, both...)
		finish(running)
		require.True(t, granted(high))
		running = high
	}
	require.Zero(t, behind.passed, "the first of a priority only")
	high := enqueueAll(t, High, both...)
	finish(running)
	require.True(t, granted(low))
	require.False(t, granted(high))
}

// TestNoStarvationOverLedgers has an urgent request for gpu0 wait, while others
// for both GPUs starve on gpu1, where urgent requests never end, and so go
// before it: the next one each time before the last has left gpu0.
func TestNoStarvationOverLedgers(t *testing.T) {
	t.Parallel()
	_, l := newGroup(t, 2, 100)
	both := func() *waiter { return enqueueAll(t, Low, Request{l[0], 50}, Request{l[1], 100}) }
	onGPU0, onGPU1 := acquire(t, l[0], 50), acquire(t, l[1], 100)
	urgent := enqueue(t, l[0], 100, High)
	lows := []*waiter{both(), both()}
	var highs []*waiter
	lowGrants := 0
	for steps := 0; !granted(urgent); steps++ {
		require.Less(t, steps, (maxPassed+1)*(maxPassed+1), "the urgent request starves")
		highs = append(highs, enqueue(t, l[1], 100, High))
		onGPU1.Release()
		if granted(lows[0]) {
			lowGrants++
			onGPU0.Release()
			onGPU0, onGPU1 = lows[0].places[0].lease, lows[0].places[1].lease
			lows = append(lows[1:], both())
			continue
		}
		i := slices.IndexFunc(highs, granted)
		if i < 0 { // gpu0 drains for the urgent one
			onGPU0.Release()
			require.True(t, granted(urgent))
			break
		}
		onGPU1 = highs[i].lease()
		highs = slices.Delete(highs, i, i+1)
	}
	require.Equal(t, maxPassed, lowGrants)
}
