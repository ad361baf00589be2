package worker

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"tempo/api"
	"tempo/internal/infer/parallel"
)

// Jobs that generate in parallel (api.Parallel) have several tokens at one position, and
// the least likely of them are what can be missed first. So before a running job gives way
// to another, or to a smaller pool, the sets get narrower: to half of what they may be, to
// half of that, and so on down to one token. That frees nothing by itself, but what jobs end
// with, or remove, is no longer taken at once.
const (
	// moment is how long memory has to come free after each step down, about ten steps of
	// an engine. A job that waits has as much: it asks when a quarter of its lease is left.
	moment = 500 * time.Millisecond
	// lookAgain is how often a job that waits looks whether it has.
	lookAgain = 20 * time.Millisecond
	// calm is for how long nobody must have waited for memory before each step up.
	calm = 3 * time.Second
	// tellLimit is how long a caller waits at most for the engine to have taken a step up or
	// down. It does so between two of its own, and a prompt of a large model on a CPU can take
	// much longer.
	tellLimit = time.Second
)

// narrower owns the bound on the tokens that a worker's jobs may have at one position. Safe
// for concurrent use.
type narrower struct {
	narrow func(ctx context.Context, width int) error // Engine.Narrow
	widest func() int                                 // of the sets that running jobs may have, 0 = none is parallel
	log    *zap.Logger

	steps atomic.Int64        // down, so far
	turn  *semaphore.Weighted // of weight 1: held from a change of the bound until the engine has answered

	mu      sync.Mutex
	bounds  []int     // those of all steps down; the last is in force once the engine has answered; guarded by mu
	settled time.Time // when the last step has had its moment; guarded by mu
	waiting int       // jobs that wait for memory; guarded by mu
	quiet   time.Time // since when none does and the bound is the same; guarded by mu
}

func newNarrower(narrow func(context.Context, int) error, widest func() int, log *zap.Logger) *narrower {
	return &narrower{narrow: narrow, widest: widest, log: log, turn: semaphore.NewWeighted(1)}
}

// bound is the one that is in force, or is about to be; 0 = there is none.
func (n *narrower) bound() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return last(n.bounds)
}

func last(bounds []int) int {
	if len(bounds) == 0 {
		return 0
	}
	return bounds[len(bounds)-1]
}

// wait notes that a job waits for memory until end is called.
func (n *narrower) wait() (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.waiting--
		n.quiet = time.Now()
	}
}

// press goes a step down, once the last one is in force and has had its moment. It reports
// whether there is nothing more to be had from the sets: all are of one token, or no running job
// is parallel. If it is urgent it goes all the way down, and that is so at once; if the engine
// has not answered to the last step yet, that is all there is.
func (n *narrower) press(ctx context.Context, reason string, urgent bool) (spent bool) {
	widest := n.widest()
	if widest <= 1 {
		return true
	}
	if !n.take(ctx, urgent) {
		return urgent
	}
	n.mu.Lock()
	bounds, settled := slices.Clone(n.bounds), n.settled
	n.mu.Unlock()
	width := widest
	if len(bounds) > 0 {
		width = min(width, last(bounds))
	}
	switch {
	case !urgent && time.Now().Before(settled):
		n.turn.Release(1)
		return false
	case width == 1:
		n.turn.Release(1)
		return true
	}
	for next := width / 2; next >= 1; next /= 2 {
		if bounds = append(bounds, next); !urgent {
			break
		}
	}
	n.steps.Add(1)
	n.log.Info("the sets of parallel jobs get narrower", zap.Int("width", last(bounds)),
		zap.Int("before", width), zap.String("reason", reason))
	n.set(ctx, bounds)
	return urgent
}

// take takes the turn, if the engine has answered to the last step; who is urgent waits a little.
func (n *narrower) take(ctx context.Context, urgent bool) bool {
	if !urgent {
		return n.turn.TryAcquire(1)
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	return n.turn.Acquire(ctx, 1) == nil
}

// relax goes a step up where nobody has waited for memory for a while, if there is room: in
// the end there is no bound any more. Where no running job is parallel none is needed.
func (n *narrower) relax(ctx context.Context, room bool) {
	if n.bound() == 0 || !n.turn.TryAcquire(1) {
		return
	}
	n.mu.Lock()
	bounds, resting := slices.Clone(n.bounds), n.waiting == 0 && time.Since(n.quiet) >= calm
	n.mu.Unlock()
	unused := n.widest() == 0
	if !resting || !room && !unused {
		n.turn.Release(1)
		return
	}
	before, reason := last(bounds), "nobody waits for memory"
	bounds = bounds[:len(bounds)-1]
	if unused {
		bounds, reason = nil, "no job is parallel"
	}
	fields := []zap.Field{zap.Int("before", before), zap.String("reason", reason)}
	if width := last(bounds); width > 0 { // else there is no bound
		fields = append(fields, zap.Int("width", width))
	}
	n.log.Info("the sets of parallel jobs may be wider again", fields...)
	n.set(ctx, bounds)
}

// set has the last of the bounds in force, 0 where there are none, and gives the turn, which is
// held, back when the engine has answered: then it is so, and the moment begins. Who called waits
// no longer than tellLimit for that, and the call goes on beyond ctx, so that the next step never
// overtakes it.
func (n *narrower) set(ctx context.Context, bounds []int) {
	n.mu.Lock()
	n.bounds = bounds
	n.mu.Unlock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		n.tell(context.WithoutCancel(ctx), bounds)
	}()
	limit := time.NewTimer(tellLimit)
	defer limit.Stop()
	select {
	case <-told:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// tell tells the engine, and gives the turn back. An engine that cannot be told has died or ends:
// its successor begins with the bound.
func (n *narrower) tell(ctx context.Context, bounds []int) {
	if err := n.narrow(ctx, last(bounds)); err != nil {
		n.log.Debug("the engine could not be told how wide sets may be", zap.Error(err))
	}
	n.mu.Lock()
	n.quiet = time.Now()
	n.settled = n.quiet.Add(moment)
	n.mu.Unlock()
	n.turn.Release(1)
}

// widestSet is how many tokens a running job may have at one position, as far as it and the
// worker say; 0 = no running job is parallel.
func (w *Worker) widestSet() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	widest := 0
	for _, j := range w.running {
		if j.parallel == nil || j.lease.Tokens() == 0 {
			continue
		}
		widest = max(widest, w.widthOf(j.parallel))
	}
	return widest
}

// widthOf is how many tokens a job may have at one position.
func (w *Worker) widthOf(p *api.Parallel) int {
	return parallel.Widest(p, w.pool.sequences) // max_parallel_tokens, with which the engine was loaded
}
