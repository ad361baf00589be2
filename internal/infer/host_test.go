package infer_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

// soon is how long anything may take that must not hang.
const soon = 10 * time.Second

// processes notes what a Host says of its engine processes.
type processes struct {
	mu    sync.Mutex
	begun []int        // guarded by mu
	ended map[int]bool // guarded by mu
}

// watch has the processes of o noted.
func watch(o *infer.HostOptions) *processes {
	p := &processes{ended: map[int]bool{}}
	o.OnProcess = func(pid int, alive bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if alive {
			p.begun = append(p.begun, pid)
		} else {
			p.ended[pid] = true
		}
	}
	return p
}

func (p *processes) newest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun[len(p.begun)-1]
}

// hasEnded reports whether the Host has said so.
func (p *processes) hasEnded(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended[pid]
}

// requireEnded checks that n processes were begun and all have ended.
func (p *processes) requireEnded(t *testing.T, n int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Len(t, p.begun, n)
	for _, pid := range p.begun {
		require.True(t, p.ended[pid], "OnProcess was not told of the end of %d", pid)
		require.True(t, gone(pid), "process %d is still there", pid)
	}
}

// gone reports whether a process has ended; one that nobody waits for (its
// parent was killed) may remain as a zombie.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X"))
}

func load(t *testing.T, h *infer.Host) {
	t.Helper()
	_, err := h.Open(t.Context(), infer.Spec{})
	require.NoError(t, err)
	_, err = h.Load(t.Context(), infer.Shape{Sequences: 4, Cells: 1024})
	require.NoError(t, err)
}

// job is a request that a sleeper takes ms milliseconds for.
func job(id string, ms int) infer.Request {
	return infer.Request{ID: id, Lease: infertest.NewLease(0), Job: &api.Request{
		URL: api.Completions, Prompt: infertest.Words(5), MaxTokens: ms,
	}}
}

const aMinute = 60_000

// arriving makes a job whose arrival in the engine is told on the channel.
func arriving(id string, ms int, arrived chan<- struct{}) infer.Request {
	l := infertest.NewLease(0)
	l.Grant = func(context.Context, int, int) error {
		arrived <- struct{}{}
		return nil
	}
	r := job(id, ms)
	r.Lease = l
	return r
}

// within fails the test if f takes longer than it may.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(soon):
		require.FailNow(t, "this hangs")
	}
}

func TestHostReplacesAKilledEngine(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	first := seen.newest()

	arrived := make(chan struct{}, 6)
	errs := make(chan error, 6)
	for i := range 6 {
		go func() {
			_, err := h.Generate(t.Context(), arriving(fmt.Sprint(i), aMinute, arrived))
			errs <- err
		}()
	}
	for range 6 {
		<-arrived
	}
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	for range 6 {
		var died *infer.DiedError
		require.ErrorAs(t, <-errs, &died)
		require.Contains(t, died.Reason, "killed")
	}
	out, err := h.Generate(t.Context(), job("next", 1))
	require.NoError(t, err)
	require.Equal(t, 5, out.PromptTokens)
	require.NotEqual(t, first, seen.newest())
	require.NoError(t, h.Close())
	seen.requireEnded(t, 2)
}

// What an engine was told last of the width, its successor knows too.
func TestHostNarrowsTheNextEngine(t *testing.T) {
	t.Parallel()
	o := options(modeNarrow)
	seen := watch(&o)
	h := newHost(t, o)
	require.ErrorIs(t, h.Narrow(t.Context(), 7), infer.ErrNotOpen)
	load(t, h)
	width := func() string {
		out, err := h.Generate(t.Context(), job("tells", 1))
		require.NoError(t, err)
		return out.Text()
	}
	require.Equal(t, "0", width(), "what was refused is not remembered")
	replaced := func() {
		pid := seen.newest()
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		require.Eventually(t, func() bool { return seen.hasEnded(pid) }, soon, time.Millisecond)
	}
	for _, want := range []int{4, 1, 0} {
		require.NoError(t, h.Narrow(t.Context(), want))
		require.Equal(t, fmt.Sprint(want), width())
		replaced()
		require.Equal(t, fmt.Sprint(want), width(), "the next one")
	}
	replaced() // and while there is none
	require.NoError(t, h.Narrow(t.Context(), 2))
	require.Equal(t, "2", width())
	require.NoError(t, h.Close())
	require.ErrorIs(t, h.Narrow(t.Context(), 1), infer.ErrStopped)
	seen.requireEnded(t, 5)
}

// A request for memory that is under way when the engine dies must not be
// granted afterwards: the job may be tried again with the same lease.
func TestHostEndsTheRequestsOfADeadEngine(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	asked, ended := make(chan struct{}), make(chan struct{})
	l := infertest.NewLease(0)
	l.Grant = func(ctx context.Context, _, _ int) error {
		close(asked)
		<-ctx.Done()
		<-ended // Generate must wait for it
		return ctx.Err()
	}
	errs := make(chan error, 1)
	go func() {
		r := job("waiting", 1)
		r.Lease = l
		_, err := h.Generate(t.Context(), r)
		errs <- err
	}()
	<-asked
	require.NoError(t, syscall.Kill(seen.newest(), syscall.SIGKILL))
	require.Eventually(t, func() bool { // the next engine is there, and has done a job
		_, err := h.Generate(t.Context(), job("next", 1))
		return err == nil
	}, soon, time.Millisecond)
	require.Empty(t, errs, "Generate returned and the lease was still being asked")
	close(ended)
	var died *infer.DiedError
	require.ErrorAs(t, <-errs, &died)
	require.Zero(t, l.Tokens())
}

func TestHostRetriesJobsOfABrokenEngine(t *testing.T) {
	t.Parallel()
	o := options(modeBreak)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	arrived := make(chan struct{}, 1)
	errs := make(chan error, 2)
	go func() {
		_, err := h.Generate(t.Context(), arriving("mate", aMinute, arrived))
		errs <- err
	}()
	<-arrived
	go func() {
		r := job("culprit", 1)
		r.Job.Prompt = "break"
		_, err := h.Generate(t.Context(), r)
		errs <- err
	}()
	for range 2 {
		var died *infer.DiedError
		require.ErrorAs(t, <-errs, &died, "a job that can be tried again")
		require.Contains(t, died.Reason, "exit status 1")
		require.Contains(t, died.Reason, "the engine broke: decode: llama.cpp returned -3", "its last lines")
	}
	_, err := h.Generate(t.Context(), job("next", 1))
	require.NoError(t, err)
	require.NoError(t, h.Close())
	seen.requireEnded(t, 2)
}

func TestHostGivesUp(t *testing.T) {
	t.Parallel()
	o := options(modeOnce)
	o.Env = append(o.Env, fileVar+"="+filepath.Join(t.TempDir(), "started"))
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	first := seen.newest()
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Eventually(t, func() bool { return seen.hasEnded(first) }, soon, time.Millisecond)
	var start *infer.StartError
	within(t, func() {
		_, err := h.Generate(t.Context(), job("waiting", 1))
		require.ErrorAs(t, err, &start)
		require.Contains(t, err.Error(), "6 engine processes in a row")
		require.Contains(t, err.Error(), "cannot go on: this is the last line")
		require.NotEmpty(t, start.Hint())
	})
	_, err := h.Generate(t.Context(), job("late", 1))
	require.ErrorAs(t, err, &start, "at once for those who come later")
	require.NoError(t, h.Close())
	seen.requireEnded(t, 6)
}

// A death with a job inside is the job's fault, however many there are in a row.
func TestHostOutlivesItsJobs(t *testing.T) {
	t.Parallel()
	o := options(modeBreak)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	const culprits = 8
	for i := range culprits {
		r := job(fmt.Sprint(i), 1)
		r.Job.Prompt = "break"
		_, err := h.Generate(t.Context(), r)
		var died *infer.DiedError
		require.ErrorAs(t, err, &died)
	}
	_, err := h.Generate(t.Context(), job("next", 1))
	require.NoError(t, err)
	require.NoError(t, h.Close())
	seen.requireEnded(t, culprits+1)
}

// An engine that takes no part in its own end is ended by force.
func TestHostCloseOfAStuckEngine(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	arrived, errs := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := h.Generate(ctx, arriving("long", aMinute, arrived))
		errs <- err
	}()
	<-arrived
	require.NoError(t, syscall.Kill(seen.newest(), syscall.SIGSTOP))
	cancel() // it hears nothing of that
	began := time.Now()
	within(t, func() { require.NoError(t, h.Close()) })
	require.Less(t, time.Since(began), 4*time.Second)
	var died *infer.DiedError
	require.ErrorAs(t, <-errs, &died)
	seen.requireEnded(t, 1)
}

// An engine that reports a refusal which nobody gave has lost track of its jobs:
// it is ended, and the job can be tried again.
func TestHostEndsAConfusedEngine(t *testing.T) {
	t.Parallel()
	o := options(modeConfused)
	seen := watch(&o)
	h := newHost(t, o)
	load(t, h)
	_, err := h.Generate(t.Context(), job("first", 1))
	require.NoError(t, err)
	_, err = h.Generate(t.Context(), job("second", 1))
	var died *infer.DiedError
	require.ErrorAs(t, err, &died)
	_, err = h.Generate(t.Context(), job("third", 1))
	require.NoError(t, err)
	require.NoError(t, h.Close())
	seen.requireEnded(t, 2)
}

func TestHostCannotStart(t *testing.T) {
	t.Parallel()
	t.Run("no such program", func(t *testing.T) {
		t.Parallel()
		h := newHost(t, infer.HostOptions{Command: []string{"/no/such/program"}})
		_, err := h.Open(t.Context(), infer.Spec{})
		var start *infer.StartError
		require.ErrorAs(t, err, &start)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.Contains(t, start.Hint(), "/no/such/program")
	})
	t.Run("dies at once", func(t *testing.T) {
		t.Parallel()
		o := options(modeDie)
		var stderr bytes.Buffer
		o.Stderr = &stderr
		seen := watch(&o)
		h := newHost(t, o)
		_, err := h.Open(t.Context(), infer.Spec{})
		var died *infer.DiedError
		require.ErrorAs(t, err, &died)
		require.Contains(t, died.Reason, "exit status 1")
		require.Contains(t, died.Reason, "this is the last line")
		require.Contains(t, stderr.String(), "this is the last line", "and it was passed on")
		require.NoError(t, h.Close())
		seen.requireEnded(t, 1)
	})
	t.Run("the caller gives up", func(t *testing.T) {
		t.Parallel()
		o := options(modeHang)
		seen := watch(&o)
		h := newHost(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := h.Open(ctx, infer.Spec{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, h.Close())
		seen.requireEnded(t, 1)
	})
}

// Close comes while the first process starts, also one that does not end by
// itself.
func TestHostCloseWhileOpening(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{modeHang, modeStuck} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := options(mode)
			seen := watch(&o)
			begun, note := make(chan struct{}), o.OnProcess
			o.OnProcess = func(pid int, alive bool) {
				note(pid, alive)
				if alive {
					close(begun)
				}
			}
			h := newHost(t, o)
			errs := make(chan error, 1)
			go func() {
				_, err := h.Open(t.Context(), infer.Spec{})
				errs <- err
			}()
			<-begun
			within(t, func() {
				require.NoError(t, h.Close())
				require.Error(t, <-errs)
			})
			seen.requireEnded(t, 1)
			_, err := h.Open(t.Context(), infer.Spec{})
			require.ErrorIs(t, err, infer.ErrStopped, "no process after Close")
		})
	}
}

func TestHostCloseWhileRestarting(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	o.RestartDelay = time.Hour
	seen := watch(&o)
	observed, logs := observer.New(zap.InfoLevel)
	h := infer.NewHost(o, zap.New(observed))
	load(t, h)
	require.NoError(t, syscall.Kill(seen.newest(), syscall.SIGKILL))
	require.Eventually(t, func() bool { return logs.FilterMessageSnippet("died").Len() == 1 }, soon, time.Millisecond)
	errs := make(chan error, 1)
	go func() {
		_, err := h.Generate(t.Context(), job("waiting", 1))
		errs <- err
	}()
	within(t, func() {
		require.NoError(t, h.Close())
		require.ErrorIs(t, <-errs, infer.ErrStopped)
	})
	_, err := h.Generate(t.Context(), job("late", 1))
	require.ErrorIs(t, err, infer.ErrStopped)
	seen.requireEnded(t, 1)
}

func TestHostCloseWhileRunning(t *testing.T) {
	t.Parallel()
	o := options(modeSleeper)
	seen := watch(&o)
	observed, logs := observer.New(zap.InfoLevel)
	h := infer.NewHost(o, zap.New(observed))
	load(t, h)
	arrived := make(chan struct{}, 1)
	errs := make(chan error, 1)
	go func() {
		_, err := h.Generate(t.Context(), arriving("long", aMinute, arrived))
		errs <- err
	}()
	<-arrived
	within(t, func() {
		var g errgroup.Group
		g.Go(h.Close)
		g.Go(h.Close)
		require.NoError(t, g.Wait())
		require.NoError(t, h.Close())
	})
	var died *infer.DiedError
	require.ErrorAs(t, <-errs, &died)
	_, err := h.Generate(t.Context(), job("late", 1))
	require.ErrorIs(t, err, infer.ErrStopped)
	require.Empty(t, logs.All(), "an end that was asked for is no fault")
	seen.requireEnded(t, 1)
}

func TestHostNeverOpened(t *testing.T) {
	t.Parallel()
	h := newHost(t, options(modeSleeper))
	within(t, func() {
		_, err := h.Generate(context.WithoutCancel(t.Context()), job("early", 1))
		require.Error(t, err)
		require.NoError(t, h.Close())
	})
}

func TestHostStartStop(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		o := options(modeSleeper)
		seen := watch(&o)
		h := infer.NewHost(o, nil)
		load(t, h)
		var g errgroup.Group
		for i := range 8 {
			g.Go(func() error {
				_, err := h.Generate(t.Context(), job(fmt.Sprint(i), i))
				if _, died := errors.AsType[*infer.DiedError](err); died || errors.Is(err, infer.ErrStopped) {
					return nil
				}
				return err
			})
		}
		if round%3 == 0 {
			require.NoError(t, syscall.Kill(seen.newest(), syscall.SIGKILL))
		}
		if round%2 == 0 {
			require.NoError(t, g.Wait())
		}
		within(t, func() { require.NoError(t, h.Close()) })
		require.NoError(t, g.Wait())
		seen.mu.Lock()
		begun := len(seen.begun)
		seen.mu.Unlock()
		seen.requireEnded(t, begun)
	}
}

// The engine must not outlive a worker that is killed.
func TestEngineEndsWithItsParent(t *testing.T) {
	t.Parallel()
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), modeVar+"="+modeHost)
	stdin, err := parent.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	var pid int
	_, err = fmt.Sscanf(strings.TrimSpace(line), "%d true", &pid)
	require.NoError(t, err, line)
	require.False(t, gone(pid))
	require.NoError(t, parent.Process.Kill())
	require.Eventually(t, func() bool { return gone(pid) }, 5*time.Second, 10*time.Millisecond)
	require.Error(t, parent.Wait(), "it was killed")
}

func TestServeParentByHand(t *testing.T) {
	t.Parallel()
	// Under "go test" descriptor 3 is not a socket, whatever else it may be.
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), modeVar+"="+modeSleeper)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "started by a worker, not by hand")
}
