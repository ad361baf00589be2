package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// member is a model of a team, loaded or not.
type member struct {
	Model
	team *Team
	log  *zap.Logger

	// Set by examine, as if it were loaded alone:
	preview Preview
	longest int          // job, in tokens
	least   budget.Bytes // what it takes with the smallest pool that is of any use
	full    budget.Bytes // with the pool that was planned
	probe   *Worker      // was not loaded; reads limits

	// Of takeTurns:
	wanted  time.Time // since when jobs wait for it; zero = none is known to
	heard   time.Time // since when there are jobs, waiting or not; zero = there are none
	resting *Worker   // that takes no jobs until resume is called; see rest
	resume  func()

	mu      sync.Mutex
	worker  *Worker         // nil while it is not loaded; guarded by mu
	ended   chan struct{}   // closed when worker has ended and given its memory back; guarded by mu
	took    time.Duration   // by the last load; guarded by mu
	failure error           // why it ended or was not loaded last, nil = it did not fail; guarded by mu
	faults  int             // in a row; guarded by mu
	retry   time.Time       // before which it is not loaded; guarded by mu
	last    api.MemoryStats // of the last worker, as it ended; guarded by mu
}

// options are a worker's for this model.
func (m *member) options() Options {
	o := m.team.opts
	o.Model, o.Spec, o.Layers = m.Name, m.Spec, m.Layers
	return o
}

// borrowed is the team's taker in a worker's hands: it goes on when the worker ends.
type borrowed struct{ ModelTaker }

func (borrowed) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// newWorker makes a worker that is one of the team.
func (m *member) newWorker(engine infer.Engine) *Worker {
	w := New(m.options(), m.team.queue, borrowed{m.Taker}, engine, m.Monitor, m.log)
	w.common = m.team.common
	return w
}

// examine opens the model and plans its memory as if it were loaded alone, beside the
// claims of others. What it has found until an error is in preview.
func (m *member) examine(ctx context.Context, others []api.Claim) (err error) {
	engine := m.Engine()
	defer func() { err = errors.Join(err, engine.Close()) }()
	w := m.newWorker(engine)
	if m.preview, err = w.Preview(ctx, others); err != nil {
		return fmt.Errorf("model %s: %w", m.Name, err)
	}
	m.probe, m.longest = w, min(w.facts.Context, w.plan.Cells)
	m.least, m.full = w.pool.floor.Total(), w.plan.Footprint.Total()
	return nil
}

// begin examines the model beside the claims that there are. While those leave too
// little it waits for a while, in case one of the others is gone.
func (m *member) begin(ctx context.Context) error {
	for deadline := time.Now().Add(claimLife); ; {
		others, err := m.team.claims(ctx)
		if err == nil {
			err = m.examine(ctx, others)
		}
		var large *budget.TooLargeError
		if !errors.As(err, &large) || len(foreign(others, m.team.opts.Name)) == 0 || time.Now().After(deadline) {
			return err
		}
		m.log.Warn("other workers have claimed the device's memory; waiting in case one of them is gone",
			zap.Int("others", len(others)), zap.Error(err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(m.team.opts.RetryStart):
		}
	}
}

// foreign are the claims of other workers than the one of this name.
func foreign(claims []api.Claim, name string) []api.Claim {
	var others []api.Claim
	for _, c := range claims {
		if !c.Own || c.Worker != name {
			others = append(others, c)
		}
	}
	return others
}

// load loads the model, and has its worker take jobs until ctx is done or unload is
// called.
func (m *member) load(ctx context.Context) error {
	began := time.Now()
	engine := m.Engine()
	w := m.newWorker(engine)
	m.mu.Lock()
	w.tokens.Store(m.last.Tokens)
	w.gaveWay.Store(m.last.GaveWay)
	w.sets.steps.Store(m.last.Narrowed)
	m.mu.Unlock()
	if err := w.Start(ctx); err != nil {
		err = errors.Join(err, engine.Close())
		m.team.common.clear(m.Name)
		return err
	}
	ended := make(chan struct{})
	m.mu.Lock()
	m.worker, m.ended, m.took, m.failure = w, ended, time.Since(began), nil
	m.mu.Unlock()
	go func() {
		defer close(ended)
		err := w.Run(ctx)
		m.end(ctx, w, errors.Join(err, engine.Close()))
	}()
	return nil
}

// end gives back what a worker has held whose engine has ended. Only when all is given
// back may the model be loaded again.
func (m *member) end(ctx context.Context, w *Worker, err error) {
	w.withdraw(context.WithoutCancel(ctx))
	last := w.Stats()
	m.team.common.clear(m.Name)
	if err != nil {
		m.fail(err)
	}
	m.mu.Lock()
	m.last, m.worker = last, nil
	if err == nil {
		m.faults = 0
	}
	m.mu.Unlock()
	m.team.poke()
}

// fail notes that the model cannot be served for now.
func (m *member) fail(err error) {
	m.mu.Lock()
	m.failure = fmt.Errorf("model %s: %w", m.Name, err)
	again := min(failedFirst<<min(m.faults, 10), failedMost)
	m.retry = time.Now().Add(again)
	m.faults++
	m.mu.Unlock()
	m.log.Error("the model cannot be served for now; its jobs stay in the queue", zap.Duration("tried_again_after", again), zap.Error(err))
	m.team.failed(err)
}

// postpone has the model not be loaded for a while.
func (m *member) postpone(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retry = time.Now().Add(d)
}

// unload has the model's worker take no more jobs, waits until the running ones have
// ended, and ends its engine.
func (m *member) unload(ctx context.Context) {
	s := m.state()
	if s.worker == nil {
		return
	}
	m.log.Info("the model is unloaded: another one is wanted", zap.Int("running", s.worker.count()))
	s.worker.retire()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
}

// wait waits for the end of the model's worker, which is about to end.
func (m *member) wait() {
	if s := m.state(); s.ended != nil {
		<-s.ended
	}
}

// state is a member at one moment.
type state struct {
	worker  *Worker
	ended   <-chan struct{}
	took    time.Duration
	failure error
	retry   time.Time
}

// down reports whether the model has failed and is not tried again yet.
func (s state) down() bool { return s.failure != nil && time.Now().Before(s.retry) }

func (m *member) state() state {
	m.mu.Lock()
	defer m.mu.Unlock()
	return state{m.worker, m.ended, m.took, m.failure, m.retry}
}

// stats are those of the model's worker, or of the last as it ended; nobody's name
// stands in them if there was none.
func (m *member) stats() (s api.MemoryStats, loaded *Worker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.worker != nil {
		return m.worker.Stats(), m.worker
	}
	return m.last, nil
}

// notice has the team look at once when a batch comes or goes.
func (m *member) notice(ctx context.Context) {
	for {
		select {
		case <-m.Taker.Changed():
			m.team.poke()
		case <-ctx.Done():
			return
		}
	}
}

// listenLimit bounds the question whether there are jobs: nobody is loaded meanwhile.
const listenLimit = 5 * time.Second

// listen asks whether there are jobs for a model that does not work.
func (m *member) listen(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, listenLimit)
	defer cancel()
	jobs, err := m.Taker.Backlog(ctx)
	if err != nil {
		m.log.Debug("it is not known whether there are jobs", zap.Error(err))
		return // what was known stands
	}
	if jobs == queue.NoJobs {
		m.wanted, m.heard = time.Time{}, time.Time{}
		return
	}
	if m.heard.IsZero() {
		m.heard = now
	}
	// What others have for as long as a turn may as well be waiting: see JobsElsewhere.
	if m.wanted.IsZero() && (jobs == queue.JobsWaiting || now.Sub(m.heard) > m.team.opts.Turn) {
		m.wanted = now
	}
}
