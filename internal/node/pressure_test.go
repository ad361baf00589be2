package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local/localtest"
	"tempo/internal/queue"
	"tempo/internal/worker"
)

// pressed is a worker with a real engine process, on a device of which a test says
// how much there is for it.
type pressed struct {
	*worker.Worker
	client *queue.Client
	engine atomic.Int64 // pid
	roof   atomic.Int64 // bytes that there are for the worker
}

// held is what the worker's processes hold now.
func (p *pressed) held() budget.Bytes {
	var sum budget.Bytes
	for _, pid := range []int{os.Getpid(), int(p.engine.Load())} {
		n, _ := budget.ProportionalSetSize(pid)
		sum = sum.Add(n)
	}
	return sum
}

func newPressed(t *testing.T) *pressed {
	t.Helper()
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	p := &pressed{}
	p.client, err = queue.ConnectEmbedded(t.Context(), server, nil)
	require.NoError(t, err)
	t.Cleanup(p.client.Close)
	require.NoError(t, p.client.EnsureTopology(t.Context(), queue.Topology{}))

	spec := infertest.TinySpec(t)
	spec.Model = filepath.Join(t.TempDir(), "model.gguf")
	model := gguf.Tiny()
	model.Layers, model.Embedding, model.Heads, model.KVHeads, model.FeedForward = 4, 512, 8, 8, 512 // 16 KiB of KV a token
	require.NoError(t, gguf.WriteFile(spec.Model, model))
	monitor := budget.NewMonitor(budget.ProportionalSetSize, 50*time.Millisecond, nil)
	monitor.Add(os.Getpid())
	host := infer.NewHost(infer.HostOptions{
		Command: []string{os.Args[0], localtest.EngineArg}, Stderr: os.Stderr,
		OnProcess: func(pid int, alive bool) {
			if alive {
				p.engine.Store(int64(pid))
				monitor.Add(pid)
			} else {
				monitor.Remove(pid)
			}
		},
	}, nil)
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	p.roof.Store(int64(4 * budget.GiB))
	taker := p.client.NewTaker(queue.TakerOptions{Worker: "w", Models: []string{"m"}}, nil)
	p.Worker = worker.New(worker.Options{
		Name: "w", Model: "m", Spec: spec, Device: budget.Device{ID: budget.CPUID, MemoryID: "test"},
		Limit: 4 * budget.GiB, MaxParallelTokens: 8, MaxCacheTokens: 16384,
		Measure: budget.ProportionalSetSize, WatchInterval: 50 * time.Millisecond, GrowAfter: time.Second,
		ReadDevice: func() (budget.Device, error) {
			roof := budget.Bytes(p.roof.Load())
			return budget.Device{ID: budget.CPUID, MemoryID: "test", Total: 4 * budget.GiB, Free: roof.Sub(p.held())}, nil
		},
	}, p.client, taker, host, monitor, nil)
	require.NoError(t, p.Start(t.Context()))
	return p
}

// TestTheLimitHoldsWhileOthersTakeMemory has somebody take memory of the device in
// the middle of a batch, and give it back: what the processes really hold follows,
// and every job is answered once. It is not parallel: it measures this process too.
func TestTheLimitHoldsWhileOthersTakeMemory(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	p := newPressed(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		stop()
		require.NoError(t, <-ended)
	}()
	const jobs = 16
	_, _, err := p.client.CreateBatch(t.Context(), api.Batch{ID: "b", Status: api.InProgress, Tempo: api.BatchTempo{Models: []string{"m"}}})
	require.NoError(t, err)
	_, err = p.client.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) {
		for i := range jobs {
			body := fmt.Sprintf(`{"messages":[{"role":"user","content":%q}],"max_tokens":60}`, infertest.Words(200+i))
			if !yield(api.Job{ID: fmt.Sprint(i), Batch: "b", CustomID: fmt.Sprint(i), Model: "m", URL: api.ChatCompletions, Body: json.RawMessage(body)}, nil) {
				return
			}
		}
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.Stats().Tokens > 100 }, 30*time.Second, time.Millisecond)

	before := p.held()
	roof := before.Sub(100 * budget.MiB)
	p.roof.Store(int64(roof))
	peak := before
	require.Eventually(t, func() bool {
		peak = max(peak, p.held())
		return p.Stats().MaxCacheTokens < 16384
	}, 20*time.Second, 5*time.Millisecond)
	const pages = 16 * budget.MiB // of a process at work, more or less
	require.LessOrEqual(t, peak, before+pages, "giving way takes no memory")
	require.Never(t, func() bool { return p.held() > roof }, 300*time.Millisecond, 5*time.Millisecond)
	t.Logf("held %v, then %v were left, and %v held by %d cells", before, roof, p.held(), p.Stats().MaxCacheTokens)

	p.roof.Store(int64(4 * budget.GiB))
	got := map[string]bool{}
	require.NoError(t, p.client.Results(t.Context(), "b", func(r api.Result) error {
		require.False(t, got[r.CustomID])
		require.True(t, r.OK(), "%s", r.Response.Body)
		require.Equal(t, 1, r.Tempo.Attempt)
		if got[r.CustomID] = true; len(got) == jobs {
			return queue.Stop
		}
		return nil
	}))
	require.Eventually(t, func() bool { return p.Stats().MaxCacheTokens == 16384 }, 20*time.Second, 10*time.Millisecond, "it grows again")
}
