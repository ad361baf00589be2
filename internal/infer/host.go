package infer

import (
	"context"
	"errors"
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
	// each death in a row, up to 30 s. 0 means 200 ms.
	RestartDelay time.Duration
}

// giveUpAfter is how many engines may die in a row without ending a job.
const giveUpAfter = 6

// Host is an Engine in a child process. When the process dies, the jobs in it
// end with a *DiedError and a new process is started with the same model and
// shape; jobs that come meanwhile wait for it.
type Host struct {
	opts HostOptions
	log  *zap.Logger

	spec  Spec  // set by Open
	shape Shape // set by Load

	closing  chan struct{} // closed by Close
	stopOnce sync.Once
	watching sync.WaitGroup

	mu      sync.Mutex
	current *process      // guarded by mu; nil while there is none
	changed chan struct{} // closed and replaced when current or failed changes; guarded by mu
	failed  error         // why no engine comes up any more; guarded by mu
	deaths  int           // engines that died since the last job that ended well; guarded by mu
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
	return &Host{
		opts: opts, log: log.Named("engine"),
		closing: make(chan struct{}), changed: make(chan struct{}),
	}
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
	p, err := startProcess(h.opts.Command, h.opts.Env, h.opts.Stderr)
	if err != nil {
		return nil, Facts{}, &StartError{What: "start an engine", Err: err, Advice: "check that the program can be run: " + h.opts.Command[0]}
	}
	h.opts.OnProcess(p.pid, true)
	h.watching.Go(func() {
		<-p.died
		h.opts.OnProcess(p.pid, false)
	})
	var facts Facts
	if err := p.call(ctx, methodOpen, h.spec, &facts); err != nil {
		p.stop(time.Second)
		return nil, Facts{}, err
	}
	return p, facts, nil
}

// set makes p the engine, or says why there will be none.
func (h *Host) set(p *process, failed error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current, h.failed = p, failed
	close(h.changed)
	h.changed = make(chan struct{})
}

// engine waits until there is a process to talk to.
func (h *Host) engine(ctx context.Context) (*process, error) {
	for {
		h.mu.Lock()
		p, failed, changed := h.current, h.failed, h.changed
		h.mu.Unlock()
		switch {
		case failed != nil:
			return nil, failed
		case p != nil:
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
func (h *Host) DryRun(ctx context.Context, shape Shape) (budget.Footprint, error) {
	return h.shaped(ctx, methodDryRun, shape)
}

// Load loads the model in the engine process and from then on replaces the
// process when it dies.
func (h *Host) Load(ctx context.Context, shape Shape) (budget.Footprint, error) {
	h.shape = shape
	footprint, err := h.shaped(ctx, methodLoad, shape)
	if err != nil {
		return footprint, err
	}
	h.watching.Go(h.replace)
	return footprint, nil
}

func (h *Host) shaped(ctx context.Context, method string, shape Shape) (f budget.Footprint, err error) {
	p, err := h.engine(ctx)
	if err == nil {
		err = p.call(ctx, method, shape, &f)
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
		h.deaths = 0
		h.mu.Unlock()
	}
	return out, err
}

// replace waits for the end of the engine and starts the next, until Close.
func (h *Host) replace() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.watching.Go(func() {
		<-h.closing
		cancel()
	})
	for {
		p, err := h.engine(ctx)
		if err != nil {
			return
		}
		select {
		case <-p.died:
		case <-ctx.Done():
			return
		}
		_ = p.rpc.Close() // its jobs end now
		h.set(nil, nil)
		h.log.Error("the engine process died, a new one is started", zap.Int("pid", p.pid), zap.String("reason", p.cause))
		if err := h.restart(ctx, p.cause); err != nil {
			h.set(nil, err)
			return
		}
	}
}

// restart starts engines until one has loaded.
func (h *Host) restart(ctx context.Context, reason string) error {
	for {
		h.mu.Lock()
		h.deaths++
		n := h.deaths
		h.mu.Unlock()
		if n >= giveUpAfter {
			return &StartError{
				What: "replace the engine", Err: fmt.Errorf("%d engine processes died in a row without finishing a job: %s", n, reason),
				Advice: "look at the engine's lines in the log above; `worker doctor` checks libraries, device and model",
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(h.opts.RestartDelay<<(n-1), 30*time.Second)):
		}
		p, _, err := h.start(ctx)
		if err == nil {
			if err = p.call(ctx, methodLoad, h.shape, nil); err == nil {
				h.log.Info("a new engine process is ready", zap.Int("pid", p.pid))
				h.set(p, nil)
				return nil
			}
			p.stop(time.Second)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason = err.Error()
		h.log.Error("a new engine process did not come up", zap.Error(err))
	}
}

// errClosed is what jobs get that come after Close.
var errClosed = errors.New("the engine is closed")

// Close ends the engine process; jobs still in it end with a *DiedError.
func (h *Host) Close() error {
	h.stopOnce.Do(func() { close(h.closing) })
	h.mu.Lock()
	p := h.current
	h.mu.Unlock()
	h.set(nil, errClosed)
	if p != nil {
		p.stop(5 * time.Second)
	}
	h.watching.Wait()
	return nil
}
