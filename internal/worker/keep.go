package worker

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

// Others can take memory of the device at any time, and processes can turn out to
// hold more than was booked. The keeper looks every WatchInterval, and when more
// is held than the share of the limit at which to act, it goes down the ladder:
//
//  0. what processes may still grow by is not booked any more, as far as it is needed;
//  1. the sets of parallel jobs get narrower, see narrower;
//  2. no more jobs are admitted;
//  3. the KV pool is made smaller by what is too much. The jobs that do not fit
//     into it leave, the youngest first: to host memory where that is another
//     memory than the device's, else back to the queue;
//  4. where not even the smallest pool fits, the model is unloaded, until it does.
//
// When there has been room for a while, the pool grows again.
const (
	// slack is the share of the limit that is left below the one at which to act
	// after the pool has changed, so that it does not change again with every page.
	slack = 0.03
	// ahead is how many rounds' worth of what others take is given back in advance:
	// changing the pool takes time, and they go on meanwhile.
	ahead = 5
	// aheadMost bounds that, as a share of the limit: one who takes much at once may
	// be content with it.
	aheadMost = 0.25
	// worthwhile is the share of a pool by which it must be able to grow: a change
	// holds all jobs up for a moment.
	worthwhile = 0.25
)

// keeper is the state of keep; it belongs to its goroutine.
type keeper struct {
	level   budget.Level
	held    func()    // lets the intake go on; nil = it is not held
	changed time.Time // when the pool changed last, or the pressure ended
	failing bool      // the last round failed
	idle    int       // rounds without a job in a row
	overrun budget.Bytes
}

// keep keeps what is held within the limit until ctx is done.
func (w *Worker) keep(ctx context.Context) error {
	k := &keeper{changed: time.Now()}
	defer func() { k.admit() }()
	tick := time.NewTicker(w.opts.WatchInterval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err = w.round(ctx, k)
		case done := <-w.yields:
			err = w.yieldPool(ctx, k)
			close(done)
		}
		_, gone := errors.AsType[*infer.StartError](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case gone: // for good: nobody would notice while no job runs
			return err
		case err != nil && !k.failing:
			w.log.Warn("the memory limit cannot be followed as it should; it is tried again", zap.Error(err))
		case err == nil && k.failing:
			w.log.Info("the memory limit is followed again")
		}
		k.failing = err != nil
	}
}

// round looks once, and does what is needed.
func (w *Worker) round(ctx context.Context, k *keeper) error {
	w.remeasure(k)
	w.noteIdle(k)
	unseen := w.follow(ctx)
	level := w.ledger.Pressure()
	if level != k.level {
		w.sayLevel(k.level, level)
		k.level, k.changed = level, time.Now()
	}
	s := w.ledger.Snapshot()
	pressed := level == budget.Act || s.Room < s.Booked.KVCache // the second: what may come to be held is over the limit
	w.sets.relax(ctx, unseen == nil && level == budget.OK && !pressed)
	switch {
	case pressed && w.cells.Load() > 0:
		return errors.Join(unseen, w.relieve(ctx, k))
	case w.cells.Load() > 0:
		w.rebook(ctx)
		k.admit()
	}
	if unseen != nil || time.Since(k.changed) < w.opts.GrowAfter { // nothing grows blindly
		return unseen
	}
	var err error
	switch {
	case w.cells.Load() == 0 && level != budget.Act:
		err = w.resume(ctx, k)
	case w.cells.Load() > 0 && level == budget.OK:
		err = w.regrow(ctx, k)
	}
	var large *budget.TooLargeError
	if errors.Is(err, errTaken) || errors.Is(err, errNoBuffers) || errors.As(err, &large) {
		w.log.Debug("the pool cannot grow yet", zap.Error(err))
		return nil
	}
	return err
}

// rebook books again what the engine has, should a pool not have changed after all,
// and what processes may still grow by, once there is room for that.
func (w *Worker) rebook(ctx context.Context) {
	s := w.ledger.Snapshot()
	if pool := w.pool.perCell.Mul(w.cells.Load()); s.Booked.KVCache < pool {
		_ = w.bookLine(budget.KVCache, pool) // refused: the next round tries again
	}
	grown := s.Charged().Total().Sub(s.Charged().Overhead).Add(w.overhead)
	if s.Booked.Overhead >= w.overhead || grown > w.target() || w.bookLine(budget.Overhead, w.overhead) != nil {
		return
	}
	if err := w.renewMore(ctx, 0); err != nil {
		_ = w.ledger.Book(budget.Overhead, s.Booked.Overhead) // less is never refused
	}
}

// idleRounds is how many rounds without a job end a time of work.
const idleRounds = 5

// noteIdle says what memory is left when the jobs have ended.
func (w *Worker) noteIdle(k *keeper) {
	w.mu.Lock()
	if len(w.running) > 0 || !w.busy {
		k.idle = 0
		w.mu.Unlock()
		return
	}
	k.idle++
	ended := k.idle >= idleRounds
	w.busy = w.busy && !ended
	w.mu.Unlock()
	if ended {
		w.logMemory("after generation")
	}
}

// stopAdmitting holds the intake until admit.
func (k *keeper) stopAdmitting(w *Worker) {
	if k.held == nil {
		k.held = w.holdIntake()
	}
}

func (k *keeper) admit() {
	if k.held != nil {
		k.held()
		k.held = nil
	}
}

// target is what may be held in all once the pool has changed.
func (w *Worker) target() budget.Bytes {
	limit := w.ledger.Snapshot().Limit
	return limit.Scale(max(w.opts.Thresholds.Act-slack, 0)).Sub(min(w.falling.Mul(ahead), limit.Scale(aheadMost)))
}

// relieve goes down the ladder. The smallest pool stays for as long as it is within
// the limit, and goes on taking jobs: it does not grow by them.
func (w *Worker) relieve(ctx context.Context, k *keeper) error {
	s := w.ledger.Snapshot()
	if w.squeeze(s) && s.Held <= s.Limit.Scale(w.opts.Thresholds.Act) {
		k.admit()
		return nil
	}
	s = w.ledger.Snapshot()
	now := int(w.cells.Load())
	spare := w.pool.cellCost.Mul(int64(now - w.pool.smallest))
	excess := s.Charged().Total().Sub(w.target())
	cells := 0
	switch {
	case excess <= spare:
		steps := (excess/w.pool.cellCost + cellStep) / cellStep
		cells = max(now-int(steps)*cellStep, w.pool.smallest)
	case s.Held.Sub(spare) <= s.Limit:
		cells = w.pool.smallest
	}
	if cells == now {
		k.admit()
		return nil
	}
	// Narrower sets give the device nothing back: beyond the limit there is no time for them.
	if !w.sets.press(ctx, "the memory limit has fallen", s.Held > s.Limit) {
		return nil
	}
	k.stopAdmitting(w)
	k.changed = time.Now()
	return w.resize(ctx, cells)
}

// squeeze books so much less growth for the processes that what is charged is within
// the limit, and reports whether it is. What they come to take is pressure then.
func (w *Worker) squeeze(s budget.Snapshot) bool {
	over := s.Charged().Total().Sub(s.Limit)
	growth := max(s.Booked.Overhead.Sub(s.Measured.Overhead), 0)
	if less := min(over, growth); less > 0 {
		w.log.Info("less growth of the processes is booked, so that jobs keep their room",
			zap.Int64("growth_bytes", int64(growth.Sub(less))), zap.Int64("limit_bytes", int64(s.Limit)))
		_ = w.ledger.Book(budget.Overhead, s.Booked.Overhead.Sub(less)) // less is never refused
	}
	return over <= growth
}

// regrow makes the pool larger if there is room for enough more.
func (w *Worker) regrow(ctx context.Context, k *keeper) error {
	now := int(w.cells.Load())
	spare := w.target().Sub(w.ledger.Snapshot().Charged().Total()).Sub(w.savedOnDevice())
	spare = spare.Sub(max(w.overhead.Sub(w.ledger.Snapshot().Charged().Overhead), 0)) // that comes first
	cells := min(w.wantedCells(), now+int(max(spare, 0)/w.pool.cellCost)/cellStep*cellStep)
	if cells <= now || cells < w.wantedCells() && float64(cells-now) < worthwhile*float64(now) {
		return nil
	}
	k.changed = time.Now()
	return w.resize(ctx, cells)
}

// wantedCells is the size of the pool that was wanted, as a multiple of cellStep.
func (w *Worker) wantedCells() int { return max(w.wanted/cellStep*cellStep, w.pool.smallest) }

// resume loads the model again if there is room for it.
func (w *Worker) resume(ctx context.Context, k *keeper) error {
	s := w.ledger.Snapshot()
	beside := s.Charged().Overhead.Sub(w.pool.floor.Overhead) // than was planned for
	cells := min(w.pool.cells(w.target().Sub(beside)), w.wantedCells())
	if cells == 0 && w.pool.floor.Total().Add(beside) <= s.Limit.Scale(w.opts.Thresholds.Act) {
		cells = w.pool.smallest
	}
	if cells == 0 {
		return nil
	}
	k.stopAdmitting(w)
	k.changed = time.Now()
	return w.resize(ctx, cells)
}

// sayLevel says that the pressure on the device has changed.
func (w *Worker) sayLevel(before, now budget.Level) {
	s := w.ledger.Snapshot()
	fields := []zap.Field{
		zap.Stringer("level", now), zap.Int64("held_bytes", int64(s.Held)), zap.Int64("limit_bytes", int64(s.Limit)),
		zap.Float64("share", float64(s.Held)/float64(max(s.Limit, 1))),
	}
	if now > before {
		w.log.Warn("memory nears its limit", fields...)
	} else {
		w.log.Info("memory is back below its thresholds", fields...)
	}
}

// remeasure puts the monitor's newest reading into the ledger, and says when the
// processes have come to hold more beside the engine's buffers than was booked.
func (w *Worker) remeasure(k *keeper) {
	reading, err := w.monitor.Last()
	if err != nil || reading.Time.IsZero() {
		return // the monitor has said so in the log
	}
	s := w.ledger.Snapshot()
	m := w.measured(s.Measured, reading.Total)
	over := m.Overhead.Sub(s.Booked.Overhead)
	k.overrun = min(k.overrun, max(over, 0))
	if over > k.overrun.Add(processGrowth/4) {
		w.log.Warn("the processes hold more than was booked for them; the room for jobs gets smaller by it",
			zap.Int64("over_bytes", int64(over)), zap.Int64("overhead_bytes", int64(m.Overhead)))
		k.overrun = over
	}
}
