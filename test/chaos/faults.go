package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fault is something that goes wrong, and is mended again.
type fault struct {
	name   string
	weight int // how often, against the others
	do     func(ctx context.Context, w *world, r *rand.Rand)
}

func faults() []fault {
	return []fault{
		{"worker killed", 4, func(ctx context.Context, w *world, r *rand.Rand) {
			p := w.workers[r.IntN(len(w.workers))]
			p.kill()
			pause(ctx, between(r, 0, time.Second))
			_ = p.start() // check finds out
		}},
		{"engine killed", 4, func(_ context.Context, w *world, r *rand.Rand) {
			for _, pid := range children(w.workers[r.IntN(len(w.workers))].pid()) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}},
		{"worker stopped beyond its AckWait", 1, func(ctx context.Context, w *world, r *rand.Rand) {
			p := w.workers[r.IntN(len(w.workers))]
			p.signal(syscall.SIGSTOP)
			pause(ctx, ackWait+between(r, 0, 2*time.Second))
			p.signal(syscall.SIGCONT)
		}},
		{"nats-server killed", 1, func(ctx context.Context, w *world, r *rand.Rand) {
			w.nats.kill()
			pause(ctx, between(r, 0, 2*time.Second))
			_ = w.nats.start()
		}},
		{"connections cut", 2, func(_ context.Context, w *world, r *rand.Rand) {
			w.proxy.cut(between(r, 0, 2*time.Second))
		}},
		{"submit killed", 2, func(_ context.Context, w *world, _ *rand.Rand) { w.submit.kill() }},
	}
}

// pause waits, but not longer than until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// breakThings has things go wrong, up to three at a time, until the time is over or the batch has
// ended, and mends all.
func (w *world) breakThings(ctx context.Context, r *rand.Rand, done chan error) {
	var list []fault
	for _, f := range faults() {
		for range f.weight {
			list = append(list, f)
		}
	}
	var running sync.WaitGroup
	free := make(chan struct{}, 3)
	end := time.Now().Add(w.o.faults)
	for time.Now().Before(end) && ctx.Err() == nil && len(done) == 0 {
		pause(ctx, between(r, 50*time.Millisecond, 600*time.Millisecond))
		f, own := list[r.IntN(len(list))], rand.New(rand.NewPCG(r.Uint64(), 2))
		free <- struct{}{}
		w.mu.Lock()
		w.counts[f.name]++
		w.mu.Unlock()
		running.Go(func() {
			f.do(ctx, w, own)
			<-free
		})
	}
	running.Wait()
	for _, p := range append([]*process{w.nats}, w.workers...) {
		p.signal(syscall.SIGCONT)
		if err := p.start(); err != nil {
			fmt.Fprintln(w.out, "a process does not start:", err)
		}
	}
}

// children are the processes whose parent is pid.
func children(pid int) (list []int) {
	if pid == 0 {
		return nil
	}
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // a pattern that is right
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // behind the name
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			list = append(list, child)
		}
	}
	return list
}
