package infer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sourcegraph/jsonrpc2"
	"golang.org/x/sys/unix"

	"tempo/internal/budget"
)

// process is one engine process and the connection to it.
type process struct {
	pid   int
	cmd   *exec.Cmd
	rpc   *jsonrpc2.Conn
	died  chan struct{} // closed after the process has ended and what follows is set
	tail  *tail
	cause string       // why it ended; read it after died is closed
	idle  bool         // it had no job when it ended; read it after died is closed
	grant atomic.Int64 // bytes to which its memory is bounded, 0 = not

	changing atomic.Bool // its shape is being changed

	shape Shape            // of its last load; written before it takes jobs, or with Host.shaping held
	holds budget.Footprint // what that took; likewise

	mu   sync.Mutex
	jobs map[string]*running // by their name on the wire; guarded by mu
	runs int                 // jobs so far; guarded by mu
}

// running is a job in the engine.
type running struct {
	ctx   context.Context //nolint:containedctx // for the engine's requests on the job's behalf; ends with the job
	lease Lease
	asks  sync.WaitGroup // requests under way; added to under process.mu
	err   error          // the lease's refusal; guarded by process.mu
}

// startProcess starts an engine process. It ends with this one, however this one
// ends: by the closed socket, and by the kernel's parent-death signal.
func startProcess(command, env []string, stderr io.Writer) (*process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &process{died: make(chan struct{}), tail: &tail{next: stderr}, jobs: map[string]*running{}}
	p.cmd = exec.Command(command[0], command[1:]...) //nolint:noctx // it ends by its socket, then by kill
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.tail
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.WaitDelay = 2 * time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // Ctrl-C is for the worker, which decides
		Pdeathsig: syscall.SIGKILL,
	}
	started := make(chan error)
	go p.wait(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start the engine process: %w", err), ours.Close())
	}
	p.rpc = connect(context.Background(), ours, p.handle)
	return p, nil
}

// wait starts the process and waits for its end on one thread, since the
// parent-death signal comes when the thread that started the child ends.
func (p *process) wait(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	if err == nil {
		p.pid = p.cmd.Process.Pid
	}
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // the state says more than the error
	p.cause = p.cmd.ProcessState.String()
	if grant := p.bounded(); grant > 0 {
		p.cause += fmt.Sprintf("; its memory was bounded to %v", grant)
	}
	if last := p.tail.String(); last != "" {
		p.cause += "; it last wrote: " + last
	}
	p.mu.Lock()
	p.idle = len(p.jobs) == 0
	p.mu.Unlock()
	close(p.died)
}

// bounded is to what the process's memory is bounded, 0 = not at all.
func (p *process) bounded() budget.Bytes { return budget.Bytes(p.grant.Load()) }

// socketPair makes the two ends of the connection.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create the engine's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "engine socket"), os.NewFile(uintptr(fds[1]), "engine socket")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the engine's socket: %w", err), theirs.Close())
	}
	return conn, theirs, nil
}

// handle answers the engine's requests for memory.
func (p *process) handle(ctx context.Context, conn *jsonrpc2.Conn, r *jsonrpc2.Request) {
	req, err := params[wireResize](r)
	if err == nil && r.Method != methodResize {
		err = fmt.Errorf("a worker has no method %q", r.Method)
	}
	if err != nil {
		answer(ctx, conn, r.ID, nil, err)
		return
	}
	go func() { answer(ctx, conn, r.ID, struct{}{}, p.resize(req)) }()
}

func (p *process) resize(req wireResize) error {
	p.mu.Lock()
	job := p.jobs[req.ID]
	if job != nil {
		job.asks.Add(1)
	}
	p.mu.Unlock()
	if job == nil {
		return fmt.Errorf("job %s is not running", req.ID)
	}
	defer job.asks.Done()
	err := job.lease.Resize(job.ctx, req.Used, req.Tokens)
	if err != nil {
		p.mu.Lock()
		job.err = err
		p.mu.Unlock()
	}
	return err
}

// call makes one call and waits for its answer or the end of the process.
func (p *process) call(ctx context.Context, method string, in, out any) error {
	err := p.rpc.Call(ctx, method, in, out)
	return p.explain(err)
}

// explain turns the error of a call into what it means.
func (p *process) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsonrpc2.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return p.end()
	}
	return fromWire(err)
}

// end waits for the end of a process that is ending, and says why it did.
func (p *process) end() *DiedError {
	p.stop(endGrace)
	return &DiedError{Reason: p.cause, Reshaping: p.changing.Load()}
}

// endGrace is how long a process that breaks may take to end by itself, so that
// it can still say why.
const endGrace = 5 * time.Second

// closeGrace is how long a process may take that is told to end: the step that it
// is in, and giving its memory back.
const closeGrace = 2 * time.Second

// generate runs a job. It returns only when the engine has let go of the job's
// KV tokens, also when ctx is done, and asks nothing of the lease after that.
func (p *process) generate(ctx context.Context, req Request) (*Output, error) {
	// Not ctx: a cancelled job is told to the engine, and its answer awaited.
	free := context.WithoutCancel(ctx)
	asking, cancel := context.WithCancel(ctx)
	job := &running{ctx: asking, lease: req.Lease}
	id := p.add(req.ID, job)
	defer func() {
		p.remove(id)
		cancel()
		job.asks.Wait()
	}()
	call, err := p.rpc.DispatchCall(free, methodGenerate,
		wireRequest{wireJob: id, Job: req.Job, Seed: req.Seed, Priority: req.Priority, Most: req.Most, Leased: req.Lease.Tokens()})
	if err != nil {
		return nil, p.explain(err)
	}
	// Only now: the engine would forget a cancel that overtakes its job.
	stop := context.AfterFunc(ctx, func() { _ = p.rpc.Notify(free, methodCancel, id) })
	defer stop()
	if recall := req.Lease.Reclaim(); recall != nil {
		job.asks.Go(func() { p.watch(asking, recall, id) })
	}
	var out Output
	err = p.explain(call.Wait(free, &out))
	switch {
	case err == nil:
		return &out, nil
	case errors.Is(err, errLease) && p.refusal(job) != nil:
		return nil, p.refusal(job)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, context.Canceled), errors.Is(err, ErrStopped), errors.Is(err, errLease):
		// Nobody cancelled the job or refused it memory: the engine broke, and ends
		// all that it has.
		return nil, p.end()
	}
	return nil, err
}

// watch tells the engine that a job's memory is wanted back, until ctx is done.
func (p *process) watch(ctx context.Context, recall <-chan struct{}, id wireJob) {
	for {
		select {
		case <-recall:
			_ = p.rpc.Notify(ctx, methodReclaim, id) // in vain if the engine has ended
		case <-ctx.Done():
			return
		}
	}
}

// add registers a job that begins, and returns its name on the wire. The same job
// can be here twice, delivered a second time while the first run goes on: each
// run has a name of its own.
func (p *process) add(id string, job *running) wireJob {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs++
	name := fmt.Sprintf("%s#%d", id, p.runs)
	p.jobs[name] = job
	return wireJob{name}
}

func (p *process) remove(id wireJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.jobs, id.ID)
}

// refusal is why a job's lease was refused, nil if it was not.
func (p *process) refusal(job *running) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return job.err
}

// dead reports whether the process has ended.
func (p *process) dead() bool {
	select {
	case <-p.died:
		return true
	default:
		return false
	}
}

// stop ends the process: by closing the connection, and by force if it is still
// there after grace.
func (p *process) stop(grace time.Duration) {
	_ = p.rpc.Close() // it may be closed already
	select {
	case <-p.died:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.died
	}
}
