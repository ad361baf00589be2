package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"tempo/internal/budget"
)

// Reasons for which a job is ended before it has an answer; it goes back to the
// queue and no attempt is counted.
var (
	errPreempted = errors.New("an older job needed the memory")
	errDrained   = errors.New("the worker is stopping")
)

// jobLease is a job's lease in tokens, as the engine sees it. Behind it is one
// lease of the ledger at a time. Safe for concurrent use.
type jobLease struct {
	worker *Worker
	job    *job

	mu      sync.Mutex
	current *budget.Lease // guarded by mu; nil while the job holds nothing
	peak    budget.Bytes  // the most it has held; guarded by mu
	closed  bool          // guarded by mu
}

// Tokens is what the job may use now.
func (l *jobLease) Tokens() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil {
		return 0
	}
	return int(l.current.Size() / l.worker.perCell)
}

// Resize changes the job's lease to n tokens. A job with nothing in the pool
// waits for its turn in the ledger. A running job that grows makes younger ones
// give way; if there are none, it gives way itself.
func (l *jobLease) Resize(ctx context.Context, used, n int) error {
	want := l.worker.perCell.Mul(int64(n))
	if used == 0 {
		l.worker.learn(n)
	}
	for {
		err := l.set(want)
		switch {
		case !errors.Is(err, budget.ErrNoRoom):
			return err
		case used == 0:
			// A job that held on to what it has while it waits could wait for
			// another that does so too.
			return l.acquire(ctx, want)
		}
		if err := l.worker.makeRoom(ctx, l.job); err != nil {
			return err
		}
	}
}

// set changes the size of the lease if that is possible now.
func (l *jobLease) set(want budget.Bytes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil {
		return budget.ErrNoRoom
	}
	defer func() { l.peak = max(l.peak, l.current.Peak()) }()
	size := l.current.Size()
	if want <= size {
		l.current.Shrink(size.Sub(want))
		return nil
	}
	return l.current.Grow(want.Sub(size))
}

// acquire gives up what the job holds and waits for want bytes.
func (l *jobLease) acquire(ctx context.Context, want budget.Bytes) error {
	l.put(nil)
	l.worker.yield()
	lease, err := l.worker.ledger.Acquire(ctx, want, budget.Normal)
	if err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	l.put(lease)
	return nil
}

// put replaces what the job holds; nil = nothing. A job that has left keeps
// nothing.
func (l *jobLease) put(lease *budget.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil {
		l.current.Release()
	}
	l.current = lease
	if lease == nil {
		return
	}
	if l.closed {
		lease.Release()
	}
	l.peak = max(l.peak, lease.Peak())
}

// close gives everything back for good and returns the most that was held.
func (l *jobLease) close() budget.Bytes {
	l.put(nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.peak
}

// makeRoom frees memory for a running job: first what an idle fetch holds, then
// what the youngest job holds. It returns errPreempted if that is j itself.
func (w *Worker) makeRoom(ctx context.Context, j *job) error {
	if w.yield() {
		return nil
	}
	victim := w.youngest()
	if victim == nil {
		return fmt.Errorf("grow the lease: %w", budget.ErrNoRoom)
	}
	if victim == j && w.count() > 1 {
		return errPreempted
	}
	if victim == j {
		return w.cannotGrow(j)
	}
	w.log.Info("a job gives way to an older one and goes back to the queue",
		zap.String("batch", victim.delivery.Job.Batch), zap.String("job", victim.delivery.Job.ID))
	victim.end(errPreempted)
	select {
	case <-victim.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// youngest is the job that came last, nil if there is none.
func (w *Worker) youngest() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.running) == 0 {
		return nil
	}
	return w.running[len(w.running)-1]
}

// cannotGrow is the error of the only job, for which nobody can make room: the
// pool has shrunk below it.
func (w *Worker) cannotGrow(j *job) error {
	s := w.ledger.Snapshot()
	return &budget.TooLargeError{
		What: "a job's KV cache on " + w.opts.Device.ID, Need: w.perCell.Mul(int64(j.lease.Tokens()) + 1), Capacity: max(s.Room, 0),
		Hints: []string{"wait until others on the device have given memory back, or lower max_tokens"},
	}
}
