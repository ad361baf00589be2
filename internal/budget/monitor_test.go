package budget

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// processes is memory by process id that a test can change.
type processes struct {
	mu    sync.Mutex
	bytes map[int]Bytes
	err   error
}

func (p *processes) read(pid int) (Bytes, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	n, ok := p.bytes[pid]
	if !ok {
		return 0, fmt.Errorf("process %d: %w", pid, ErrProcessNotFound)
	}
	return n, nil
}

func (p *processes) set(err error, bytes map[int]Bytes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.bytes = err, bytes
}

func TestMonitorSample(t *testing.T) {
	t.Parallel()
	var p processes
	m := NewMonitor(p.read, time.Second, nil)
	last, err := m.Last()
	require.NoError(t, err)
	require.Zero(t, last.Time)

	m.Add(1)
	m.Add(2)
	m.Add(3)
	p.set(nil, map[int]Bytes{1: 10, 2: 20})
	r, err := m.Sample()
	require.NoError(t, err)
	require.Equal(t, Bytes(30), r.Total)
	require.Equal(t, []int{3}, r.Missing)

	p.set(nil, map[int]Bytes{1: 15, 2: 5})
	m.Add(1) // again: its peak stays
	m.Remove(3)
	r, err = m.Sample()
	require.NoError(t, err)
	require.Equal(t, Bytes(20), r.Total)
	require.Equal(t, Bytes(30), r.Peak)
	require.Equal(t, map[int]Usage{1: {15, 15}, 2: {5, 20}}, r.Processes)
	require.Empty(t, r.Missing)
	delete(r.Processes, 1) // the caller's own

	p.set(ErrNotMeasured, nil)
	_, err = m.Sample()
	require.ErrorIs(t, err, ErrNotMeasured)
	last, err = m.Last()
	require.ErrorIs(t, err, ErrNotMeasured)
	require.Equal(t, Bytes(20), last.Total, "the newest that succeeded")
	require.Len(t, last.Processes, 2)

	m.Remove(1)
	m.Remove(2)
	m.Add(1)
	p.set(nil, map[int]Bytes{1: 1})
	r, err = m.Sample()
	require.NoError(t, err)
	require.Equal(t, map[int]Usage{1: {1, 1}}, r.Processes, "a process id that comes again is another process")
	require.Equal(t, Bytes(30), r.Peak)
}

func TestMonitorRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		var p processes
		p.set(nil, map[int]Bytes{1: 10})
		m := NewMonitor(p.read, time.Second, zap.New(core))
		m.Add(1)
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		synctest.Wait()
		last, err := m.Last()
		require.NoError(t, err)
		require.Equal(t, began, last.Time, "sampled at once")

		p.set(errors.New("busy"), nil)
		<-time.After(3500 * time.Millisecond)
		p.set(nil, map[int]Bytes{1: 20})
		<-time.After(time.Second)
		last, err = m.Last()
		require.NoError(t, err)
		require.Equal(t, began.Add(4*time.Second), last.Time)
		require.Equal(t, Bytes(20), last.Peak)
		var messages []string
		for _, entry := range logs.All() {
			messages = append(messages, entry.Message)
		}
		require.Equal(t, []string{"memory cannot be measured", "memory is measured again"}, messages)

		cancel()
		require.NoError(t, <-ended)

		p.set(fmt.Errorf("read: %w", ErrGPULost), nil)
		require.ErrorIs(t, m.Run(t.Context()), ErrGPULost)
	})
}

func TestMonitorHere(t *testing.T) {
	t.Parallel()
	m := NewMonitor(ProportionalSetSize, time.Millisecond, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	var wg sync.WaitGroup
	for range 4 { // engines come and go while it runs
		wg.Go(func() {
			for range 20 {
				m.Add(os.Getpid())
				_, err := m.Sample()
				if err != nil {
					t.Error(err)
				}
				m.Remove(os.Getpid())
			}
		})
	}
	wg.Wait()
	cancel()
	require.NoError(t, <-ended)
	last, err := m.Last()
	require.NoError(t, err)
	require.Positive(t, last.Peak)
}
