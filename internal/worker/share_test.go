package worker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/queue"
)

// TestAClaimLivesThroughALongLoad: another worker that starts meanwhile must see it.
func TestAClaimLivesThroughALongLoad(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.with(t, queue.Topology{ClaimTTL: 300 * time.Millisecond})
	e := newElastic(nil)
	e.loads = make(chan struct{})
	w := e.worker(c, func(o *Options) { o.RenewClaim = 30 * time.Millisecond })
	started := make(chan error, 1)
	go func() { started <- w.Start(t.Context()) }()
	claims := func() int {
		all, err := c.Claims(t.Context(), "the device")
		require.NoError(t, err)
		return len(all)
	}
	require.Eventually(t, func() bool { return claims() == 1 }, 5*time.Second, time.Millisecond)
	for end := time.Now().Add(time.Second); time.Now().Before(end); { // more than three lives of a claim
		require.Equal(t, 1, claims())
	}
	close(e.loads)
	require.NoError(t, <-started)
	w.Close()
	require.Zero(t, claims())
}

// slowClaims is a queue on which everybody else is faster.
type slowClaims struct{ Queue }

func (q slowClaims) Claim(ctx context.Context, device, worker string, decide func([]api.Claim) (api.Claim, error)) error {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	return q.Queue.Claim(ctx, device, worker, decide)
}

// TestWorkersGrowBesideEachOther: two that see at once that memory is free again
// never promise it twice.
func TestWorkersGrowBesideEachOther(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var stranger atomic.Int64 // what somebody else holds
	const total = 600 * budget.MiB
	engines := []*elastic{newElastic(nil), newElastic(nil)}
	read := func() (budget.Device, error) {
		free := total - budget.Bytes(stranger.Load())
		for _, e := range engines {
			held, _ := e.measure(enginePID)
			free = free.Sub(held)
		}
		return budget.Device{ID: "cpu", MemoryID: "shared", Total: total, Free: free}, nil
	}
	var rigs []*rig
	for i, e := range engines {
		stranger.Store(int64(total - 120*budget.MiB*budget.Bytes(i+1))) // each finds 120 MiB
		c := s.connect(t)
		r := newWorker(t, c, e, func(o *Options) {
			e.options(o)
			o.Name, o.Device.MemoryID, o.ReadDevice = fmt.Sprint("w", i), "shared", read
			o.MaxCacheTokens, o.WatchInterval, o.GrowAfter = 6144, 20*time.Millisecond, 100*time.Millisecond
		})
		r.queue = slowClaims{c}
		r.stand.queue = r.queue
		rigs = append(rigs, r)
	}
	for _, r := range rigs {
		r.run(t)
	}
	c := s.connect(t)
	promised := func() (sum budget.Bytes) {
		claims, err := c.Claims(t.Context(), "shared")
		require.NoError(t, err)
		for _, claim := range claims {
			sum = sum.Add(budget.Bytes(claim.Bytes))
		}
		return sum
	}
	require.LessOrEqual(t, promised(), 240*budget.MiB)
	stranger.Store(0)
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		require.LessOrEqual(t, promised(), total)
	}
	require.Greater(t, promised(), total*3/4, "and what is free is used")
	for _, r := range rigs {
		require.NoError(t, r.stop())
	}
}

// TestWorkersShareADevice: two that start at once never promise more than it has.
func TestWorkersShareADevice(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	const total = 240 * budget.MiB
	goOn := make(chan struct{})
	close(goOn)
	engines := []*elastic{newElastic(goOn), newElastic(goOn)}
	free := func() (budget.Device, error) {
		n := total
		for _, e := range engines {
			held, _ := e.measure(enginePID)
			n = n.Sub(held)
		}
		return budget.Device{ID: "cpu", Total: total, Free: n}, nil
	}
	workers := make([]*Worker, 2)
	var starts sync.WaitGroup
	for i, e := range engines {
		starts.Go(func() {
			workers[i] = e.worker(c, func(o *Options) {
				o.Name, o.Device.MemoryID, o.ReadDevice = []string{"a", "b"}[i], "shared", free
			})
			if err := workers[i].Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	for _, w := range workers {
		t.Cleanup(w.Close)
	}
	claims, err := c.Claims(t.Context(), "shared")
	require.NoError(t, err)
	require.Len(t, claims, 2)
	var promised budget.Bytes
	for _, claim := range claims {
		t.Logf("worker %s has promised %v of %v", claim.Worker, budget.Bytes(claim.Bytes), total)
		promised = promised.Add(budget.Bytes(claim.Bytes))
	}
	require.LessOrEqual(t, promised, total)
	require.NotEqual(t, workers[0].plan.Cells, workers[1].plan.Cells, "the second takes what is left")
}

// TestAClaimOfTheDeadIsWaitedFor: a worker that was killed still has its claim when
// it is started again.
func TestAClaimOfTheDeadIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c, dead := s.connect(t), s.connect(t)
	require.NoError(t, dead.Claim(t.Context(), "the device", "w", func([]api.Claim) (api.Claim, error) {
		return api.Claim{Bytes: int64(budget.GiB)}, nil
	}))
	e := newElastic(nil)
	tries := make(chan struct{}, 100)
	w := e.worker(c, func(o *Options) {
		o.RetryStart = time.Millisecond
		o.ReadDevice = func() (budget.Device, error) {
			tries <- struct{}{}
			return e.read()
		}
	})
	started := make(chan error, 1)
	go func() { started <- w.Start(t.Context()) }()
	for range 3 {
		<-tries
	}
	require.Empty(t, e.cells(), "nothing is allocated")
	require.NoError(t, dead.Unclaim(t.Context(), "the device", "w"))
	require.NoError(t, <-started)
	w.Close()
}
