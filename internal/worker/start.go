package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

// Start opens the model, plans its memory, claims and books it, loads, and puts
// what was really allocated in the plan's place. It returns
// *budget.TooLargeError if there is too little for it, before anything is
// allocated. What it has claimed is given back if it fails.
func (w *Worker) Start(ctx context.Context) error {
	w.started = time.Now()
	err := w.start(ctx)
	if err != nil {
		w.withdraw(context.WithoutCancel(ctx))
	}
	return err
}

func (w *Worker) start(ctx context.Context) error {
	facts, err := w.engine.Open(ctx, w.opts.Spec)
	if err != nil {
		return err
	}
	w.facts = facts
	if w.common != nil {
		_, _ = w.monitor.Sample() // the last one is of an engine that has ended; what it cannot measure is said later
	}
	limit, err := w.stake(ctx)
	if err != nil {
		return err
	}
	if err := w.openLedgers(limit); err != nil {
		return err
	}
	w.logMemory("start")
	shape := w.shape(w.plan.Cells)
	allocated, err := w.load(ctx, shape)
	if err != nil {
		return err
	}
	w.touch()
	w.cells.Store(int64(shape.Cells))
	w.ticket.Store(int64(min(firstTicket, shape.Cells)))
	w.slots = newSlots(shape.Sequences, w.early(shape.Sequences))
	return w.settle(ctx, allocated)
}

// openLedgers makes the accounts of the device and of the host's memory, and books
// the plan.
func (w *Worker) openLedgers(limit budget.Bytes) (err error) {
	if w.common != nil {
		w.group, w.host = w.common.group, w.common.host
		w.ledger, err = w.common.open(w, limit)
	} else {
		w.group = budget.NewGroup()
		w.ledger, err = w.group.NewLedger(w.opts.Device.ID, limit)
	}
	if err != nil {
		return err
	}
	if err := w.ledger.SetThresholds(w.opts.Thresholds); err != nil {
		return err
	}
	if err := w.book(w.plan.Footprint); err != nil {
		return err
	}
	if w.common != nil {
		w.common.booked(w.opts.Model)
		return nil
	}
	w.host, err = openHost(w.group, w.opts.HostMemory)
	return err
}

// openHost makes the account of the host's memory.
func openHost(group *budget.Group, limit budget.Bytes) (*budget.Ledger, error) {
	host, err := group.NewLedger(hostID, limit)
	if err != nil {
		return nil, err
	}
	if err := host.Book(budget.KVCache, limit); err != nil {
		return nil, fmt.Errorf("book the buffers of jobs: %w", err)
	}
	return host, nil
}

// shape is the engine's with so many cells; 0 = the engine unloaded.
func (w *Worker) shape(cells int) infer.Shape {
	if cells == 0 {
		return infer.Shape{}
	}
	s := infer.Shape{Sequences: w.pool.sequences, Cells: cells, Ample: w.ampleTokens()}
	if w.opts.Device.Kind == budget.CPU { // the engine's part of what is booked
		s.Grant = w.pool.total(cells).Sub(w.own)
		if w.common == nil { // else its growth is in its own booking
			s.Grant = s.Grant.Add(processGrowth)
		}
	}
	return s
}

// loadSample is the time between two measurements while the model is loaded.
const loadSample = 100 * time.Millisecond

// load loads the model, and measures memory meanwhile: the peak may be there.
func (w *Worker) load(ctx context.Context, shape infer.Shape) (budget.Footprint, error) {
	loading, loaded := context.WithCancel(ctx)
	var measuring sync.WaitGroup
	measuring.Go(func() {
		tick := time.NewTicker(loadSample)
		defer tick.Stop()
		for {
			_, _ = w.monitor.Sample() // settle says if it cannot be measured
			select {
			case <-loading.Done():
				return
			case <-tick.C:
			}
		}
	})
	defer measuring.Wait()
	defer loaded()
	return w.engine.Load(ctx, shape)
}

// book books all lines, first those that shrink, so that they make room for the
// others.
func (w *Worker) book(f budget.Footprint) error {
	before := w.ledger.Snapshot().Booked
	lines := []struct {
		line       budget.Line
		before, to budget.Bytes
	}{
		{budget.Weights, before.Weights, f.Weights},
		{budget.KVCache, before.KVCache, f.KVCache},
		{budget.ParallelBatch, before.ParallelBatch, f.ParallelBatch},
		{budget.Overhead, before.Overhead, f.Overhead},
	}
	for _, grows := range []bool{false, true} {
		for _, l := range lines {
			if (l.to > l.before) != grows {
				continue
			}
			if err := w.bookLine(l.line, l.to); err != nil {
				return fmt.Errorf("book the memory of %s: %w", w.opts.Model, err)
			}
		}
	}
	return nil
}

// bookLine books a line, and keeps the models of a team within their limit.
func (w *Worker) bookLine(line budget.Line, n budget.Bytes) error {
	if w.common != nil {
		return w.common.book(w.opts.Model, line, n)
	}
	return w.ledger.Book(line, n)
}

// settle puts what was really allocated in the place of the plan, says how they
// differ, and claims the difference. It returns *budget.TooLargeError if no room
// is left for jobs.
func (w *Worker) settle(ctx context.Context, allocated budget.Footprint) error {
	reading, err := w.monitor.Sample()
	if err != nil { // some drivers do not tell it
		w.log.Warn("the device's memory cannot be measured, the estimate stands", zap.Error(err))
		reading.Total = w.plan.Footprint.Total()
	}
	measured := w.measured(allocated, reading.Total)
	booking := measured
	booking.KVCache = w.pool.perCell.Mul(w.cells.Load()) // the unit of leases
	booking.Overhead = measured.Overhead.Add(w.growth(measured.Overhead))
	w.log.Info("the model is loaded, and the measurement takes the estimate's place",
		zap.Stringer("estimate", w.plan.Footprint), zap.Stringer("measured", measured),
		zap.Int64("difference_bytes", int64(measured.Total().Sub(w.plan.Footprint.Total()))),
		zap.Int64("max_cache_tokens", w.cells.Load()), zap.Int("context_tokens", w.context()))
	w.logMemory("model loaded")
	var large *budget.TooLargeError
	if err := w.book(booking); err != nil && !errors.As(err, &large) { // what is held beyond the limit is charged as measured
		return err
	}
	if s := w.ledger.Snapshot(); s.Room < w.pool.perCell.Mul(w.ticket.Load()) {
		return &budget.TooLargeError{
			What: "what was measured after the load on " + w.opts.Device.ID, Need: s.Charged().Total(), Capacity: s.Limit,
			Hints: []string{"raise --max-memory-gb, or lower --max-cache-tokens: no room is left for jobs"},
		}
	}
	if _, err := w.mine(); err != nil && w.opts.ReadDevice != nil {
		w.log.Debug("what is held of the device could not be measured again", zap.Error(err))
	}
	if err := w.renew(ctx, 0); err != nil {
		w.log.Warn("what the model takes could not be claimed yet", zap.Error(err))
	}
	w.overhead = booking.Overhead
	return nil
}

// growth is how much the overhead may still grow after it was measured: this
// process to its share, and a GPU's runtime a little.
func (w *Worker) growth(overhead budget.Bytes) budget.Bytes {
	if w.opts.Device.Kind != budget.CPU || w.common != nil {
		return processGrowth
	}
	self, err := w.opts.Measure(os.Getpid())
	if err != nil {
		return max(w.plan.Footprint.Overhead.Sub(overhead), 0)
	}
	return max(w.own.Sub(self), 0)
}

// measured puts a measurement into the ledger and returns it: the engine's
// buffers as llama.cpp allocated them, and as overhead all that the processes hold
// beyond. That may be nothing, as long as a new pool's pages are untouched; to the ledger it is a
// byte then, for 0 is what was not measured, and would be held as it is booked.
func (w *Worker) measured(allocated budget.Footprint, total budget.Bytes) budget.Footprint {
	allocated.Overhead = max(total.Sub(allocated.Weights).Sub(allocated.KVCache).Sub(allocated.ParallelBatch), 0)
	w.ledger.SetMeasured(budget.Weights, allocated.Weights)
	w.ledger.SetMeasured(budget.KVCache, allocated.KVCache)
	w.ledger.SetMeasured(budget.ParallelBatch, allocated.ParallelBatch)
	w.ledger.SetMeasured(budget.Overhead, max(allocated.Overhead, 1))
	return allocated
}

// early reports whether jobs are fetched ahead of their time where n run, so that the
// engine has the next ones when some end. They wait there with memory of their own, and are
// the first to give way. Where n is less than the engine has sequences, they would run.
// Beside other models, which have a use for the memory, there are none.
func (w *Worker) early(n int) bool { return n >= w.pool.sequences && w.common == nil }

// context is the longest job in tokens: what the model has, or the pool, if that is
// less.
func (w *Worker) context() int {
	return min(w.facts.Context, int(w.cells.Load()))
}
