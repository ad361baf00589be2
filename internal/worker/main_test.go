package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

const model = "tiny"

func TestMain(m *testing.M) {
	if os.Getenv(engineVar) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := serveEngine(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// newQueue starts a server of its own for a test, with the streams.
func newQueue(t *testing.T) *queue.Client {
	t.Helper()
	return newServer(t).connect(t)
}

// server is a queue's server in this process.
type server struct{ *queue.Embedded }

func newServer(t *testing.T) server {
	t.Helper()
	e, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	return server{e}
}

func (s server) connect(t *testing.T) *queue.Client {
	t.Helper()
	return s.with(t, queue.Topology{})
}

func (s server) with(t *testing.T, topology queue.Topology) *queue.Client {
	t.Helper()
	c, err := queue.ConnectEmbedded(t.Context(), s.Embedded, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.EnsureTopology(t.Context(), topology))
	return c
}

// send queues a batch of chat jobs; the ids of the jobs are their numbers, from 0.
func send(t *testing.T, c *queue.Client, batch string, prompts ...string) {
	t.Helper()
	bodies := make([]string, len(prompts))
	for i, p := range prompts {
		bodies[i] = fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, p)
	}
	sendBodies(t, c, batch, bodies...)
}

func sendBodies(t *testing.T, c *queue.Client, batch string, bodies ...string) {
	t.Helper()
	_, _, err := c.CreateBatch(t.Context(), api.Batch{
		ID: batch, Object: "batch", Status: api.InProgress, CreatedAt: time.Now().Unix(),
		Tempo: api.BatchTempo{Priority: api.Normal, Models: []string{model}},
	})
	require.NoError(t, err)
	published, err := c.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) {
		for i, body := range bodies {
			if !yield(api.Job{
				ID: fmt.Sprint(i), Batch: batch, CustomID: fmt.Sprintf("custom-%d", i), Model: model, Priority: api.Normal,
				URL: api.ChatCompletions, Body: json.RawMessage(body), Line: i + 1,
			}, nil) {
				return
			}
		}
	})
	require.NoError(t, err)
	require.Equal(t, len(bodies), published.New)
}

// prompts are n different prompts of two words.
func prompts(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("prompt %d", i)
	}
	return list
}

// results waits for n results of a batch, by job number, and checks that each job
// has one.
func results(t *testing.T, c *queue.Client, batch string, n int) map[string]api.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := map[string]api.Result{}
	require.NoError(t, c.Results(ctx, batch, func(r api.Result) error {
		require.NotContains(t, got, r.CustomID)
		if got[r.CustomID] = r; len(got) == n {
			return queue.Stop
		}
		return nil
	}), "%d of %d results", len(got), n)
	require.Eventually(t, func() bool { // the last ones are still to be acked
		left, err := c.Pending(t.Context(), batch)
		return err == nil && left == 0
	}, 10*time.Second, 10*time.Millisecond)
	stored, err := c.CountResults(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, n, stored)
	return got
}

// script is a Sleeper whose jobs first do what a test says.
type script struct {
	infer.Sleeper
	act func(ctx context.Context, r infer.Request, prompt string) error // nil = nothing

	mu        sync.Mutex
	runs      map[string]int // by prompt; guarded by mu
	inside    int            // jobs in the engine; guarded by mu
	most      int            // at once; guarded by mu
	exclusive int            // jobs in the engine that were in one that died; guarded by mu
	crowded   bool           // there was one of those beside another; guarded by mu
	widths    []int          // that Narrow was called with; guarded by mu
}

func (s *script) Narrow(ctx context.Context, width int) error {
	s.mu.Lock()
	s.widths = append(s.widths, width)
	s.mu.Unlock()
	return s.Sleeper.Narrow(ctx, width)
}

// narrowed is what Narrow was called with so far, nil = it was not.
func (s *script) narrowed() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.widths)
}

func (s *script) Generate(ctx context.Context, r infer.Request) (*infer.Output, error) {
	prompt := r.Job.Messages[len(r.Job.Messages)-1].Content
	s.mu.Lock()
	if s.runs == nil {
		s.runs = map[string]int{}
	}
	s.runs[prompt]++
	s.inside++
	s.most = max(s.most, s.inside)
	again := s.runs[prompt] > 1
	if again {
		s.exclusive++
	}
	s.crowded = s.crowded || s.exclusive > 0 && s.inside > 1
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inside--
		if again {
			s.exclusive--
		}
	}()
	if s.act != nil {
		if err := s.act(ctx, r, prompt); err != nil {
			return nil, err
		}
	}
	return s.Sleeper.Generate(ctx, r)
}

func (s *script) ran(prompt string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[prompt]
}

func (s *script) now() (inside, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inside, s.most
}

// counting is a Taker that counts the fetches that have begun.
type counting struct {
	Taker
	fetches atomic.Int64
}

func (c *counting) Fetch(ctx context.Context, n int) ([]*queue.Delivery, error) {
	c.fetches.Add(1)
	return c.Taker.Fetch(ctx, n)
}

// processMemory is what the tests' processes hold, as far as workers know.
const processMemory = 10 * budget.MiB

// rig is a worker of a test.
type rig struct {
	*Worker
	taker *counting
	stop  func() error // ends Run and returns its error; may be called more than once
}

// newWorker makes a worker over engine with a pool of 1024 tokens and 4 slots, or
// what change says, and loads it.
func newWorker(t *testing.T, c *queue.Client, engine infer.Engine, change func(*Options)) *rig {
	t.Helper()
	opts := Options{
		Name: "worker of " + t.Name(), Model: model, Device: budget.Device{ID: "cpu", Kind: budget.CPU},
		Spec: infer.Spec{GPU: -1, Threads: 1, Batch: 512}, Limit: 100 * budget.MiB, MaxParallelTokens: 4, MaxCacheTokens: 1024,
		Measure: func(int) (budget.Bytes, error) { return processMemory, nil }, StatsInterval: 20 * time.Millisecond,
	}
	if change != nil {
		change(&opts)
	}
	monitor := budget.NewMonitor(opts.Measure, 10*time.Millisecond, nil)
	monitor.Add(1)
	taker := &counting{Taker: c.NewTaker(queue.TakerOptions{Worker: opts.Name, Models: []string{model}}, nil)}
	r := &rig{Worker: New(opts, c, taker, engine, monitor, nil), taker: taker}
	require.NoError(t, r.Start(t.Context()))
	return r
}

// run runs the worker until the test ends or r.stop is called, and checks then
// that it has given everything back.
func (r *rig) run(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		err := <-ended
		r.requireEmpty(t)
		return err
	})
	t.Cleanup(func() { require.NoError(t, r.stop()) })
	return r
}

// requireEmpty checks that nobody holds or waits for anything.
func (r *rig) requireEmpty(t *testing.T) {
	t.Helper()
	for _, s := range r.group.Snapshot() {
		require.Zero(t, s.Reserved, s.Device)
		require.Zero(t, s.Leases, s.Device)
		require.Zero(t, s.Waiting, s.Device)
	}
	require.Zero(t, r.count())
	_, inside := r.slots.counts()
	require.Zero(t, inside)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Zero(t, r.holders)
	require.Nil(t, r.turn)
}

func requireAnswered(t *testing.T, r api.Result, attempt int) {
	t.Helper()
	require.True(t, r.OK(), "%+v", r)
	require.Equal(t, attempt, r.Tempo.Attempt)
}

// requireFailed checks an error result and returns its error.
func requireFailed(t *testing.T, r api.Result, status int) api.ErrorDetail {
	t.Helper()
	require.NotNil(t, r.Response)
	require.Equal(t, status, r.Response.StatusCode)
	var body api.ErrorBody
	require.NoError(t, json.Unmarshal(r.Response.Body, &body))
	require.NotEmpty(t, body.Error.Message)
	return body.Error
}

func words(n int) string { return strings.TrimSpace(strings.Repeat("word ", n)) }
