package infer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/sourcegraph/jsonrpc2"
)

// EngineFD is the file descriptor on which an engine process finds its end of
// the socket pair: the first after stdin, stdout and stderr.
const EngineFD = 3

// ServeParent serves engine to the process that started this one, until that
// closes the connection, dies, or fatal receives the error that broke engine.
func ServeParent(ctx context.Context, engine Engine, fatal <-chan error) error {
	file := os.NewFile(EngineFD, "engine socket")
	if file == nil {
		return errors.New("an engine process is started by a worker, not by hand")
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("an engine process is started by a worker, not by hand: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close the inherited descriptor: %w", err)
	}
	return Serve(ctx, conn, engine, fatal)
}

// Serve serves engine on conn until the other end closes it, ctx is done, or
// fatal receives an error, which it returns. It closes engine.
func Serve(ctx context.Context, conn net.Conn, engine Engine, fatal <-chan error) error {
	s := &server{engine: engine, jobs: map[string]*served{}}
	ctx, cancel := context.WithCancel(ctx)
	rpc := connect(ctx, conn, s.handle)
	var broke error
	select {
	case <-rpc.DisconnectNotify():
	case broke = <-fatal:
	}
	cancel()
	s.end()
	err := engine.Close()
	if broke == nil { // the other end may have closed because of it, and been faster
		select {
		case broke = <-fatal:
		default:
		}
	}
	if broke != nil {
		err = errors.Join(fmt.Errorf("the engine broke: %w", broke), err)
	}
	return err
}

// server answers the worker's requests.
type server struct {
	engine  Engine
	running sync.WaitGroup

	mu    sync.Mutex
	jobs  map[string]*served // running jobs; guarded by mu
	ended bool               // no more work is begun; guarded by mu
}

// served is a running job.
type served struct {
	cancel context.CancelFunc
	lease  *remoteLease
}

// start runs work beside the connection's reader, unless the server has ended.
func (s *server) start(work func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.running.Go(work)
	}
}

// end waits for all work; the reader may still hand out a last request.
func (s *server) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.running.Wait()
}

// handle registers what must happen in order and does the rest beside the
// connection's reader.
func (s *server) handle(ctx context.Context, conn *jsonrpc2.Conn, r *jsonrpc2.Request) {
	switch r.Method {
	case methodCancel:
		if p, err := params[wireJob](r); err == nil {
			s.cancel(p.ID)
		}
		return
	case methodReclaim:
		if p, err := params[wireJob](r); err == nil {
			s.reclaim(p.ID)
		}
		return
	}
	work := s.call
	if r.Method == methodGenerate {
		p, err := params[wireRequest](r)
		if err != nil {
			answer(ctx, conn, r.ID, nil, err)
			return
		}
		lease := &remoteLease{conn: conn, job: p.wireJob, recall: make(chan struct{}, 1)}
		lease.tokens.Store(int64(p.Leased))
		jobCtx := s.begin(ctx, p.ID, lease)
		work = func(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) (any, error) {
			defer s.cancel(p.ID)
			return s.engine.Generate(jobCtx, Request{ID: p.ID, Job: p.Job, Seed: p.Seed, Priority: p.Priority, Most: p.Most, Lease: lease})
		}
	}
	s.start(func() {
		result, err := work(ctx, conn, r)
		answer(ctx, conn, r.ID, result, err)
	})
}

func (s *server) begin(ctx context.Context, id string, lease *remoteLease) context.Context {
	jobCtx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[id] = &served{cancel, lease}
	return jobCtx
}

func (s *server) cancel(id string) {
	s.mu.Lock()
	job := s.jobs[id]
	delete(s.jobs, id)
	s.mu.Unlock()
	if job != nil {
		job.cancel()
	}
}

// reclaim tells a job that its memory is wanted back. One that was told, and has
// not looked yet, need not be told again.
func (s *server) reclaim(id string) {
	s.mu.Lock()
	job := s.jobs[id]
	s.mu.Unlock()
	if job == nil {
		return // it has ended
	}
	select {
	case job.lease.recall <- struct{}{}:
	default:
	}
}

func (s *server) call(ctx context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
	switch r.Method {
	case methodOpen:
		p, err := params[Spec](r)
		if err != nil {
			return nil, err
		}
		return s.engine.Open(ctx, p)
	case methodNarrow:
		width, err := params[int](r)
		if err != nil {
			return nil, err
		}
		return nil, s.engine.Narrow(ctx, width)
	case methodDryRun, methodLoad, methodReshape:
		p, err := params[Shape](r)
		if err != nil {
			return nil, err
		}
		switch r.Method {
		case methodLoad:
			return s.engine.Load(ctx, p)
		case methodReshape:
			return s.engine.Reshape(ctx, p)
		}
		return s.engine.DryRun(ctx, p)
	}
	return nil, fmt.Errorf("an engine has no method %q", r.Method)
}

// remoteLease is a lease whose memory is in the worker's ledger.
type remoteLease struct {
	conn   *jsonrpc2.Conn
	job    wireJob
	tokens atomic.Int64
	recall chan struct{} // has room for one
}

func (l *remoteLease) Tokens() int { return int(l.tokens.Load()) }

func (l *remoteLease) Reclaim() <-chan struct{} { return l.recall }

func (l *remoteLease) Resize(ctx context.Context, used, n int) error {
	err := l.conn.Call(ctx, methodResize, wireResize{l.job, used, n}, nil)
	if err == nil {
		l.tokens.Store(int64(n))
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", errLease, err)
}
