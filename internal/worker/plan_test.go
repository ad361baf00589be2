package worker

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

// rounding is a Sleeper that tells its pool as llama.cpp does: in MiB with two
// decimals.
type rounding struct {
	infer.Sleeper
	perCell float64 // bytes
}

func (r *rounding) size(s infer.Shape) budget.Footprint {
	const unit = float64(budget.MiB) / 100
	return budget.Footprint{KVCache: budget.Bytes(math.Round(r.perCell*float64(s.Cells)/unit) * unit)}
}

func (r *rounding) DryRun(_ context.Context, s infer.Shape) (budget.Footprint, error) {
	return r.size(s), nil
}

func (r *rounding) Load(ctx context.Context, s infer.Shape) (budget.Footprint, error) {
	_, err := r.Sleeper.Load(ctx, s)
	return r.size(s), err
}

// planned makes and starts a worker without a queue.
func planned(t *testing.T, engine infer.Engine, read func(int) (budget.Bytes, error), change func(*Options)) (*Worker, error) {
	t.Helper()
	return plannedWith(t, engine, read, change, nil)
}

// plannedWith is planned with a log.
func plannedWith(t *testing.T, engine infer.Engine, read func(int) (budget.Bytes, error), change func(*Options), log *zap.Logger) (*Worker, error) {
	t.Helper()
	opts := Options{
		Name: "w", Model: model, Device: budget.Device{ID: "cpu", Kind: budget.CPU}, Spec: infer.Spec{GPU: -1, Threads: 2, Batch: 512},
		Limit: 100 * budget.MiB, Measure: func(int) (budget.Bytes, error) { return processMemory, nil },
	}
	if change != nil {
		change(&opts)
	}
	if read == nil {
		read = opts.Measure
	}
	monitor := budget.NewMonitor(read, time.Second, nil)
	monitor.Add(1)
	w := New(opts, nil, nil, engine, monitor, log)
	return w, w.Start(t.Context())
}

// TestLeasesNeverPassTheCells: whatever a cell costs and however that is rounded,
// the leases of a full pool have as many cells as there are.
func TestLeasesNeverPassTheCells(t *testing.T) {
	t.Parallel()
	for i := range 300 {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		perCell := math.Exp(random.Float64() * math.Log(1<<20)) // a byte to a MiB
		if i%3 == 0 {
			perCell = float64(1 + random.IntN(2000))
		}
		cells := 256 * (1 + random.IntN(200))
		w, err := planned(t, &rounding{Sleeper: infer.Sleeper{ContextTokens: cells}, perCell: perCell}, nil, func(o *Options) {
			o.Limit = 1000 * budget.GiB
			o.MaxParallelTokens, o.MaxCacheTokens = 4, cells
		})
		require.NoError(t, err)
		require.Equal(t, cells, w.plan.Cells)
		leased := 0
		for leased < cells {
			n := min(1+random.IntN(1+cells/4), cells-leased)
			lease, ok := w.ledger.TryAcquire(w.pool.perCell.Mul(int64(n)))
			require.True(t, ok, "%d of %d cells of %v bytes", leased, cells, perCell)
			l := &jobLease{worker: w, current: lease}
			require.Equal(t, n, l.Tokens())
			leased += n
		}
		_, ok := w.ledger.TryAcquire(w.pool.perCell)
		require.False(t, ok, "more than %d cells of %v bytes", cells, perCell)
	}
}

// TestTooFewForSets: where memory has a step have fewer tokens than are allowed, the engine knows
// how many these are, and one who looks at the log learns that there are hardly any.
func TestTooFewForSets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		limit       budget.Bytes
		set         int // max_parallel_tokens
		want, ample int
		warned      bool
	}{
		{"ample", budget.GiB, 0, 16, 16, false},
		{"short", 105 * budget.MiB, 0, 1, 16, true},
		{"as set", budget.GiB, 2, 2, 2, false},
		{"more than the batch", 10 * budget.GiB, 600, 512, 512, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			core, logs := observer.New(zap.WarnLevel)
			e := &rounding{Sleeper: infer.Sleeper{ContextTokens: 2048}, perCell: 32 << 10}
			w, err := plannedWith(t, e, nil, func(o *Options) { o.Limit, o.MaxParallelTokens = c.limit, c.set }, zap.New(core))
			require.NoError(t, err)
			shape := w.shape(256)
			require.Equal(t, []int{c.want, c.ample}, []int{shape.Sequences, shape.Ample})
			require.Equal(t, c.warned, logs.FilterMessageSnippet("hardly any tokens").Len() == 1)
		})
	}
}

// TestNothingBesideTheBuffers: pages of a new pool that are untouched make what the processes hold
// less than the buffers. That is a measurement too, and no reason to count what is booked as held.
func TestNothingBesideTheBuffers(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	e := &rounding{Sleeper: infer.Sleeper{ContextTokens: 2048}, perCell: 16 << 10}
	w, err := plannedWith(t, e, nil, func(o *Options) { o.Limit = 120 * budget.MiB }, zap.New(core))
	require.NoError(t, err)
	require.Positive(t, w.ledger.Snapshot().Booked.Overhead)
	buffers := budget.Footprint{KVCache: 20 * budget.MiB}
	require.Zero(t, w.measured(buffers, 15*budget.MiB).Overhead)
	s := w.ledger.Snapshot()
	require.LessOrEqual(t, s.Held, 20*budget.MiB+1)
	require.Equal(t, budget.OK, s.Pressure)

	w.measured(buffers, 110*budget.MiB)
	w.sayLevel(budget.OK, w.ledger.Pressure())
	said := logs.FilterMessage("memory nears its limit").All()
	require.Len(t, said, 1)
	require.Equal(t, int64(110*budget.MiB), said[0].ContextMap()["held_bytes"])
	require.InDelta(t, 110.0/120, said[0].ContextMap()["share"], 1e-9)
	w.logMemory("now")
	said = logs.FilterMessage("memory").All()
	require.Equal(t, "warn", said[len(said)-1].ContextMap()["pressure"])
	require.Equal(t, int64(110*budget.MiB), said[len(said)-1].ContextMap()["held_bytes"])
}

func TestWholeCells(t *testing.T) {
	t.Parallel()
	require.Equal(t, budget.Bytes(2560), wholeCells(2560, 256))
	require.Equal(t, budget.Bytes(2816), wholeCells(2561, 256))
	require.Equal(t, budget.Bytes(256), wholeCells(0, 256), "a size that was rounded to nothing")
}

// loading is a Sleeper that loads only once its memory was measured.
type loading struct {
	infer.Sleeper
	now      atomic.Int64 // bytes it holds
	measured chan struct{}
}

func (l *loading) Load(ctx context.Context, s infer.Shape) (budget.Footprint, error) {
	l.now.Store(int64(50 * budget.MiB))
	for range 2 { // the first reading may be older
		select {
		case <-l.measured:
		case <-ctx.Done():
			return budget.Footprint{}, ctx.Err()
		}
	}
	l.now.Store(int64(processMemory))
	return l.Sleeper.Load(ctx, s)
}

func TestThePeakOfTheLoadCounts(t *testing.T) {
	t.Parallel()
	e := &loading{measured: make(chan struct{})}
	w, err := planned(t, e, func(int) (budget.Bytes, error) {
		n := budget.Bytes(e.now.Load())
		select {
		case e.measured <- struct{}{}:
		default:
		}
		return n, nil
	}, func(o *Options) { o.MaxCacheTokens = 1024 })
	require.NoError(t, err)
	require.Equal(t, int64(50*budget.MiB), w.memory().Peak)
	require.Equal(t, int64(processMemory), w.memory().Total())
}

func TestOwnShare(t *testing.T) {
	t.Parallel()
	w, err := planned(t, &infer.Sleeper{}, nil, func(o *Options) { o.ExtraOverhead = 5 * budget.MiB })
	require.NoError(t, err)
	require.Equal(t, processMemory+processGrowth+5*budget.MiB, w.OwnShare())
	require.Equal(t, w.OwnShare().Add(cellRecord.Mul(int64(w.plan.Cells))), w.plan.Footprint.Overhead, "a Sleeper's process has nothing")
	require.Equal(t, processGrowth+5*budget.MiB, w.ledger.Snapshot().Booked.Overhead, "nothing was measured beside the pool, and it may grow")

	_, err = planned(t, &infer.Sleeper{}, nil, func(o *Options) { o.ExtraOverhead = 30 * budget.MiB })
	var large *budget.TooLargeError
	require.ErrorAs(t, err, &large)

	w, err = planned(t, &infer.Sleeper{}, nil, func(o *Options) {
		o.Device, o.Limit, o.ExtraOverhead = budget.Device{ID: "GPU-1", Kind: budget.CUDA}, 2*budget.GiB, budget.GiB
	})
	require.NoError(t, err)
	require.Zero(t, w.OwnShare())
	require.Equal(t, 600*budget.MiB, w.plan.Footprint.Overhead)
}
