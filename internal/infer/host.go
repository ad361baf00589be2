package infer

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
)

// HostOptions say how engine processes are started.
type HostOptions struct {
	Command []string // program and arguments of an engine process
	Env     []string // added to the environment, KEY=VALUE
	Stderr  io.Writer
	// OnProcess is called with the pid of each engine process when it has
	// started (alive) and when it has ended. It must not block.
	OnProcess func(pid int, alive bool)
	// RestartDelay is the wait before a dead engine is replaced; it doubles with
	// each engine in a row that failed, up to 30 s. 0 means 200 ms.
	RestartDelay time.Duration
	// LoadTimeout is how long an engine may take to start, to load or to change its
	// shape before it is ended and counts as failed. 0 means 10 min.
	LoadTimeout time.Duration
}

// giveUpAfter is how many engines in a row may fail: not come up, or die without
// a job inside. One that dies with jobs inside is their fault, and it is up to
// the caller how often they are tried again.
const giveUpAfter = 6

// Host is an Engine in a child process. When the process dies, the jobs in it
// end with a *DiedError and a new process is started with the same model and
// shape; jobs that come meanwhile wait for it.
type Host struct {
	opts HostOptions
	log  *zap.Logger

	spec    Spec       // set by Open
	shaping sync.Mutex // held while the engine's shape is set or changed

	life     context.Context //nolint:containedctx // ends with Close
	end      context.CancelFunc
	watching sync.WaitGroup // added to under mu, or by one that it counts

	mu       sync.Mutex
	newest   *process      // the process started last; guarded by mu
	current  *process      // the one that takes jobs; guarded by mu; nil while there is none
	changed  chan struct{} // closed and replaced when current or failed changes; guarded by mu
	failed   error         // why there is no engine and none comes up; guarded by mu
	shape    Shape         // of the engines to come; guarded by mu
	width    int           // see Narrow; guarded by mu
	loaded   bool          // an engine that dies is replaced; guarded by mu
	closed   bool          // no process is started any more; guarded by mu
	failures int           // engines that failed since the last job that ended well; guarded by mu
}

var _ Engine = (*Host)(nil)

// NewHost makes a Host; Open starts its first process. A nil log is silent.
func NewHost(opts HostOptions, log *zap.Logger) *Host {
	if log == nil {
		log = zap.NewNop()
	}
	if opts.OnProcess == nil {
		opts.OnProcess = func(int, bool) {}
	}
	if opts.RestartDelay == 0 {
		opts.RestartDelay = 200 * time.Millisecond
	}
	if opts.LoadTimeout == 0 {
		opts.LoadTimeout = 10 * time.Minute
	}
	h := &Host{opts: opts, log: log.Named("engine"), changed: make(chan struct{}), failed: ErrNotOpen}
	h.life, h.end = context.WithCancel(context.Background())
	return h
}

// Open starts an engine process and opens the model in it.
func (h *Host) Open(ctx context.Context, spec Spec) (Facts, error) {
	h.spec = spec
	p, facts, err := h.start(ctx)
	if err != nil {
		return Facts{}, err
	}
	h.set(p, nil)
	return facts, nil
}

// start starts a process and opens the model in it.
func (h *Host) start(ctx context.Context) (*process, Facts, error) {
	p, err := h.spawn() //nolint:contextcheck // the process outlives the call
	if err != nil {
		return nil, Facts{}, err
	}
	h.opts.OnProcess(p.pid, true)
	go func() {
		defer h.watching.Done()
		<-p.died
		h.opts.OnProcess(p.pid, false)
	}()
	var facts Facts
	within, cancel := context.WithTimeout(ctx, h.opts.LoadTimeout)
	defer cancel()
	err = p.call(within, methodOpen, h.spec, &facts)
	if err == nil {
		return p, facts, nil
	}
	p.stop(time.Second)
	if within.Err() != nil && ctx.Err() == nil {
		err = hung("open the model", h.opts.LoadTimeout)
	}
	return nil, Facts{}, err
}

// spawn starts a process, which Close ends from then on, and counts its watcher.
func (h *Host) spawn() (*process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrStopped
	}
	p, err := startProcess(h.opts.Command, h.opts.Env, h.opts.Stderr)
	if err != nil {
		return nil, &StartError{What: "start an engine", Err: err, Advice: "check that the program can be run: " + h.opts.Command[0]}
	}
	h.newest = p
	h.watching.Add(1)
	return p, nil
}

// set makes p the engine, or says why there will be none. After Close it changes
// nothing.
func (h *Host) set(p *process, failed error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.current, h.failed = p, failed
	h.announce()
}

// announce wakes those who wait in engine. mu is held.
func (h *Host) announce() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// engine waits until there is a process to talk to. One that has died, and is
// about to be replaced, is none: a job must not be blamed for its death.
func (h *Host) engine(ctx context.Context) (*process, error) {
	for {
		h.mu.Lock()
		p, failed, changed, loaded := h.current, h.failed, h.changed, h.loaded
		h.mu.Unlock()
		switch {
		case failed != nil:
			return nil, failed
		case p != nil && !(loaded && p.dead()):
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// DryRun asks the engine process.
func (h *Host) DryRun(ctx context.Context, shape Shape) (f budget.Footprint, err error) {
	p, err := h.engine(ctx)
	if err == nil {
		err = p.call(ctx, methodDryRun, shape, &f)
	}
	return f, err
}

// Generate runs a job in the engine process.
func (h *Host) Generate(ctx context.Context, req Request) (*Output, error) {
	p, err := h.engine(ctx)
	if err != nil {
		return nil, err
	}
	out, err := p.generate(ctx, req)
	if err == nil {
		h.mu.Lock()
		h.failures = 0
		h.mu.Unlock()
	}
	return out, err
}

// replace waits for the end of the engine p and starts the next, until ctx is
// done.
func (h *Host) replace(ctx context.Context, p *process) {
	for {
		select {
		case <-p.died:
		case <-ctx.Done():
			return
		}
		_ = p.rpc.Close() // its jobs end now
		if ctx.Err() != nil {
			return // Close ended it
		}
		h.set(nil, nil)
		h.log.Error("the engine process died, a new one is started", zap.Int("pid", p.pid), zap.String("reason", p.cause))
		next, err := h.restart(ctx, p)
		h.set(next, err)
		if err != nil {
			return
		}
		p = next
	}
}

// restart starts engines in place of dead until one has loaded.
func (h *Host) restart(ctx context.Context, dead *process) (*process, error) {
	reason, failed := dead.cause, dead.idle
	for ; ; failed = true {
		n := h.count(failed)
		if n >= giveUpAfter {
			return nil, &StartError{
				What: "replace the engine", Err: fmt.Errorf("%d engine processes in a row did not come up or died without a job: %s", n, reason),
				Advice: "look at the engine's lines in the log above; --log-level debug shows llama.cpp's",
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(h.opts.RestartDelay<<max(n-1, 0), 30*time.Second)):
		}
		p, _, err := h.start(ctx)
		if err == nil {
			h.mu.Lock()
			shape := h.shape
			h.mu.Unlock()
			if err = h.fill(ctx, p, shape); err == nil {
				h.log.Info("a new engine process is ready", zap.Int("pid", p.pid))
				return p, nil
			}
			p.stop(time.Second)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		reason = err.Error()
		h.log.Error("a new engine process did not come up", zap.Error(err))
	}
}

// count notes that an engine failed, if it did, and returns how many have in a row.
func (h *Host) count(failed bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if failed {
		h.failures++
	}
	return h.failures
}

// Close ends the engine process, also one that is still starting; one that hangs by
// force, after 2 s. Jobs in it end with a *DiedError, jobs that come later with
// ErrStopped.
func (h *Host) Close() error {
	h.mu.Lock()
	if !h.closed {
		h.closed, h.current, h.failed = true, nil, ErrStopped
		h.announce()
		h.end()
	}
	p := h.newest
	h.mu.Unlock()
	if p != nil {
		p.stop(closeGrace)
	}
	h.watching.Wait()
	return nil
}
