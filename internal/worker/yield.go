package worker

import (
	"context"
	"time"

	"tempo/internal/budget"
)

// growthStep is what a running job is left to grow by where its pool is made small,
// in tokens: an engine asks for as much at a time.
const growthStep = 128

// yield has the keeper give back what of the pool no job has leased, for another
// model of the team, and waits until it has, or until ended is closed.
func (w *Worker) yield(ctx context.Context, ended <-chan struct{}) {
	done := make(chan struct{})
	select {
	case w.yields <- done:
	case <-ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// yieldPool is yield in the keeper.
func (w *Worker) yieldPool(ctx context.Context, k *keeper) error {
	defer w.holdIntake()() // what it has leased is for nobody yet
	cells := w.leastCells()
	if cells == int(w.cells.Load()) {
		return nil
	}
	k.changed = time.Now() // it does not grow again at once
	return w.resize(ctx, cells)
}

// leastCells is the smallest pool that the running jobs go on in undisturbed; as it is
// now where a smaller one is not worth a change, or where the device has no room for
// what the jobs have in the pool beside it.
func (w *Worker) leastCells() int {
	now, jobs, leased := int(w.cells.Load()), 0, 0
	w.mu.Lock()
	for _, j := range w.running {
		jobs++
		leased += j.lease.Tokens()
	}
	w.mu.Unlock()
	cells := leased + jobs*growthStep
	cells = max((cells+cellStep-1)/cellStep*cellStep, w.pool.smallest)
	if cells > now || jobs > 0 && float64(now-cells) < worthwhile*float64(now) {
		return now
	}
	if w.opts.Device.Kind == budget.CPU && jobs > 0 {
		s := w.ledger.Snapshot()
		if w.pool.perCell.Mul(int64(leased)).Scale(savedShare) > s.Limit.Sub(s.Charged().Total()) {
			return now
		}
	}
	return cells
}

// yieldable is what yield would give back.
func (w *Worker) yieldable() budget.Bytes {
	now := int(w.cells.Load())
	if now == 0 {
		return 0
	}
	return w.pool.total(now).Sub(w.pool.total(w.leastCells()))
}

// touch notes that the worker is at work now.
func (w *Worker) touch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastJob, w.workSince = time.Now(), time.Now()
}

// idleLooks is for how many WatchIntervals a worker must have had no job to be idle:
// fetching the next takes a moment.
const idleLooks = 2

// idleSince is when the last job left, if the worker is idle.
func (w *Worker) idleSince() (since time.Time, idle bool) {
	running, last, _ := w.work()
	return last, running == 0 && time.Since(last) >= idleLooks*w.opts.WatchInterval
}

// work is how many jobs run, when the last came or left, and when jobs began to come
// after a pause.
func (w *Worker) work() (running int, last, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running), w.lastJob, w.workSince
}
