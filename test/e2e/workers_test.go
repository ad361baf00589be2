package e2e

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// worker starts a worker and waits until it takes jobs.
func (h home) worker(t *testing.T, name, url, model string, args ...string) *process {
	t.Helper()
	args = append([]string{"--server", url, "--worker-name", name, "--model", "m=" + model, "--max-memory-gb", "2"}, args...)
	p := h.start(t, nil, "worker", args...)
	p.says("ready for jobs")
	return p
}

func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	a := h.worker(t, "a", url, tiny)
	b := h.worker(t, "b", url, tiny)
	h.write(t, "prompts.jsonl", batch(300, 20))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m", "-o", "results.jsonl")
	require.Equal(t, 0, p.wait(60*time.Second))
	workers := requireOnce(t, read(t, h.path("results.jsonl")), 300)
	require.Len(t, workers, 2, "%v", workers)
	require.Contains(t, p.stderr.String(), "Memory of worker a")
	require.Contains(t, p.stderr.String(), "Memory of worker b")

	// The same file again: nothing is done twice.
	p = h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m", "-o", "again.jsonl")
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Equal(t, workers, requireOnce(t, read(t, h.path("again.jsonl")), 300))
	require.Contains(t, p.stderr.String(), "300 of an earlier run")

	for _, w := range []*process{a, b} {
		engine := w.engine()
		require.NotZero(t, engine)
		w.signal(syscall.SIGINT)
		require.Equal(t, 0, w.wait(8*time.Second))
		require.False(t, alive(engine))
	}
}

func TestWorkerInterrupted(t *testing.T) {
	t.Parallel()
	c, url := newQueue(t)
	h := newHome(t)
	a := h.worker(t, "a", url, slow, "--max-parallel-tokens", "4")
	h.write(t, "prompts.jsonl", batch(24, 100))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m", "-o", "results.jsonl")
	reaches(t, c, onlyBatch(t, c, url), 4)
	h.worker(t, "b", url, slow)
	a.signal(syscall.SIGINT)
	require.Equal(t, 0, a.wait(8*time.Second))
	require.Equal(t, 0, p.wait(25*time.Second), "jobs were not given back at once")
	results := read(t, h.path("results.jsonl"))
	workers := requireOnce(t, results, 24)
	require.Len(t, workers, 2)
	for _, r := range results {
		require.Equal(t, 1, r.Tempo.Attempt)
	}
}

// An engine that hears nothing any more must not keep Ctrl-C from working.
func TestWorkerInterruptedWithAStuckEngine(t *testing.T) {
	t.Parallel()
	c, url := newQueue(t)
	h := newHome(t)
	a := h.worker(t, "a", url, slow, "--max-parallel-tokens", "4")
	h.write(t, "prompts.jsonl", batch(24, 100))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m", "-o", "results.jsonl")
	reaches(t, c, onlyBatch(t, c, url), 4)
	engine := a.engine()
	require.NoError(t, syscall.Kill(engine, syscall.SIGSTOP))
	a.signal(syscall.SIGINT)
	require.Equal(t, 0, a.wait(13*time.Second))
	require.False(t, alive(engine))
	h.worker(t, "b", url, slow)
	require.Equal(t, 0, p.wait(25*time.Second), "jobs were not given back")
	results := read(t, h.path("results.jsonl"))
	requireOnce(t, results, 24)
	for _, r := range results {
		require.Equal(t, 1, r.Tempo.Attempt)
	}
}

// TestWorkerKilled takes the 30 s after which the queue gives a job to somebody
// else.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	c, url := newQueue(t)
	h := newHome(t)
	a := h.worker(t, "a", url, slow, "--max-parallel-tokens", "4")
	h.write(t, "prompts.jsonl", batch(24, 100))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m", "-o", "results.jsonl")
	reaches(t, c, onlyBatch(t, c, url), 4)
	h.worker(t, "b", url, slow)
	engine := a.engine()
	require.NotZero(t, engine)
	a.signal(syscall.SIGKILL)
	require.Eventually(t, func() bool { return !alive(engine) }, 3*time.Second, 10*time.Millisecond, "the engine of a dead worker lives on")
	require.Equal(t, 0, p.wait(55*time.Second))
	results := read(t, h.path("results.jsonl"))
	require.Len(t, requireOnce(t, results, 24), 2)
	again := 0
	for _, r := range results {
		if r.Tempo.Attempt == 2 {
			again++
		}
	}
	require.Positive(t, again)
	require.LessOrEqual(t, again, 4+4, "those that ran, and as many that waited in the engine")
}

func TestUnservedModel(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	h.worker(t, "a", url, tiny)
	h.write(t, "prompts.jsonl", batch(2, 5)+strings.Replace(line("other", "hello", 5), `"body":{`, `"body":{"model":"gpt-5",`, 1)+"\n")
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m")
	require.Equal(t, 3, p.wait(20*time.Second))
	results := parse(t, p.stdout.String())
	require.Len(t, results, 3)
	require.Equal(t, "model_not_found", results[0].Error.Code)
	require.Contains(t, results[0].Error.Message, "prompts.jsonl:3:")
	require.Contains(t, results[0].Error.Message, "served are: m")
}

func TestStatsInPlainNATS(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	sub, err := plainNATS(t, url).SubscribeSync("stats.memory.>")
	require.NoError(t, err)
	h.worker(t, "a.b", url, tiny)
	for range 2 { // every few seconds
		m, err := sub.NextMsg(5 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "stats.memory.a=2Eb.cpu", m.Subject)
		var s api.MemoryStats
		require.NoError(t, json.Unmarshal(m.Data, &s))
		require.Equal(t, "a.b", s.Worker)
		require.Positive(t, s.Weights)
		require.Positive(t, s.KVCache)
		require.Positive(t, s.ParallelBatch)
		require.Positive(t, s.Overhead)
		require.Equal(t, int64(2<<30), s.Limit)
		require.LessOrEqual(t, s.Total(), s.Limit)
		require.InDelta(t, s.Estimate.Weights, s.Weights, 0.05*float64(s.Weights))
		require.InDelta(t, s.Estimate.KVCache, s.KVCache, 0.05*float64(s.KVCache))
	}
}
