package budget

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Usage is what one process holds.
type Usage struct {
	Now  Bytes
	Peak Bytes // the most that a sample saw
}

// Reading is the memory of the watched processes at one time. Processes are read
// one after the other, so that the total is not of one instant.
type Reading struct {
	Time      time.Time // zero: there was none yet
	Total     Bytes
	Peak      Bytes         // the largest Total so far
	Processes map[int]Usage // by process id
	Missing   []int         // watched, but ended, not on the device or not told; they count 0 in Processes
}

// Monitor samples the device memory of a set of processes. Safe for concurrent
// use.
type Monitor struct {
	read     func(pid int) (Bytes, error) // constant
	interval time.Duration                // constant
	log      *zap.Logger                  // constant
	fallback func() (Bytes, error)        // constant once it samples; nil = none

	sampling sync.Mutex // held for a whole sample, so that they do not mix

	mu   sync.Mutex    // guards all below
	pids map[int]Bytes // the peak of each
	last Reading
	err  error // of the newest sample
	said bool  // that the fallback counts
}

// NewMonitor returns a monitor that watches nothing yet. read is
// [ProportionalSetSize] on a CPU, [GPU.ProcessMemory] on a GPU; interval must be
// over 0; log may be nil.
func NewMonitor(read func(pid int) (Bytes, error), interval time.Duration, log *zap.Logger) *Monitor {
	if log == nil {
		log = zap.NewNop()
	}
	return &Monitor{read: read, interval: interval, log: log.Named("monitor"), pids: make(map[int]Bytes)}
}

// FallBackTo says what all processes together hold at most ([GPU.Growth]), for
// drivers that do not list a process or do not tell its use: in a container with
// process ids of its own, under an old driver. The larger of that and of what is
// told counts then, and the log says so once. It must be called before the first
// sample.
func (m *Monitor) FallBackTo(read func() (Bytes, error)) { m.fallback = read }

// Add watches a process from the next sample on.
func (m *Monitor) Add(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, watched := m.pids[pid]; !watched {
		m.pids[pid] = 0
	}
}

// Remove stops watching a process from the next sample on, and forgets its peak.
func (m *Monitor) Remove(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pids, pid)
}

// Last returns the newest reading that succeeded, and the error of the newest
// sample if that one failed: then the reading is as old as its Time.
func (m *Monitor) Last() (Reading, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last.clone(), m.err
}

// Sample reads all watched processes now. A process that is not found counts 0
// and is listed as missing; any other error fails the sample, because a total
// that leaves something out would be taken for room. With a fallback
// ([Monitor.FallBackTo]) one that is not measured is missing too.
func (m *Monitor) Sample() (Reading, error) {
	m.sampling.Lock()
	defer m.sampling.Unlock()
	m.mu.Lock()
	pids := slices.Sorted(maps.Keys(m.pids))
	m.mu.Unlock()

	now := make(map[int]Bytes, len(pids))
	var missing []int
	for _, pid := range pids { // without the lock: a driver can take its time
		n, err := m.read(pid)
		switch {
		case errors.Is(err, ErrProcessNotFound), errors.Is(err, ErrNotMeasured) && m.fallback != nil:
			missing = append(missing, pid)
		case err != nil:
			return Reading{}, m.fail(err)
		default:
			now[pid] = n
		}
	}
	var atLeast Bytes
	if len(missing) > 0 && m.fallback != nil {
		var err error
		if atLeast, err = m.fallback(); err != nil {
			return Reading{}, m.fail(err)
		}
	}
	return m.keep(now, missing, atLeast), nil
}

func (m *Monitor) fail(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = fmt.Errorf("sample memory: %w", err)
	return m.err
}

func (m *Monitor) keep(now map[int]Bytes, missing []int, atLeast Bytes) Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Reading{Time: time.Now(), Processes: make(map[int]Usage, len(now)), Missing: missing}
	for pid, n := range now {
		r.Total = r.Total.Add(n)
		usage := Usage{Now: n, Peak: max(n, m.pids[pid])}
		r.Processes[pid] = usage
		if _, watched := m.pids[pid]; watched { // it may have been removed meanwhile
			m.pids[pid] = usage.Peak
		}
	}
	if atLeast > r.Total {
		r.Total = atLeast
		m.sayFallback(missing, atLeast)
	}
	r.Peak = max(m.last.Peak, r.Total)
	m.last, m.err = r, nil
	return r.clone()
}

// sayFallback is called with mu held.
func (m *Monitor) sayFallback(missing []int, counted Bytes) {
	if m.said {
		return
	}
	m.said = true
	m.log.Warn("the driver does not tell what a process holds, the growth of the device's use counts instead; "+
		"in a container, the host's process ids (--pid=host) make it exact",
		zap.Ints("process_ids", missing), zap.Int64("counted_bytes", int64(counted)))
}

// Run samples at once and then at every interval until ctx ends, and returns
// nil then. It returns an error that wraps ErrGPULost when that happens, since
// the GPU does not come back; other failures are logged, once in a row, and
// sampling goes on.
func (m *Monitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	failing := false
	for {
		_, err := m.Sample()
		switch {
		case errors.Is(err, ErrGPULost):
			return err
		case err != nil && !failing:
			m.log.Warn("memory cannot be measured", zap.Error(err))
		case err == nil && failing:
			m.log.Info("memory is measured again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// clone returns a copy that shares nothing with r.
func (r Reading) clone() Reading {
	r.Processes = maps.Clone(r.Processes)
	r.Missing = slices.Clone(r.Missing)
	return r
}
