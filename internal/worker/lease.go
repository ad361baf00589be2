package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
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

	reclaim chan struct{} // see Reclaim; constant

	mu      sync.Mutex
	current *budget.Lease // guarded by mu; nil while the job holds nothing
	parked  *budget.Lease // of host memory, for KV outside of the pool; guarded by mu
	moved   chan struct{} // closed when KV that is to be parked has left the pool; guarded by mu; nil = none is
	peak    budget.Bytes  // the most it has held; guarded by mu
	first   int           // tokens that it began with; guarded by mu
	closed  bool          // guarded by mu
}

// Tokens is what the job may use now.
func (l *jobLease) Tokens() int { return int(l.size() / l.worker.pool.perCell) }

func (l *jobLease) size() budget.Bytes {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil {
		return 0
	}
	return l.current.Size()
}

// Resize changes the job's lease to n tokens. A job with nothing in the pool
// waits for its turn in the ledger. For a running job that grows the sets of parallel
// jobs get narrower, and then younger ones give way; if there are none, it gives way
// itself.
func (l *jobLease) Resize(ctx context.Context, used, n int) error {
	want := l.worker.pool.perCell.Mul(int64(n))
	if l.returned(used) {
		if err := l.worker.growing.wait(ctx); err != nil { // else it would take back what it has just given
			return err
		}
		return l.acquire(ctx, want, budget.High)
	}
	if used == 0 {
		l.begin(n)
	}
	err := l.set(want)
	switch {
	case !errors.Is(err, budget.ErrNoRoom):
		return err
	case used == 0:
		// A job that held on to what it has while it waits could wait for
		// another that does so too.
		return l.acquire(ctx, want, budget.Normal)
	}
	defer l.worker.holdIntake()()
	defer l.worker.growing.begin()()
	defer l.worker.sets.wait()()
	for {
		if err := l.set(want); !errors.Is(err, budget.ErrNoRoom) {
			return err
		}
		if err := l.worker.makeRoom(ctx, l.job, want); err != nil {
			return err
		}
	}
}

// begin notes how many tokens the job wants to begin with. If that is more than is leased
// for those to come, it is learnt at once: else they would come and wait for the rest.
func (l *jobLease) begin(n int) {
	l.mu.Lock()
	l.first = n
	l.mu.Unlock()
	if int64(n) > l.worker.ticket.Load() {
		l.worker.learn(n)
	}
}

// needed is how many tokens it was good to have leased for a job that has come to out: as
// many as came to be in the KV cache, and at least those that it began with. Of what was
// removed again, or is of several choices, the largest lease bounds it.
func (l *jobLease) needed(out *infer.Output) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := int(l.peak / l.worker.pool.perCell)
	return max(l.first, min(out.PromptTokens+out.CompletionTokens, most))
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
func (l *jobLease) acquire(ctx context.Context, want budget.Bytes, p budget.Priority) error {
	l.put(nil)
	defer l.worker.holdIntake()()
	defer l.worker.sets.wait()()
	leases, err := l.worker.acquire(ctx, want, p, budget.Request{Ledger: l.worker.ledger, Bytes: want})
	if errors.Is(err, errInVain) {
		return l.worker.shrunkBelow(want)
	}
	if err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	l.put(leases[0])
	return nil
}

// errInVain says that a wait for memory was given up: nobody holds any that could
// be given back, and the pool has shrunk below what is wanted.
var errInVain = errors.New("nobody can make room")

// acquire leases what is requested, all at once, of which want is on the device. It
// gives up a wait in vain with errInVain.
func (w *Worker) acquire(ctx context.Context, want budget.Bytes, p budget.Priority, requests ...budget.Request) ([]*budget.Lease, error) {
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go w.watchWait(waiting, want, giveUp)
	leases, err := w.group.Acquire(waiting, p, requests...)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return nil, errInVain
	}
	return leases, err
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
	l.unpark()
	return l.peak
}

// Reclaim has the engine move the job's KV out of the pool for a while.
func (l *jobLease) Reclaim() <-chan struct{} { return l.reclaim }

// park has the job's KV move to host memory, if there is room for it. It returns
// what is closed once it has left the pool, nil if it stays.
func (l *jobLease) park() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved != nil {
		return l.moved
	}
	if l.closed || l.current == nil {
		return nil
	}
	l.unpark()                  // what was parked is back in the pool
	const head = 4 * budget.KiB // see infer.Lease.Reclaim
	size := l.current.Size()
	lease, ok := l.worker.host.TryAcquire(size.Add(size / 100).Add(head))
	if !ok {
		return nil
	}
	l.parked, l.moved = lease, make(chan struct{})
	l.reclaim <- struct{}{} // there is room: one is sent for each answer
	return l.moved
}

// returned notes that the engine has answered a Reclaim: what the job had in the
// pool is free. KV that was parked before is back in it by any other call.
func (l *jobLease) returned(used int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved == nil {
		l.unpark()
		return false
	}
	if used > 0 { // it was asked for before the engine heard of the Reclaim
		return false
	}
	if l.current != nil { // before anybody hears of it
		l.current.Release()
		l.current = nil
	}
	close(l.moved)
	l.moved = nil
	return true
}

// unpark gives the host memory of parked KV back. mu is held.
func (l *jobLease) unpark() {
	if l.parked != nil {
		l.parked.Release()
		l.parked = nil
	}
}

// makeRoom frees memory for a running job that wants to grow to want: what comes free
// while sets get narrower, then what the youngest job holds. It returns errPreempted if
// that is j itself, and nil when it is time to look whether there is room. The intake
// must be held.
func (w *Worker) makeRoom(ctx context.Context, j *job, want budget.Bytes) error {
	if !w.sets.press(ctx, "a running job cannot grow", false) {
		return pause(ctx, lookAgain)
	}
	victim, holders := w.youngest(func(j *job) bool { return j.lease.Tokens() > 0 })
	switch {
	case victim == j && holders > 1:
		w.gaveWay.Add(1)
		return errPreempted
	case victim == j || victim == nil:
		return w.growAlone(ctx, j, want)
	case w.ledger.Shortfall(want.Sub(j.lease.size())) == 0:
		return nil // somebody has just released enough
	}
	return w.displace(ctx, victim, false)
}

// youngest is the job that came last of those that are meant, and how many they are.
func (w *Worker) youngest(meant func(*job) bool) (youngest *job, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.running {
		if meant(j) {
			youngest = j
			n++
		}
	}
	return youngest, n
}

// displace has a job give its memory back. Where the device's memory is not the
// host's, and unless it must leave, its KV moves there and it goes on when its turn
// comes; else it ends here and goes back to the queue.
func (w *Worker) displace(ctx context.Context, victim *job, mustLeave bool) error {
	log := w.log.With(zap.String("batch", victim.delivery.Job.Batch), zap.String("job", victim.delivery.Job.ID))
	w.gaveWay.Add(1)
	var moved <-chan struct{}
	if w.opts.Device.Kind != budget.CPU && !mustLeave {
		moved = victim.lease.park()
	}
	if moved != nil {
		log.Info("a job gives way and moves to host memory")
	} else {
		log.Info("a job gives way and goes back to the queue")
		victim.end(errPreempted)
	}
	select {
	case <-moved:
		return nil
	case <-victim.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// growAlone is for the only job that holds memory: nobody can make room for it,
// so the pool has shrunk below it. Unless somebody has just released, or has just
// been given what they waited for; then it returns nil, and a moment later all is
// as it seems.
func (w *Worker) growAlone(ctx context.Context, j *job, want budget.Bytes) error {
	s := w.ledger.Snapshot()
	if s.Leases > 1 || want <= s.Room {
		return pause(ctx, time.Millisecond)
	}
	return w.shrunkBelow(want)
}

// pause waits for d, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shrunkBelow says that the pool has shrunk below what a job needs.
func (w *Worker) shrunkBelow(want budget.Bytes) error {
	s := w.ledger.Snapshot()
	return &budget.TooLargeError{What: "a job's KV cache on " + w.opts.Device.ID, Need: want, Capacity: max(s.Room, 0)}
}
