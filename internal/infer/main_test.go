package infer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

// The test binary starts itself as an engine process. What kind of one stands in
// modeVar, and in fileVar a file that has one mode behave otherwise at first.
const (
	modeVar = "INFER_TEST_MODE"
	fileVar = "INFER_TEST_FILE"
)

const (
	modeSleeper  = "sleeper"  // a Sleeper
	modeDie      = "die"      // writes to stderr and exits
	modeOnce     = "once"     // a Sleeper, if fileVar does not exist yet; else modeDie
	modeHang     = "hang"     // starts and answers nothing, until its parent ends
	modeStuck    = "stuck"    // the same, and it does not end with its parent's connection
	modeBreak    = "break"    // an engine that breaks under its jobs
	modeConfused = "confused" // a Sleeper that asks for its second job with the first one's lease
	modeShy      = "shy"      // a Sleeper that breaks when its shape is changed
	modeSlow     = "slow"     // a Sleeper that never loads, if fileVar exists; it makes it
	modeNarrow   = "narrow"   // a Sleeper that answers with its width
	modeHungry   = "hungry"   // a Sleeper that takes more and more memory for a job that says so
	modeHost     = "host"     // not an engine: starts a Host, writes the engine's pid, waits
)

func TestMain(m *testing.M) {
	mode := os.Getenv(modeVar)
	if mode == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := child(mode); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// child is what an engine process does.
func child(mode string) error {
	ctx := context.Background()
	switch mode {
	case modeDie:
		return errors.New("cannot go on: this is the last line")
	case modeOnce:
		f, err := os.OpenFile(os.Getenv(fileVar), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return child(modeDie)
		}
		return errors.Join(f.Close(), child(modeSleeper))
	case modeHang:
		return infer.ServeParent(ctx, hanging{}, nil)
	case modeStuck:
		return infer.ServeParent(ctx, hanging{forever: true}, nil)
	case modeBreak:
		e := &breaking{Sleeper: sleeper(), broken: make(chan error, 1)}
		return infer.ServeParent(ctx, e, e.broken)
	case modeConfused:
		return infer.ServeParent(ctx, &confused{Sleeper: sleeper()}, nil)
	case modeShy:
		e := &shy{Sleeper: sleeper(), broken: make(chan error, 1)}
		return infer.ServeParent(ctx, e, e.broken)
	case modeSlow:
		return infer.ServeParent(ctx, slow{sleeper()}, nil)
	case modeNarrow:
		return infer.ServeParent(ctx, telling{sleeper()}, nil)
	case modeHungry:
		return infer.ServeParent(ctx, hungry{sleeper()}, nil)
	case modeHost:
		return host(ctx)
	}
	return infer.ServeParent(ctx, sleeper(), nil)
}

// sleeper takes a millisecond for each token that a job may generate.
func sleeper() *infer.Sleeper {
	return &infer.Sleeper{Delay: func(r infer.Request) time.Duration {
		return time.Duration(r.Job.MaxTokens) * time.Millisecond
	}}
}

// hanging never opens.
type hanging struct {
	infer.Engine
	forever bool
}

func (h hanging) Open(ctx context.Context, _ infer.Spec) (infer.Facts, error) {
	if h.forever {
		select {}
	}
	<-ctx.Done()
	return infer.Facts{}, ctx.Err()
}

func (hanging) Close() error { return nil }

// breaking breaks when a job comes whose prompt says so, and ends the others as
// the scheduler does.
type breaking struct {
	*infer.Sleeper
	broken chan error
}

func (b *breaking) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	if strings.Contains(r.Job.Prompt, "break") {
		b.broken <- errors.New("decode: llama.cpp returned -3")
		return nil, infer.ErrStopped
	}
	return b.Sleeper.Generate(ctx, r)
}

// shy breaks as an engine does that cannot make its context anew.
type shy struct {
	*infer.Sleeper
	broken chan error
}

func (s *shy) Reshape(context.Context, infer.Shape) (budget.Footprint, error) {
	err := errors.New("create a context: no memory")
	s.broken <- err
	return budget.Footprint{}, err
}

// slow loads once, and hangs at the second time.
type slow struct{ *infer.Sleeper }

func (s slow) Load(ctx context.Context, shape infer.Shape) (budget.Footprint, error) {
	f, err := os.OpenFile(os.Getenv(fileVar), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		<-ctx.Done()
		return budget.Footprint{}, ctx.Err()
	}
	if err := f.Close(); err != nil {
		return budget.Footprint{}, err
	}
	return s.Sleeper.Load(ctx, shape)
}

// hungry takes a GiB, bit by bit, for a job whose prompt says so, not from Go's heap,
// as llama.cpp does, and ends as it does where there is no more.
type hungry struct{ *infer.Sleeper }

func (h hungry) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	if strings.Contains(r.Job.Prompt, "hungry") {
		for range 64 {
			bit, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				panic(fmt.Errorf("out of memory: %w", err))
			}
			for i := 0; i < len(bit); i += os.Getpagesize() {
				bit[i] = 1
			}
		}
	}
	return h.Sleeper.Generate(ctx, r)
}

// telling answers with the width that it was told last.
type telling struct{ *infer.Sleeper }

func (e telling) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	out, err := e.Sleeper.Generate(ctx, r)
	if err == nil {
		out.Choices[0].Text = strconv.Itoa(e.Width())
	}
	return out, err
}

// confused takes the lease of its first job for that of all.
type confused struct {
	*infer.Sleeper
	first infer.Lease
}

func (c *confused) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	if c.first == nil {
		c.first = r.Lease
	} else if err := c.first.Resize(ctx, 0, 10); err != nil {
		return nil, err
	}
	return c.Sleeper.Generate(ctx, r)
}

// host starts a Host over a Sleeper and waits to be killed.
func host(ctx context.Context) error {
	o := options(modeSleeper)
	o.OnProcess = func(pid int, alive bool) { fmt.Fprintln(os.Stdout, pid, alive) }
	h := infer.NewHost(o, nil)
	if _, err := h.Open(ctx, infer.Spec{}); err != nil {
		return err
	}
	if _, err := h.Load(ctx, infer.Shape{Sequences: 1, Cells: 256}); err != nil {
		return err
	}
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// options start this test binary as an engine of the mode.
func options(mode string) infer.HostOptions {
	return infer.HostOptions{
		Command: []string{os.Args[0]},
		// The race detector would have each process sleep for a second at its end.
		Env:          []string{modeVar + "=" + mode, "GORACE=atexit_sleep_ms=0"},
		RestartDelay: time.Millisecond,
	}
}
