package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// shelf is a model of a team in tests, and the memory that its engine holds.
type shelf struct {
	name    string
	weights budget.Bytes
	delay   time.Duration // of a job
	act     func(ctx context.Context, r infer.Request, prompt string) error
	make    func() infer.Engine // nil = one that only says what it holds

	mu     sync.Mutex
	held   budget.Bytes // guarded by mu
	loads  int          // guarded by mu
	faults error        // of the next loads; guarded by mu
	check  func()       // called where memory is taken; guarded by mu
}

func (s *shelf) hold(n budget.Bytes) {
	s.mu.Lock()
	s.held = n
	check := s.check
	s.mu.Unlock()
	if check != nil {
		check()
	}
}

func (s *shelf) holds() budget.Bytes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *shelf) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = err
}

func (s *shelf) loaded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

// shelved is an engine of a shelf; it has a process that holds what was loaded.
type shelved struct {
	script
	shelf *shelf
}

func (s *shelf) engine() infer.Engine {
	if s.make != nil {
		return s.make()
	}
	e := &shelved{shelf: s}
	e.act = s.act
	if s.delay > 0 {
		e.Delay = func(infer.Request) time.Duration { return s.delay }
	}
	return e
}

func (e *shelved) footprint(s infer.Shape) budget.Footprint {
	if s.Empty() {
		return budget.Footprint{}
	}
	return budget.Footprint{Weights: e.shelf.weights, KVCache: elasticCell.Mul(int64(s.Cells))}
}

func (e *shelved) DryRun(_ context.Context, s infer.Shape) (budget.Footprint, error) {
	return e.footprint(s), nil
}

func (e *shelved) Load(ctx context.Context, s infer.Shape) (budget.Footprint, error) {
	e.shelf.mu.Lock()
	e.shelf.loads++
	err := e.shelf.faults
	e.shelf.mu.Unlock()
	if err != nil {
		return budget.Footprint{}, err
	}
	return e.Reshape(ctx, s)
}

func (e *shelved) Reshape(ctx context.Context, s infer.Shape) (budget.Footprint, error) {
	if _, err := e.script.Reshape(ctx, s); err != nil {
		return budget.Footprint{}, err
	}
	f := e.footprint(s)
	e.shelf.hold(f.Total())
	return f, nil
}

func (e *shelved) Close() error {
	err := e.script.Close()
	e.shelf.hold(0)
	return err
}

// crew is a team of a test.
type crew struct {
	*Team
	shelves []*shelf
	logged  *observer.ObservedLogs
	stop    func() error // ends Run and returns its error; may be called more than once

	mu    sync.Mutex
	most  budget.Bytes // that was charged at once; guarded by mu
	taken budget.Bytes // of the device, by others; guarded by mu
}

// newCrew makes a team over the shelves that has 4 jobs in a step and pools of up to
// 1024 tokens (64 MiB), beside its own process of 10 MiB and 64 MiB of growth for that
// and for each engine.
func newCrew(t *testing.T, c *queue.Client, limit budget.Bytes, change func(*Options), shelves ...*shelf) *crew {
	t.Helper()
	opts := Options{
		Name: "crew", Device: budget.Device{ID: "cpu", Kind: budget.CPU, MemoryID: "the device"},
		Limit: limit, MaxParallelTokens: 4, MaxCacheTokens: 1024,
		Measure: func(int) (budget.Bytes, error) { return processMemory, nil }, StatsInterval: 20 * time.Millisecond,
		WatchInterval: 5 * time.Millisecond, GrowAfter: 50 * time.Millisecond, Turn: 200 * time.Millisecond, RetryStart: 10 * time.Millisecond,
	}
	r := &crew{shelves: shelves}
	opts.ReadDevice = func() (budget.Device, error) { return r.device(), nil }
	if change != nil {
		change(&opts)
	}
	var models []Model
	for _, s := range shelves {
		m := Model{
			Name: s.name, Spec: infer.Spec{GPU: -1, Threads: 1, Batch: 512}, Engine: s.engine,
			Monitor: budget.NewMonitor(func(int) (budget.Bytes, error) { return s.holds(), nil }, 10*time.Millisecond, nil),
			Taker:   c.NewTaker(queue.TakerOptions{Worker: opts.Name, Models: []string{s.name}}, nil),
		}
		m.Monitor.Add(1)
		models = append(models, m)
	}
	log, logged := observer.New(zap.InfoLevel)
	r.Team, r.logged = NewTeam(opts, c, models, zap.New(log)), logged
	for _, s := range shelves {
		s.check = func() { r.look(t) }
	}
	return r
}

// device is what the device has beside what is held.
func (r *crew) device() budget.Device {
	n := 4 * budget.GiB
	for _, s := range r.shelves {
		n = n.Sub(s.holds())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return budget.Device{ID: "cpu", MemoryID: "the device", Total: 4 * budget.GiB, Free: n.Sub(processMemory).Sub(r.taken)}
}

// look checks that what is charged and what is held are within the limit.
func (r *crew) look(t *testing.T) {
	if r.common == nil {
		return
	}
	charged, held := budget.Bytes(r.common.own.Load()), processMemory
	for _, s := range r.common.group.Snapshot() {
		if s.Device != hostID {
			charged = charged.Add(s.Charged().Total())
		}
	}
	for _, s := range r.shelves {
		held = held.Add(s.holds())
	}
	if charged > r.opts.Limit || held > r.opts.Limit {
		t.Errorf("%v are charged and %v held, allowed are %v", charged, held, r.opts.Limit)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most = max(r.most, charged)
}

// run starts and runs the team until the test ends or stop is called, and looks all the
// time whether it is within its limit.
func (r *crew) run(t *testing.T) *crew {
	t.Helper()
	require.NoError(t, r.Start(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	ended, looked := make(chan error, 1), make(chan struct{})
	go func() { ended <- r.Run(ctx) }()
	go func() {
		defer close(looked)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				r.look(t)
			}
		}
	}()
	r.stop = sync.OnceValue(func() error {
		for _, e := range r.logged.All() {
			if t.Failed() {
				t.Log(e.Time.Format(time.StampMilli), e.Level, e.Message, e.ContextMap())
			}
		}
		for _, m := range r.members {
			if s := m.state(); t.Failed() {
				t.Logf("model %s: loaded %t, failed: %v", m.Name, s.worker != nil, s.failure)
			}
		}
		cancel()
		err := <-ended
		<-looked
		require.NoError(t, r.Close())
		for _, s := range r.shelves {
			require.Zero(t, s.holds(), s.name)
		}
		for _, s := range r.common.group.Snapshot() {
			require.Zero(t, s.Reserved, s.Device)
			require.Zero(t, s.Leases, s.Device)
			require.Zero(t, s.Waiting, s.Device)
			if s.Device != hostID {
				require.Zero(t, s.Charged(), s.Device)
			}
		}
		return err
	})
	t.Cleanup(func() { require.NoError(t, r.stop()) })
	return r
}

// sendTo queues a batch of n chat jobs; job i is for the model i modulo their number.
func sendTo(t *testing.T, c *queue.Client, batch string, n int, models ...string) {
	t.Helper()
	_, _, err := c.CreateBatch(t.Context(), api.Batch{
		ID: batch, Object: "batch", Status: api.InProgress, CreatedAt: time.Now().Unix(),
		Tempo: api.BatchTempo{Priority: api.Normal, Models: models},
	})
	require.NoError(t, err)
	_, err = c.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) {
		for i := range n {
			if !yield(api.Job{
				ID: fmt.Sprint(i), Batch: batch, CustomID: fmt.Sprintf("custom-%d", i), Model: models[i%len(models)], Priority: api.Normal,
				URL: api.ChatCompletions, Body: json.RawMessage(fmt.Sprintf(`{"messages":[{"role":"user","content":"prompt %d"}]}`, i)), Line: i + 1,
			}, nil) {
				return
			}
		}
	})
	require.NoError(t, err)
}

// requireServed checks that n results are answers of the models in turn.
func requireServed(t *testing.T, got map[string]api.Result, n int, models ...string) {
	t.Helper()
	require.Len(t, got, n)
	for i := range n {
		r := got[fmt.Sprintf("custom-%d", i)]
		requireAnswered(t, r, 1)
		var body api.Completion
		require.NoError(t, json.Unmarshal(r.Response.Body, &body))
		require.Equal(t, models[i%len(models)], body.Model)
		require.Equal(t, fmt.Sprintf("prompt %d", i), body.Choices[0].Message.Content)
		require.Equal(t, "crew", r.Tempo.Worker)
	}
}

// What a loaded model takes with 1024 cells: 64 MiB of KV, and growth.
const pooled = 64*budget.MiB + processGrowth

// limitFor is a limit into which so much fits beside the process itself.
func limitFor(n budget.Bytes) budget.Bytes {
	return n.Add(processMemory + processGrowth).Scale(1 / 0.95).Add(4 * budget.MiB)
}
