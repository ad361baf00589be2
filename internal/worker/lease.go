package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
	err := l.set(want)
	switch {
	case !errors.Is(err, budget.ErrNoRoom):
		return err
	case used == 0:
		// A job that held on to what it has while it waits could wait for
		// another that does so too.
		return l.acquire(ctx, want)
	}
	defer l.worker.holdIntake()()
	for {
		if err := l.set(want); !errors.Is(err, budget.ErrNoRoom) {
			return err
		}
		if err := l.worker.makeRoom(ctx, l.job, want); err != nil {
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
	defer l.worker.holdIntake()()
	lease, err := l.worker.acquire(ctx, want)
	if errors.Is(err, errInVain) {
		return l.worker.shrunkBelow(want)
	}
	if err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	l.put(lease)
	return nil
}

// errInVain says that a wait for memory was given up: nobody holds any that could
// be given back, and the pool has shrunk below what is wanted.
var errInVain = errors.New("nobody can make room")

// acquire is Ledger.Acquire that gives up a wait in vain with errInVain.
func (w *Worker) acquire(ctx context.Context, want budget.Bytes) (*budget.Lease, error) {
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go w.watchWait(waiting, want, giveUp)
	lease, err := w.ledger.Acquire(waiting, want, budget.Normal)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return nil, errInVain
	}
	return lease, err
}

// watchWait gives a wait for memory up when it is in vain, or ends with it.
func (w *Worker) watchWait(waiting context.Context, want budget.Bytes, giveUp context.CancelFunc) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-waiting.Done():
			return
		case <-tick.C:
		}
		if s := w.ledger.Snapshot(); s.Leases == 0 && want > s.Room {
			giveUp()
		}
	}
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

// makeRoom frees memory for a running job that wants to grow to want: what the
// youngest job holds. It returns errPreempted if that is j itself. The intake must
// be held.
func (w *Worker) makeRoom(ctx context.Context, j *job, want budget.Bytes) error {
	victim, holders := w.youngestHolder()
	switch {
	case victim == j && holders > 1:
		return errPreempted
	case victim == j || victim == nil:
		return w.growAlone(ctx, j, want)
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

// youngestHolder is the job that came last of those that hold memory, and how
// many they are.
func (w *Worker) youngestHolder() (youngest *job, holders int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.running {
		if j.lease.Tokens() > 0 {
			youngest = j
			holders++
		}
	}
	return youngest, holders
}

// growAlone is for the only job that holds memory: nobody can make room for it,
// so the pool has shrunk below it. Unless somebody has just released, or has just
// been given what they waited for; then it returns nil, and a moment later all is
// as it seems.
func (w *Worker) growAlone(ctx context.Context, j *job, want budget.Bytes) error {
	s := w.ledger.Snapshot()
	if s.Leases > 1 || want <= s.Room {
		select {
		case <-time.After(time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return w.shrunkBelow(want)
}

// shrunkBelow says, also in the log, that the pool has shrunk below what a job
// needs: the processes hold more beside it than was planned.
func (w *Worker) shrunkBelow(want budget.Bytes) error {
	s := w.ledger.Snapshot()
	w.log.Warn("a job fails because more memory is held beside the KV cache than was planned",
		zap.Int64("need_bytes", int64(want)), zap.Int64("room_bytes", int64(s.Room)), zap.Stringer("measured", s.Measured))
	return &budget.TooLargeError{
		What: "a job's KV cache on " + w.opts.Device.ID, Need: want, Capacity: max(s.Room, 0),
		Hints: []string{"wait until others on the device have given memory back, or lower max_tokens"},
	}
}
