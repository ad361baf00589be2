package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// elastic is a script whose pool shows in what its process holds, on a device of
// which others take memory and give it back.
type elastic struct {
	script
	base budget.Bytes // held beside the pool

	gone  error         // what Reshape returns; nil = nothing
	loads chan struct{} // closed when Load may return; nil = at once
	hangs chan struct{} // closed by Close, until which Reshape hangs; nil = it does not

	mu     sync.Mutex
	faults int           // of Reshape that are still to come; guarded by mu
	free   budget.Bytes  // of the device, with nothing of the engine's on it; guarded by mu
	shapes []infer.Shape // that the engine has had; guarded by mu
}

// elasticCell makes the pool of 1024 cells 64 MiB.
const elasticCell = 64 * budget.KiB

func (e *elastic) footprint(s infer.Shape) budget.Footprint {
	return budget.Footprint{KVCache: elasticCell.Mul(int64(s.Cells))}
}

func (e *elastic) DryRun(_ context.Context, s infer.Shape) (budget.Footprint, error) {
	return e.footprint(s), nil
}

func (e *elastic) Load(ctx context.Context, s infer.Shape) (budget.Footprint, error) {
	if e.loads != nil {
		<-e.loads
	}
	_, err := e.script.Load(ctx, s)
	e.note(s)
	return e.footprint(s), err
}

func (e *elastic) Reshape(ctx context.Context, s infer.Shape) (budget.Footprint, error) {
	e.mu.Lock()
	faulty := e.faults > 0
	e.faults--
	e.mu.Unlock()
	if faulty {
		return budget.Footprint{}, errors.New("not now")
	}
	if e.gone != nil {
		return budget.Footprint{}, e.gone
	}
	if e.hangs != nil {
		<-e.hangs
		return budget.Footprint{}, infer.ErrStopped
	}
	_, err := e.script.Reshape(ctx, s)
	if err == nil {
		e.note(s)
	}
	return e.footprint(s), err
}

func (e *elastic) note(s infer.Shape) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shapes = append(e.shapes, s)
}

// cells are those that the engine had, one after the other.
func (e *elastic) cells() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []int
	for _, s := range e.shapes {
		list = append(list, s.Cells)
	}
	return list
}

func (e *elastic) held() budget.Bytes {
	if len(e.shapes) == 0 {
		return e.base
	}
	return e.base.Add(e.footprint(e.shapes[len(e.shapes)-1]).KVCache)
}

// enginePID is the process that holds all there is; the worker's own holds nothing.
const enginePID = 1

func (e *elastic) measure(pid int) (budget.Bytes, error) {
	if pid != enginePID {
		return 0, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held(), nil
}

func (e *elastic) read() (budget.Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return budget.Device{ID: "cpu", Total: budget.GiB, Free: e.free.Sub(e.held())}, nil
}

// leave sets what the device has for the worker.
func (e *elastic) leave(n budget.Bytes) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.free = n
}

func (e *elastic) options(o *Options) {
	o.Limit = budget.GiB
	o.Measure, o.ReadDevice, o.Device.MemoryID = e.measure, e.read, "the device"
	o.WatchInterval, o.GrowAfter = 5*time.Millisecond, 50*time.Millisecond
}

// worker is one over the engine that is not started yet, and takes no jobs.
func (e *elastic) worker(c *queue.Client, change func(*Options)) *Worker {
	opts := Options{
		Name: "w", Model: model, Device: budget.Device{ID: "cpu"}, Spec: infer.Spec{GPU: -1, Threads: 1, Batch: 512},
		MaxParallelTokens: 4, MaxCacheTokens: 1024,
	}
	e.options(&opts)
	change(&opts)
	monitor := budget.NewMonitor(opts.Measure, time.Second, nil)
	monitor.Add(enginePID)
	return New(opts, c, nil, e, monitor, nil)
}

// newElastic is an engine whose jobs wait for goOn, beside 10 MiB.
func newElastic(goOn <-chan struct{}) *elastic {
	e := &elastic{base: processMemory, free: budget.GiB}
	e.act = func(ctx context.Context, _ infer.Request, _ string) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return e
}

// What 1024 cells and fewer take, with the growth that is booked.
func elasticTotal(cells int) budget.Bytes {
	return processMemory + processGrowth + elasticCell.Mul(int64(cells))
}

// TestThePoolFollowsTheLimit: others take memory of the device while jobs run. The
// pool gives way, and the jobs that do not fit go back to the queue; then it grows
// again, and everything is answered once.
func TestThePoolFollowsTheLimit(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	e := newElastic(goOn)
	w := newWorker(t, c, e, e.options).run(t)
	send(t, c, "b", prompts(8)...)
	require.Eventually(t, func() bool { n, _ := e.now(); return n == 4 }, 5*time.Second, time.Millisecond)

	e.leave(60 * budget.MiB) // 74 are held
	require.Eventually(t, func() bool { return len(e.cells()) == 2 }, 5*time.Second, time.Millisecond)
	require.Equal(t, []int{1024, 512}, e.cells())
	s := w.ledger.Snapshot()
	require.LessOrEqual(t, s.Reserved, elasticCell.Mul(512))
	require.LessOrEqual(t, s.Held, s.Limit)
	require.Eventually(t, func() bool {
		claims, err := c.Claims(t.Context(), "the device")
		return err == nil && len(claims) == 1 && budget.Bytes(claims[0].Bytes) <= s.Limit
	}, 5*time.Second, time.Millisecond, "the claim follows")
	require.Equal(t, 512, w.Stats().MaxCacheTokens)

	e.leave(budget.GiB)
	require.Eventually(t, func() bool { return len(e.cells()) == 3 }, 5*time.Second, time.Millisecond)
	require.Equal(t, []int{1024, 512, 1024}, e.cells())
	close(goOn)
	for _, r := range results(t, c, "b", 8) {
		requireAnswered(t, r, 1)
	}
	require.NoError(t, w.stop())
}

// TestTheModelIsUnloaded: not even the smallest pool fits any more.
func TestTheModelIsUnloaded(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	e := newElastic(goOn)
	w := newWorker(t, c, e, e.options).run(t)
	send(t, c, "b", prompts(6)...)
	require.Eventually(t, func() bool { n, _ := e.now(); return n == 4 }, 5*time.Second, time.Millisecond)

	e.leave(12 * budget.MiB)
	require.Eventually(t, func() bool { return w.cells.Load() == 0 && w.ledger.Snapshot().Held <= 12*budget.MiB }, 5*time.Second, time.Millisecond)
	require.Zero(t, w.count())
	left, err := c.Pending(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, 6, int(left), "nothing is lost")
	fetches := w.taker.fetches.Load()
	require.Never(t, func() bool { return w.taker.fetches.Load() > fetches }, 100*time.Millisecond, 10*time.Millisecond)

	close(goOn)
	e.leave(budget.GiB)
	for _, r := range results(t, c, "b", 6) {
		requireAnswered(t, r, 1)
	}
	require.Equal(t, []int{1024, 0, 1024}, e.cells())
	require.NoError(t, w.stop())
}

// TestTheSmallestPoolStays within a limit that it passes only beyond its threshold.
func TestTheSmallestPoolStays(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	close(goOn)
	e := newElastic(goOn)
	w := newWorker(t, c, e, e.options).run(t)
	e.leave(27 * budget.MiB) // 26 are held with 256 cells
	require.Eventually(t, func() bool { return w.cells.Load() == 256 }, 5*time.Second, time.Millisecond)
	send(t, c, "b", prompts(20)...)
	for _, r := range results(t, c, "b", 20) {
		requireAnswered(t, r, 1)
	}
	require.Equal(t, []int{1024, 256}, e.cells())
}

// TestAResizingThatFailsIsTriedAgain, since the memory must be given back.
func TestAResizingThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	e := newElastic(nil)
	e.faults = 2
	w := newWorker(t, newQueue(t), e, e.options).run(t)
	e.leave(30 * budget.MiB)
	require.Eventually(t, func() bool { return w.cells.Load() == 256 }, 5*time.Second, time.Millisecond)
	require.Equal(t, []int{1024, 256}, e.cells())
	require.LessOrEqual(t, w.ledger.Snapshot().Held, w.ledger.Snapshot().Limit)
}

func (e *elastic) Close() error {
	if e.hangs != nil {
		close(e.hangs)
	}
	return e.script.Close()
}

// TestAWorkerEndsWhileItsPoolIsResized, and takes its claim back for good.
func TestAWorkerEndsWhileItsPoolIsResized(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	e := newElastic(nil)
	e.hangs = make(chan struct{})
	w := newWorker(t, c, e, e.options).run(t)
	e.leave(30 * budget.MiB)
	require.Eventually(t, func() bool { return w.ledger.Snapshot().Booked.KVCache <= elasticCell.Mul(256) }, 5*time.Second, time.Millisecond)
	require.NoError(t, w.stop())
	claims, err := c.Claims(t.Context(), "the device")
	require.NoError(t, err)
	require.Empty(t, claims)
}

// TestAPoolThatDidNotBecomeSmaller is leased whole again when the pressure has ended.
func TestAPoolThatDidNotBecomeSmaller(t *testing.T) {
	t.Parallel()
	e := newElastic(nil)
	e.faults = 1 << 30
	w := newWorker(t, newQueue(t), e, e.options).run(t)
	e.leave(30 * budget.MiB)
	booked := func() budget.Bytes { return w.ledger.Snapshot().Booked.KVCache }
	require.Eventually(t, func() bool { return booked() <= elasticCell.Mul(256) }, 5*time.Second, time.Millisecond)
	e.leave(budget.GiB)
	require.Eventually(t, func() bool { return booked() == elasticCell.Mul(1024) }, 5*time.Second, time.Millisecond)
	require.Equal(t, []int{1024}, e.cells())
}

// TestThePoolStaysWhereOnlyGrowthIsMissing: what processes may still grow by is a
// guess, which gives way to jobs.
func TestThePoolStaysWhereOnlyGrowthIsMissing(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	close(goOn)
	e := newElastic(goOn)
	w := newWorker(t, c, e, e.options).run(t)
	e.leave(90 * budget.MiB) // 74 MiB are held, 138 booked with the growth
	require.Eventually(t, func() bool { s := w.ledger.Snapshot(); return s.Room == s.Booked.KVCache && s.Limit < 100*budget.MiB }, 5*time.Second, time.Millisecond)
	send(t, c, "b", prompts(10)...)
	for _, r := range results(t, c, "b", 10) {
		requireAnswered(t, r, 1)
	}
	e.leave(budget.GiB)
	require.Eventually(t, func() bool {
		s := w.ledger.Snapshot()
		return s.Booked.Overhead == w.overhead
	}, 5*time.Second, time.Millisecond, "and is booked again when it is")
	require.Equal(t, []int{1024}, e.cells())
}

// TestAnEngineThatIsGoneEndsAnIdleWorker: nobody would notice while the model is
// unloaded.
func TestAnEngineThatIsGoneEndsAnIdleWorker(t *testing.T) {
	t.Parallel()
	e := newElastic(nil)
	gone := &infer.StartError{What: "replace the engine", Err: errors.New("it dies"), Advice: "look"}
	e.gone = gone
	w := newWorker(t, newQueue(t), e, e.options)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(t.Context()) }()
	e.leave(30 * budget.MiB)
	require.ErrorIs(t, <-ended, gone)
}

// TestAutomaticParallelTokensFollow what is available.
func TestAutomaticParallelTokensFollow(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	close(goOn)
	e := newElastic(goOn)
	w := newWorker(t, c, e, func(o *Options) {
		e.options(o)
		o.MaxParallelTokens, o.MaxCacheTokens = 0, 4096
	}).run(t)
	require.Equal(t, 8, w.Stats().MaxParallelTokens, "8 for a thread")
	// 3 more jobs of 256 cells: 0.8 · available / 16 MiB.
	e.leave((elasticTotal(256) + 16*budget.MiB*3*10/8 + budget.MiB).Scale(1 / 0.95))
	require.Eventually(t, func() bool { return w.Stats().MaxParallelTokens == 3 }, 5*time.Second, time.Millisecond)
	e.leave(budget.GiB)
	require.Eventually(t, func() bool { return w.Stats().MaxParallelTokens == 8 }, 5*time.Second, time.Millisecond)
}

// TestAJobMovesToHostMemory, on a device with memory of its own, where it gives way
// to an older one, and goes on there.
func TestAJobMovesToHostMemory(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	all := make(chan struct{})
	grown := make(chan struct{})
	var mu sync.Mutex
	arrived := 0
	engine := &script{}
	engine.act = func(ctx context.Context, r infer.Request, prompt string) error {
		mu.Lock()
		if arrived++; arrived == 4 {
			close(all)
		}
		mu.Unlock()
		<-all
		if prompt == "prompt 0" { // grows to the whole pool
			for n := 384; n <= 1024; n += 128 {
				if err := r.Lease.Resize(ctx, 250, n); err != nil {
					return err
				}
			}
			close(grown)
			return nil
		}
		select { // as an engine does between two steps
		case <-r.Lease.Reclaim():
			return r.Lease.Resize(ctx, 0, r.Lease.Tokens())
		case <-grown:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w := newWorker(t, c, engine, func(o *Options) {
		o.Device, o.Limit = budget.Device{ID: "GPU-1", Kind: budget.CUDA}, 2*budget.GiB
	}).run(t)
	send(t, c, "b", prompts(4)...)
	for _, r := range results(t, c, "b", 4) {
		requireAnswered(t, r, 1)
	}
	for _, p := range prompts(4) {
		require.Equal(t, 1, engine.ran(p), "nobody begins anew")
	}
	require.Greater(t, w.host.Snapshot().PeakReserved, w.pool.perCell.Mul(256))
	require.NoError(t, w.stop())
}

// TestAnUnloadedModelComesBackUnderAWarning: what stays without it can be most of a
// small limit.
func TestAnUnloadedModelComesBackUnderAWarning(t *testing.T) {
	t.Parallel()
	e := newElastic(nil)
	e.base = 200 * budget.MiB
	w := newWorker(t, newQueue(t), e, e.options).run(t)
	e.leave(190 * budget.MiB)
	require.Eventually(t, func() bool { return w.cells.Load() == 0 && len(e.cells()) == 2 }, 5*time.Second, time.Millisecond)
	e.leave(230 * budget.MiB) // 200 are 87 %, 216 with the smallest pool 94 %
	require.Eventually(t, func() bool { return w.cells.Load() == 256 }, 5*time.Second, time.Millisecond)
}
