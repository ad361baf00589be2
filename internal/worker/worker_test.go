package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

func TestEveryJobHasOneResult(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{}
	w := newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(100)...)

	got := results(t, c, "b", 100)
	for id, r := range got {
		requireAnswered(t, r, 1)
		require.Equal(t, w.opts.Name, r.Tempo.Worker)
		require.Equal(t, "cpu", r.Tempo.Device)
		require.Positive(t, r.Tempo.LeaseBytes)
		m := r.Tempo.Memory
		require.NotNil(t, m)
		require.Equal(t, int64(1024*1024), m.KVCache)
		require.Equal(t, int64(processMemory), m.Total())
		require.LessOrEqual(t, m.Reserved, m.KVCache)
		require.Positive(t, m.Reserved)
		require.Equal(t, int64(100*budget.MiB), m.Limit)
		var body api.Completion
		require.NoError(t, json.Unmarshal(r.Response.Body, &body))
		require.Equal(t, "prompt "+id[len("custom-"):], body.Choices[0].Message.Content)
		require.Equal(t, model, body.Model)
	}
	_, most := engine.now()
	require.LessOrEqual(t, most, 4)
	require.NoError(t, w.stop())
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	all := make(chan struct{})
	arrived := make(chan struct{}, 8)
	engine := &script{act: func(ctx context.Context, _ infer.Request, _ string) error {
		arrived <- struct{}{}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(8)...)
	for range 4 {
		<-arrived
	}
	close(all)
	results(t, c, "b", 8)
	_, most := engine.now()
	require.Equal(t, 4, most)
}

func TestNothingIsFetchedWhileNothingFits(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{}
	w := newWorker(t, c, engine, nil)
	full, err := w.ledger.Acquire(t.Context(), w.ledger.Snapshot().Room, budget.Normal)
	require.NoError(t, err)
	send(t, c, "b", prompts(10)...)
	w.run(t)

	require.Eventually(t, func() bool { return w.ledger.Snapshot().Waiting == 1 }, 5*time.Second, time.Millisecond)
	require.Never(t, func() bool { return w.taker.fetches.Load() > 0 }, 300*time.Millisecond, 20*time.Millisecond)
	full.Release()
	for _, r := range results(t, c, "b", 10) {
		requireAnswered(t, r, 1) // nobody has had it before
	}
}

func TestRefusedJobs(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newWorker(t, c, &script{}, nil).run(t)
	sendBodies(t, c, "b",
		`{"messages":[{"role":"user","content":"hello"}],"temperature":"warm"}`,
		`{"messages":[{"role":"user","content":"`+words(1024)+`"}]}`,
		`{"messages":[{"role":"user","content":"hello"}]}`,
		`{"messages":[{"role":"user","content":"hello"}],"stream":true}`,
	)
	got := results(t, c, "b", 4)

	e := requireFailed(t, got["custom-0"], 400)
	require.Equal(t, "temperature", *e.Param)
	require.Equal(t, "invalid_request_error", e.Type)
	require.NotEmpty(t, e.Hint)

	e = requireFailed(t, got["custom-1"], 400)
	require.Equal(t, "messages", *e.Param)
	require.Contains(t, e.Message, "1024 words")
	require.NotEmpty(t, e.Hint)

	requireAnswered(t, got["custom-2"], 1)

	e = requireFailed(t, got["custom-3"], 400)
	require.Equal(t, "stream", *e.Param)
}

func TestMemoryThatCanNeverFit(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{act: func(ctx context.Context, r infer.Request, prompt string) error {
		if prompt == "prompt 1" {
			return r.Lease.Resize(ctx, 0, 5000)
		}
		return nil
	}}
	newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(3)...)
	got := results(t, c, "b", 3)
	e := requireFailed(t, got["custom-1"], 507)
	require.Equal(t, "memory_error", e.Type)
	require.Equal(t, "memory_error", *e.Code)
	require.Contains(t, e.Message, "4.88 MiB needed, 1.00 MiB (1024 tokens) can be had")
	require.Contains(t, e.Hint, "raise --max-cache-tokens to at least 5120")
	require.Equal(t, &api.MemoryError{
		NeedBytes: 5000 << 10, AvailableBytes: 1 << 20, NeedTokens: 5000, AvailableTokens: 1024,
		Remedies: []string{"raise --max-cache-tokens to at least 5120", "shorten the prompt to at most 1023 tokens"},
	}, got["custom-1"].Tempo.MemoryError)
	requireAnswered(t, got["custom-0"], 1)
	requireAnswered(t, got["custom-2"], 1)
}

// A job whose attention is read has a part of the pool only, and is told of that.
func TestMemoryOfAPartOfThePool(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newWorker(t, c, &script{act: func(context.Context, infer.Request, string) error {
		return &infer.PoolError{Need: 600, Have: 512}
	}}, nil).run(t)
	send(t, c, "b", "hello")
	require.Equal(t, &api.MemoryError{
		NeedBytes: 600 << 10, AvailableBytes: 512 << 10, NeedTokens: 600, AvailableTokens: 512,
		Remedies: []string{"raise --max-cache-tokens to at least 1280", "shorten the prompt to at most 511 tokens"},
	}, results(t, c, "b", 1)["custom-0"].Tempo.MemoryError)
}

// A result that is larger than a message may be comes all the same.
func TestResultBeyondTheServersPayload(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newWorker(t, c, &hugeAnswer{}, nil).run(t)
	send(t, c, "b", "hello")
	r := results(t, c, "b", 1)["custom-0"]
	requireAnswered(t, r, 1)
	require.Greater(t, len(r.Response.Body), 2<<20)
}

// hugeAnswer answers with more than a server takes.
type hugeAnswer struct{ infer.Sleeper }

func (*hugeAnswer) Generate(context.Context, infer.Request) (*infer.Output, error) {
	return &infer.Output{Choices: []infer.Choice{{Text: words(2 << 20), FinishReason: "stop"}}, Started: time.Now()}, nil
}

func TestTwoBatchesProgress(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{}
	engine.Delay = func(infer.Request) time.Duration { return 5 * time.Millisecond }
	newWorker(t, c, engine, nil).run(t)
	send(t, c, "long", prompts(600)...)
	send(t, c, "short", prompts(5)...)
	for _, r := range results(t, c, "short", 5) {
		requireAnswered(t, r, 1)
	}
	left, err := c.Pending(t.Context(), "long")
	require.NoError(t, err)
	require.Positive(t, left, "the short batch waited for the long one")
	results(t, c, "long", 600)
}

func TestDrain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		timeout time.Duration
		ends    bool // the running jobs end in time
	}{
		"jobs end in time":    {10 * time.Second, true},
		"jobs are given back": {50 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newQueue(t)
			goOn := make(chan struct{})
			engine := &script{act: func(ctx context.Context, _ infer.Request, _ string) error {
				select {
				case <-goOn:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}
			w := newWorker(t, c, engine, func(o *Options) { o.DrainTimeout = test.timeout }).run(t)
			send(t, c, "b", prompts(6)...)
			require.Eventually(t, func() bool { n, _ := engine.now(); return n == 4 }, 5*time.Second, time.Millisecond)
			stopped := make(chan error, 1)
			go func() { stopped <- w.stop() }()
			if test.ends {
				close(goOn)
			}
			require.NoError(t, <-stopped)
			done, err := c.CountResults(t.Context(), "b")
			require.NoError(t, err)
			workers, err := c.Workers(t.Context())
			require.NoError(t, err)
			require.Empty(t, workers, "a stopped worker is still announced")

			// Another one does the rest at once, and it costs no attempt.
			start := time.Now()
			newWorker(t, c, &script{}, func(o *Options) { o.Name = "second" }).run(t)
			again := 0
			for _, r := range results(t, c, "b", 6) {
				requireAnswered(t, r, 1)
				if r.Tempo.Worker == "second" {
					again++
				}
			}
			require.Less(t, time.Since(start), 5*time.Second)
			require.Equal(t, 6-done, again)
			if test.ends {
				require.GreaterOrEqual(t, done, 4)
			} else {
				require.Zero(t, done)
			}
		})
	}
}

func TestEngineThatIsGoneEndsTheWorker(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	gone := &infer.StartError{What: "replace the engine", Err: errors.New("it dies"), Advice: "look"}
	engine := &script{act: func(context.Context, infer.Request, string) error { return gone }}
	w := newWorker(t, c, engine, nil)
	send(t, c, "b", prompts(5)...)
	require.ErrorIs(t, w.Run(t.Context()), gone)
	w.requireEmpty(t)
	// Nothing is lost.
	newWorker(t, c, &script{}, func(o *Options) { o.Name = "second" }).run(t)
	for _, r := range results(t, c, "b", 5) {
		requireAnswered(t, r, 1)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	w := newWorker(t, c, &script{}, func(o *Options) {
		o.Layers = func(sequences, cells int) []api.LayerMemory {
			return []api.LayerMemory{{Layer: 0, Kind: "attention", Weights: int64(sequences), KVCache: int64(cells)}}
		}
	}).run(t)
	send(t, c, "b", prompts(10)...)
	results(t, c, "b", 10)
	var s api.MemoryStats
	require.Eventually(t, func() bool {
		all, err := c.LatestStats(t.Context())
		if err != nil || len(all) != 1 {
			return false
		}
		s = all[0]
		return s.Tokens == 20 && s.Peak > 0
	}, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, w.opts.Name, s.Worker)
	require.Equal(t, "cpu", s.Device)
	require.Equal(t, model, s.Model)
	require.Equal(t, int64(processMemory), s.Total(), "measured")
	require.Equal(t, int64(processMemory), s.Peak)
	require.Equal(t, int64(1024*1024), s.KVCache)
	require.LessOrEqual(t, s.Total(), s.Limit)
	require.Equal(t, int64(processMemory+processGrowth+1024*cellRecord)+s.KVCache, s.Estimate.Total())
	require.LessOrEqual(t, s.Estimate.Total(), s.Limit)
	require.Equal(t, 4, s.MaxParallelTokens)
	require.Equal(t, 1024, s.MaxCacheTokens)
	require.Zero(t, s.Waiting)
	require.Equal(t, "ok", s.Pressure)
	require.Equal(t, int64(processGrowth), s.Host.Limit)
	require.Positive(t, s.Host.Peak)
	require.Equal(t, []api.LayerMemory{{Layer: 0, Kind: "attention", Weights: 4, KVCache: 1024}}, s.Layers)

	workers, err := c.Workers(t.Context())
	require.NoError(t, err)
	require.Len(t, workers, 1)
	require.Equal(t, []string{model}, workers[0].Models)
	require.Equal(t, 1024, workers[0].Capacity)
}

func TestStart(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	make := func(change func(*Options)) (*Worker, error) {
		opts := Options{
			Name: "w", Model: model, Device: budget.Device{ID: "cpu", Kind: budget.CPU}, Spec: infer.Spec{GPU: -1, Threads: 2, Batch: 512},
			Limit: 100 * budget.MiB, Measure: func(int) (budget.Bytes, error) { return processMemory, nil },
		}
		change(&opts)
		w := New(opts, c, nil, &infer.Sleeper{ContextTokens: 300}, budget.NewMonitor(opts.Measure, time.Second, nil), nil)
		return w, w.Start(t.Context())
	}
	w, err := make(func(*Options) {})
	require.NoError(t, err)
	require.Equal(t, 16, w.plan.Sequences, "8 for each thread")
	require.Equal(t, model, w.Model())

	w, err = make(func(o *Options) { o.MaxParallelTokens = 7; o.MaxCacheTokens = 512 })
	require.NoError(t, err)
	require.Equal(t, 7, w.plan.Sequences)
	require.Equal(t, 512, w.plan.Cells)

	_, err = make(func(o *Options) { o.Limit = 70 * budget.MiB })
	var large *budget.TooLargeError
	require.ErrorAs(t, err, &large)
	require.Contains(t, large.Hint(), "--max-memory-gb")
}

// TestRunEnds: whatever the services are doing at that moment, Run ends.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	w := newWorker(t, c, &script{}, func(o *Options) { o.StatsInterval = time.Microsecond })
	for range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		fetches := w.taker.fetches.Load()
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		require.Eventually(t, func() bool { return w.taker.fetches.Load() > fetches }, 5*time.Second, time.Millisecond)
		cancel()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(10 * time.Second):
			require.FailNow(t, "Run has not ended")
		}
		w.requireEmpty(t)
	}
}

// TestHostMemoryIsLeased: a request that is too large for what is left of the host's
// memory goes back to the queue, one that is larger than all of it fails.
func TestHostMemoryIsLeased(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	w := newWorker(t, c, &script{}, func(o *Options) { o.HostMemory = budget.MiB }).run(t)
	held, err := w.host.Acquire(t.Context(), 600*budget.KiB, budget.High)
	require.NoError(t, err)
	pad := func(n int) string {
		return `{"messages":[{"role":"user","content":"hello` + strings.Repeat("o", n) + `"}]}`
	}
	sendBodies(t, c, "b", pad(0), pad(100<<10), pad(300<<10))
	got := func() int {
		n, err := c.CountResults(t.Context(), "b")
		require.NoError(t, err)
		return n
	}
	require.Eventually(t, func() bool { return got() == 2 }, 5*time.Second, time.Millisecond)
	held.Release()
	all := results(t, c, "b", 3)
	requireAnswered(t, all["custom-0"], 1)
	requireAnswered(t, all["custom-1"], 1)
	e := requireFailed(t, all["custom-2"], 507)
	require.Equal(t, "memory_error", *e.Code)
	require.Contains(t, e.Message, "host memory")
}

// TestALostGPUEndsTheWorker: it does not come back by itself, and every process on it
// is lost.
func TestALostGPUEndsTheWorker(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	var lost atomic.Bool
	w := newWorker(t, c, &script{}, func(o *Options) {
		o.Device, o.Limit = budget.Device{ID: "GPU-1", Kind: budget.CUDA}, 2*budget.GiB
		o.Measure = func(int) (budget.Bytes, error) {
			if lost.Load() {
				return 0, fmt.Errorf("read GPU-1: %w", budget.ErrGPULost)
			}
			return processMemory, nil
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(t.Context()) }()
	require.Eventually(t, func() bool { return w.taker.fetches.Load() > 0 }, 5*time.Second, time.Millisecond)
	lost.Store(true)
	require.ErrorIs(t, <-ended, budget.ErrGPULost)
	w.requireEmpty(t)
}
