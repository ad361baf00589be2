package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// world is everything that runs.
type world struct {
	o       options
	out     io.Writer // of the report
	dir     string
	proxy   *proxy
	nats    *process
	workers []*process
	submit  *process // nil before the first run

	mu     sync.Mutex
	counts map[string]int // of faults, by name; guarded by mu
}

// newWorld builds the programs and prepares the files.
func newWorld(ctx context.Context, o options, out io.Writer) (_ *world, err error) {
	w := &world{o: o, out: out, counts: map[string]int{}}
	if w.dir, err = os.MkdirTemp("", "tempo-chaos-"); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", w.dir+"/", "./cmd/submit", "github.com/nats-io/nats-server/v2")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the programs (in the repository's root): %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	if w.proxy, err = newProxy(address); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("listen: %q\nserver_name: chaos\nmax_payload: 1MB\njetstream { store_dir: %q }\n", address, w.path("nats"))
	if err := os.WriteFile(w.path("nats.conf"), []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	w.nats = w.process("nats-server", w.path("nats-server"), "-c", w.path("nats.conf"))
	for i := range o.workers {
		name := fmt.Sprintf("w%d", i)
		w.workers = append(w.workers, w.process("worker-"+name, self, "worker", "--server", w.proxy.url(), "--name", name))
	}
	w.submit = w.process("submit", w.path("submit"), "run", w.path("jobs.jsonl"), "--server", w.proxy.url(), "--quiet",
		"-o", w.path("results.jsonl"), "--log-level", "warn")
	return w, w.writeJobs()
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("look for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// prompt is what the i-th job says; its answer must say the same.
func prompt(i int) string { return fmt.Sprintf("job number %d says word%d", i, i*7919) }

func customID(i int) string { return fmt.Sprintf("line-%d", i) }

func (w *world) writeJobs() error {
	f, err := os.Create(w.path("jobs.jsonl"))
	if err != nil {
		return fmt.Errorf("write the jobs: %w", err)
	}
	for i := range w.o.jobs {
		if _, err := fmt.Fprintf(f, "{\"custom_id\":%q,\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{\"model\":%q,\"messages\":[{\"role\":\"user\",\"content\":%q}]}}\n",
			customID(i), model, prompt(i)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Close())
}

func (w *world) start(context.Context) error {
	for _, p := range append([]*process{w.nats}, w.workers...) {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// sendUntilDone runs submit until it has all results; killed, it is run again.
func (w *world) sendUntilDone(ctx context.Context) error {
	for {
		if err := w.submit.start(); err != nil {
			return err
		}
		code, err := w.submit.wait(ctx)
		switch {
		case err != nil:
			return err
		case code == 0, code == 3: // 3: some jobs have failed, which check looks at
			return nil
		}
		select { // it was killed, or found no server
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *world) close() error {
	w.submit.kill()
	for _, p := range w.workers {
		p.kill()
	}
	w.nats.kill()
	return w.proxy.close()
}

// process is a program that is started again and again.
type process struct {
	args []string
	log  string

	mu    sync.Mutex
	cmd   *exec.Cmd     // nil while it does not run; guarded by mu
	ended chan struct{} // closed when cmd has; guarded by mu
}

func (w *world) process(name string, args ...string) *process {
	return &process{args: args, log: w.path(name + ".log")}
}

// start starts it, unless it runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	cmd := exec.Command(p.args[0], p.args[1:]...) //nolint:noctx // it is killed in many other ways
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // its state says it
		log.Close()
		p.mu.Lock()
		p.cmd = nil
		p.mu.Unlock()
		close(ended)
	}()
	return nil
}

// pid is 0 while it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

func (p *process) signal(s syscall.Signal) {
	if pid := p.pid(); pid > 0 {
		_ = syscall.Kill(pid, s) // it may have ended
	}
}

// kill is kill -9, and waits until it is gone.
func (p *process) kill() {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-ended
	}
}

// wait waits until it ends, and returns its exit status; -1 = it was killed.
func (p *process) wait(ctx context.Context) (int, error) {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if cmd == nil {
		return -1, nil
	}
	select {
	case <-ended:
		return cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
