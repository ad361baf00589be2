package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/internal/infer"
)

// engineVar has the test binary be an engine process.
const engineVar = "WORKER_TEST_ENGINE"

// fragile is a Sleeper whose process ends when a job says "poison", which has a job
// that says "stay" for ever, and takes a GiB for one that says "greedy".
type fragile struct {
	infer.Sleeper
	broken chan error
}

func serveEngine() error {
	e := &fragile{broken: make(chan error, 8)} // one for each job that may be inside
	e.Delay = func(r infer.Request) time.Duration {
		if strings.HasPrefix(r.Job.Messages[0].Content, "stay") {
			return time.Hour
		}
		return 0
	}
	return infer.ServeParent(context.Background(), e, e.broken)
}

func (e *fragile) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	if strings.HasPrefix(r.Job.Messages[0].Content, "greedy") {
		taken := make([]byte, 1<<30)
		for i := 0; i < len(taken); i += 4096 {
			taken[i] = 1
		}
		return nil, fmt.Errorf("%d bytes were to be had", len(taken))
	}
	if strings.HasPrefix(r.Job.Messages[0].Content, "poison") {
		e.broken <- errors.New("poisoned")
		return nil, infer.ErrStopped
	}
	return e.Sleeper.Generate(ctx, r)
}

// engines are the engine processes of a test.
type engines struct {
	*infer.Host

	mu   sync.Mutex
	pids []int // guarded by mu
}

// newEngines makes a Host over processes that are fragile. A nil log is silent.
func newEngines(t *testing.T, log *zap.Logger) *engines {
	t.Helper()
	e := &engines{}
	e.Host = infer.NewHost(infer.HostOptions{
		Command: []string{os.Args[0]}, Env: []string{engineVar + "=1", "GORACE=atexit_sleep_ms=0"}, RestartDelay: time.Millisecond,
		OnProcess: func(pid int, alive bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if alive {
				e.pids = append(e.pids, pid)
			}
		},
	}, log)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// begun is the pids of all processes so far.
func (e *engines) begun() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.pids)
}

// TestPoisonousJobs: many jobs that kill their engine, one after the other, end
// neither the worker nor anybody else's job.
func TestPoisonousJobs(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	e := newEngines(t, nil)
	w := newWorker(t, c, e, nil).run(t)
	const poisonous, good = 8, 20
	var list []string
	for i := range poisonous + good {
		word := "good"
		if i < poisonous { // all in a row: nothing good happens between them
			word = "poison"
		}
		list = append(list, fmt.Sprintf("%s %d", word, i))
	}
	send(t, c, "b", list...)
	for id, r := range results(t, c, "b", len(list)) {
		var i int
		_, err := fmt.Sscanf(id, "custom-%d", &i)
		require.NoError(t, err)
		if i >= poisonous {
			require.True(t, r.OK(), "%+v", r)
			continue
		}
		failed := requireFailed(t, r, 500)
		require.Equal(t, "engine_crashed", *failed.Code)
		require.Contains(t, failed.Message, "poisoned")
	}
	require.Greater(t, len(e.begun()), poisonous)
	require.NoError(t, w.stop(), "the worker lives")
}

// TestEngineBeyondItsGrant: an engine that takes more memory than was booked for it
// is ended by the system; the worker says so, and everybody else goes on.
func TestEngineBeyondItsGrant(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	log, logged := observer.New(zap.ErrorLevel)
	e := newEngines(t, zap.New(log))
	newWorker(t, c, e, nil).run(t)
	send(t, c, "b", "good 0", "good 1", "greedy 2", "good 3", "good 4")
	got := results(t, c, "b", 5)
	for id, r := range got {
		if id != "custom-2" {
			require.True(t, r.OK(), "%+v", r)
		}
	}
	failed := requireFailed(t, got["custom-2"], 500)
	require.NotNil(t, failed.Code, failed.Message)
	require.Equal(t, "engine_crashed", *failed.Code)
	require.Contains(t, failed.Message, "its memory was bounded to")
	require.GreaterOrEqual(t, len(e.begun()), 2, "a new one took the place of the first")
	died := func() []observer.LoggedEntry {
		return logged.FilterMessage("the engine process died, a new one is started").All()
	}
	require.Eventually(t, func() bool { return len(died()) == 2 }, 10*time.Second, time.Millisecond)
	said := died()
	require.Contains(t, said[0].ContextMap()["reason"], "its memory was bounded to")
}

// TestDrainOfAStuckEngine: an engine that hears nothing does not keep the worker
// from ending, nor its jobs from going on elsewhere.
func TestDrainOfAStuckEngine(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	e := newEngines(t, nil)
	w := newWorker(t, c, e, func(o *Options) { o.DrainTimeout = 50 * time.Millisecond }).run(t)
	send(t, c, "b", "stay here", "stay there")
	require.Eventually(t, func() bool { return w.count() == 2 && w.ledger.Snapshot().Reserved > 0 }, 5*time.Second, time.Millisecond)
	require.NoError(t, syscall.Kill(e.begun()[0], syscall.SIGSTOP))
	began := time.Now()
	require.NoError(t, w.stop())
	require.Less(t, time.Since(began), 8*time.Second)
	done, err := c.CountResults(t.Context(), "b")
	require.NoError(t, err)
	require.Zero(t, done)

	newWorker(t, c, &script{}, func(o *Options) { o.Name = "second" }).run(t)
	for _, r := range results(t, c, "b", 2) {
		requireAnswered(t, r, 1)
	}
}
