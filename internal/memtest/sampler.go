package memtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tempo/internal/budget"
)

// sampleEvery is the time between two samples: what comes and goes between them is
// not seen.
const sampleEvery = 20 * time.Millisecond

// reading is what the processes hold.
type reading struct {
	Self    budget.Bytes // this process; 0 on a GPU, where it holds nothing
	Engines budget.Bytes // its descendants
}

func (r reading) total() budget.Bytes { return r.Self.Add(r.Engines) }

// sampler measures this process and its descendants, with code of its own beside
// the worker's monitor. Safe for concurrent use.
type sampler struct {
	measure func() (reading, error)
	end     context.CancelFunc
	ended   chan struct{} // closed when nothing is measured any more
	close   func() error  // lets go of the device; nil = there is nothing to

	mu      sync.Mutex
	last    reading      // guarded by mu
	mark    reading      // highest total since Mark, and highest engines; guarded by mu
	markAll budget.Bytes // guarded by mu
	peak    budget.Bytes // guarded by mu
	samples int          // guarded by mu
	err     error        // the first that failed; guarded by mu
}

// newSampler starts to measure what there is on a device.
func newSampler(ctx context.Context, device budget.Device, nvmlPath string) (*sampler, error) {
	if device.Kind == budget.CPU {
		return startSampler(ctx, hostReading, nil), nil
	}
	g, err := budget.OpenGPU(nvmlPath, device.ID)
	if err != nil {
		return nil, fmt.Errorf("open the GPU: %w", err)
	}
	return startSampler(ctx, func() (reading, error) { return gpuReading(g, descendants(os.Getpid())) }, g.Close), nil
}

func startSampler(ctx context.Context, measure func() (reading, error), closeDevice func() error) *sampler {
	s := &sampler{measure: measure, ended: make(chan struct{}), close: closeDevice}
	ctx, s.end = context.WithCancel(ctx)
	go func() {
		defer close(s.ended)
		s.watch(ctx)
	}()
	return s
}

// stop ends the measuring. It may be called once.
func (s *sampler) stop() {
	s.end()
	<-s.ended
	if s.close != nil {
		_ = s.close() // there is nothing more to measure
	}
}

// watch samples until ctx is done.
func (s *sampler) watch(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.sample()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sample measures once.
func (s *sampler) sample() reading {
	r, err := s.measure()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.err == nil {
			s.err = fmt.Errorf("measure the processes: %w", err)
		}
		return s.last
	}
	s.samples++
	s.last = r
	s.mark.Engines = max(s.mark.Engines, r.Engines)
	s.markAll, s.peak = max(s.markAll, r.total()), max(s.peak, r.total())
	return r
}

// begin begins a phase with a measurement.
func (s *sampler) begin() reading {
	s.mu.Lock()
	s.mark, s.markAll = reading{}, 0
	s.mu.Unlock()
	return s.sample()
}

// phase is the most since begin: in all, and of the engines.
func (s *sampler) phase() (all, engines budget.Bytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.markAll, s.mark.Engines
}

// all is the most of all times, and the first failure.
func (s *sampler) all() (peak budget.Bytes, samples int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak, s.samples, s.err
}

// hostReading is the proportional set size of this process and its descendants.
func hostReading() (r reading, err error) {
	if r.Self, err = budget.ProportionalSetSize(os.Getpid()); err != nil {
		return r, err
	}
	for _, pid := range descendants(os.Getpid()) {
		n, err := budget.ProportionalSetSize(pid)
		if err != nil && !errors.Is(err, budget.ErrProcessNotFound) {
			return r, err
		}
		r.Engines = r.Engines.Add(n)
	}
	return r, nil
}

// gpu is what of a budget.GPU is measured.
type gpu interface {
	ProcessMemory(pid int) (budget.Bytes, error)
	Growth() (budget.Bytes, error)
}

// gpuReading is what the descendants hold on a GPU. Where the driver does not tell
// of one, what everybody has come to hold stands in, which errs on the safe side.
func gpuReading(g gpu, pids []int) (r reading, err error) {
	for _, pid := range pids {
		n, err := g.ProcessMemory(pid)
		switch {
		case errors.Is(err, budget.ErrNotMeasured):
			r.Engines, err = g.Growth()
			return r, err
		case err != nil && !errors.Is(err, budget.ErrProcessNotFound):
			return r, err
		}
		r.Engines = r.Engines.Add(n)
	}
	return r, nil
}

// descendants are the processes below a process.
func descendants(pid int) []int {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil // only for a pattern that is wrong
	}
	var all []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
