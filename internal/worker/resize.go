package worker

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
)

// resize gives the engine a pool of so many cells, 0 = unloads it. The intake
// must be held where the pool gets smaller.
func (w *Worker) resize(ctx context.Context, cells int) error {
	before := int(w.cells.Load())
	s := w.ledger.Snapshot()
	log := w.log.Info
	if cells < before {
		log = w.log.Warn
	}
	log("the KV pool is resized", zap.Int("cells", cells), zap.Int("before_cells", before), zap.Int("running", w.count()),
		zap.Int64("held_bytes", int64(s.Held)), zap.Int64("limit_bytes", int64(s.Limit)), zap.Int64("target_bytes", int64(w.target())))
	if cells < before {
		return w.shrink(ctx, cells)
	}
	return w.enlarge(ctx, cells)
}

// shrink takes the cells out of the ledger first, has the jobs leave that do not
// fit any more, and then gives the memory back.
func (w *Worker) shrink(ctx context.Context, cells int) error {
	before, pool := int(w.cells.Load()), w.pool.perCell.Mul(int64(cells))
	if pool < w.ledger.Snapshot().Booked.KVCache {
		if err := w.ledger.Book(budget.KVCache, pool); err != nil {
			return err
		}
	}
	if err := w.clear(ctx, pool, cells == 0); err != nil {
		return err
	}
	saved, err := w.save(ctx)
	if err != nil {
		return err
	}
	defer saved.Release()
	after := w.ledger.Snapshot().Held.Sub(w.pool.total(before)).Add(w.pool.total(cells))
	if err := w.renew(ctx, max(after, 1)); err != nil { // it must not keep memory from being given back
		w.log.Debug("the others could not be told that memory is given back", zap.Error(err))
	}
	allocated, err := w.engine.Reshape(ctx, w.shape(cells))
	if err != nil { // the next round tries again
		return err
	}
	w.cells.Store(int64(cells))
	return w.resized(ctx, allocated, w.ledger.Snapshot().Booked.Overhead)
}

// While a pool is made anew, what the jobs have in the old one is in the host's
// memory beside it.

// savedShare is how much that is of what the jobs have leased.
const savedShare = 1.01

// savedOnDevice is what of it counts against the device's limit.
func (w *Worker) savedOnDevice() budget.Bytes {
	if w.opts.Device.Kind != budget.CPU {
		return 0
	}
	return w.ledger.Snapshot().Reserved.Scale(savedShare)
}

// save makes room for what the jobs have in the pool: jobs leave until the rest is
// within the limit on a CPU, or in the host's ledger. Nothing more is leased until
// the pool is booked again. The lease, of 0 bytes on a CPU, is to be released when
// the pool is there.
func (w *Worker) save(ctx context.Context) (*budget.Lease, error) {
	room := w.host.Available()
	if w.opts.Device.Kind == budget.CPU {
		s := w.ledger.Snapshot()
		// Where others bound the limit there is the reserve too, for a moment.
		room = min(w.opts.Limit, s.Limit.Add(w.opts.Reserve/2)).Sub(s.Held)
	}
	room = max(room.Scale(1/savedShare), 1)
	if w.ledger.Snapshot().Booked.KVCache > room {
		if err := w.ledger.Book(budget.KVCache, room); err != nil {
			return nil, err
		}
	}
	if err := w.clear(ctx, room, true); err != nil {
		return nil, err
	}
	need := w.ledger.Snapshot().Reserved.Scale(savedShare)
	if w.opts.Device.Kind == budget.CPU {
		need = 0
	}
	lease, ok := w.host.TryAcquire(need)
	if !ok {
		return nil, errNoBuffers // the next round tries again
	}
	return lease, nil
}

// clear has jobs leave the pool, the youngest first, until those that are left fit
// into n bytes, which is all that is booked for the pool. If they must leave they do
// not stay in host memory.
func (w *Worker) clear(ctx context.Context, n budget.Bytes, mustLeave bool) error {
	for {
		if w.ledger.Snapshot().Reserved <= n && (n > 0 || w.count() == 0) {
			return nil
		}
		victim, _ := w.youngest(func(j *job) bool { return j.lease.Tokens() > 0 || n == 0 && j.ctx.Err() == nil })
		if victim == nil { // it has just left
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
			continue
		}
		if err := w.displace(ctx, victim, mustLeave); err != nil {
			return err
		}
	}
}

// enlarge books and claims the memory of a larger pool before it is taken.
func (w *Worker) enlarge(ctx context.Context, cells int) error {
	release := w.holdIntake()
	defer release()
	before := w.ledger.Snapshot()
	saved, err := w.save(ctx)
	if err != nil {
		return err
	}
	defer saved.Release()
	more := w.pool.total(cells).Sub(before.Charged().Total()).Add(before.Charged().Overhead).Sub(w.pool.floor.Overhead)
	more = more.Add(w.savedOnDevice())
	// Booked beside the pool until it is there: leases must not have its cells yet.
	if err := w.bookLine(budget.Overhead, before.Charged().Overhead.Add(more)); err != nil {
		return err
	}
	err = w.renewMore(ctx, before.Held.Add(more))
	var allocated budget.Footprint
	if err == nil {
		allocated, err = w.engine.Reshape(ctx, w.shape(cells))
	}
	if err != nil {
		return errors.Join(err, w.ledger.Book(budget.Overhead, before.Booked.Overhead))
	}
	w.cells.Store(int64(cells))
	return w.resized(ctx, allocated, before.Booked.Overhead)
}

// resized books what a new pool turned out to take, beside an overhead.
func (w *Worker) resized(ctx context.Context, allocated budget.Footprint, overhead budget.Bytes) error {
	reading, err := w.monitor.Sample()
	if err != nil {
		reading.Total = allocated.Total().Add(w.ledger.Snapshot().Measured.Overhead)
	}
	booking := w.measured(allocated, reading.Total)
	booking.KVCache, booking.Overhead = w.pool.perCell.Mul(w.cells.Load()), overhead
	var large *budget.TooLargeError
	if err := w.book(booking); err != nil && !errors.As(err, &large) { // facts are charged as measured
		return err
	}
	w.log.Info("the KV pool has its new size", zap.Int64("max_cache_tokens", w.cells.Load()),
		zap.Stringer("measured", w.ledger.Snapshot().Measured))
	if _, err := w.mine(); err != nil {
		return err
	}
	return w.renew(ctx, 0)
}
