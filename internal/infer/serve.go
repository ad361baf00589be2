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
	s := &server{engine: engine, jobs: map[string]context.CancelFunc{}}
	ctx, cancel := context.WithCancel(ctx)
	rpc := connect(ctx, conn, s.handle)
	var err error
	select {
	case <-rpc.DisconnectNotify():
	case err = <-fatal:
		err = fmt.Errorf("the engine broke: %w", err)
	}
	cancel()
	s.end()
	return errors.Join(err, engine.Close())
}

// server answers the worker's requests.
type server struct {
	engine  Engine
	running sync.WaitGroup

	mu    sync.Mutex
	jobs  map[string]context.CancelFunc // running jobs; guarded by mu
	ended bool                          // no more work is begun; guarded by mu
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
	if r.Method == methodCancel {
		if p, err := params[wireJob](r); err == nil {
			s.cancel(p.ID)
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
		jobCtx := s.begin(ctx, p.ID)
		work = func(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) (any, error) {
			defer s.cancel(p.ID)
			return s.generate(jobCtx, conn, p)
		}
	}
	s.start(func() {
		result, err := work(ctx, conn, r)
		answer(ctx, conn, r.ID, result, err)
	})
}

func (s *server) begin(ctx context.Context, id string) context.Context {
	jobCtx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[id] = cancel
	return jobCtx
}

func (s *server) cancel(id string) {
	s.mu.Lock()
	cancel := s.jobs[id]
	delete(s.jobs, id)
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func (s *server) generate(ctx context.Context, conn *jsonrpc2.Conn, p wireRequest) (any, error) {
	lease := &remoteLease{conn: conn, job: p.wireJob}
	lease.tokens.Store(int64(p.Leased))
	return s.engine.Generate(ctx, Request{ID: p.ID, Job: p.Job, Seed: p.Seed, Lease: lease})
}

func (s *server) call(ctx context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
	switch r.Method {
	case methodOpen:
		p, err := params[Spec](r)
		if err != nil {
			return nil, err
		}
		return s.engine.Open(ctx, p)
	case methodDryRun, methodLoad:
		p, err := params[Shape](r)
		if err != nil {
			return nil, err
		}
		if r.Method == methodLoad {
			return s.engine.Load(ctx, p)
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
}

func (l *remoteLease) Tokens() int { return int(l.tokens.Load()) }

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
