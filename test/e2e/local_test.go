package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestLocal(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	var lines []string
	for i := range 24 {
		lines = append(lines, line(fmt.Sprintf("job-%d", i), fmt.Sprintf("Prompt number %d", i), 5+i))
	}
	bad := []struct{ line, says string }{
		{`{"custom_id": "cut`, "prompts.jsonl:3:"},
		{line("job-0", "doubled", 5), "custom_id"},
		{`{"custom_id":"x1","method":"POST","url":"/v1/audio/speech","body":{"messages":[{"role":"user","content":"a"}]}}`, "url"},
		{`{"custom_id":"x2","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"a"}],"max_toknes":5}}`, "body.max_tokens"},
		{`{"custom_id":"x3","method":"POST","url":"/v1/chat/completions","body":{"messages":"hello"}}`, "body.messages"},
		{`{"custom_id":"x4","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"a"}],"stream":true}}`, "body.stream"},
		{`{"method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"a"}]}}`, "custom_id"},
	}
	for i, b := range bad {
		at := 2 + 2*i // between the others
		lines = append(lines[:at], append([]string{b.line}, lines[at:]...)...)
	}
	long := line("too-long", strings.Repeat("word ", 3000), 5)
	lines = append(lines, long)
	file := h.write(t, "prompts.jsonl", strings.Join(lines, "\n"))

	p := h.start(t, nil, "submit", "run", file, "--local", "--model", "tiny="+tiny, "-o", "out/results.jsonl", "--errors", "out/errors.jsonl")
	require.Equal(t, 3, p.wait(30*time.Second))
	require.Empty(t, p.stdout.String())

	results, failures := read(t, h.path("out/results.jsonl")), read(t, h.path("out/errors.jsonl"))
	requireOnce(t, results, 24)
	require.Len(t, failures, len(bad)+1)
	require.Len(t, lines, len(results)+len(failures))
	for i, b := range bad {
		r := failures[i]
		require.NotNil(t, r.Error, "%+v", r)
		require.Contains(t, r.Error.Message, b.says)
		require.Contains(t, r.Error.Message, fmt.Sprintf("prompts.jsonl:%d:", r.Tempo.Line))
		require.Equal(t, b.line, lines[r.Tempo.Line-1])
	}
	last := failures[len(bad)]
	require.Equal(t, "too-long", last.CustomID)
	require.Equal(t, 400, last.Response.StatusCode)
	var body api.ErrorBody
	require.NoError(t, json.Unmarshal(last.Response.Body, &body))
	require.Equal(t, "messages", *body.Error.Param)
	require.Contains(t, body.Error.Message, "at most 2048")
	require.Contains(t, body.Error.Hint, "--context-size")

	for _, r := range results {
		m := r.Tempo.Memory
		require.NotNil(t, m)
		for name, bytes := range map[string]int64{
			"weights": m.Weights, "kv_cache": m.KVCache, "parallel_batch": m.ParallelBatch, "overhead": m.Overhead,
			"peak": m.Peak, "reserved": m.Reserved, "limit": m.Limit,
		} {
			require.Positive(t, bytes, name)
		}
		require.LessOrEqual(t, m.Total(), m.Limit)
		require.LessOrEqual(t, m.Reserved, m.KVCache)
		require.Equal(t, "cpu", r.Tempo.Device)
		require.Equal(t, 1, r.Tempo.Attempt)
		require.Positive(t, r.Tempo.DecodeSeconds+r.Tempo.PrefillSeconds)
		var answer api.Completion
		require.NoError(t, json.Unmarshal(r.Response.Body, &answer))
		require.Equal(t, "tiny", answer.Model)
		require.LessOrEqual(t, answer.Usage.CompletionTokens, 28)
	}
	for _, text := range []string{
		"weights", "KV cache", "parallel batch", "overhead", "total", "limit", "estimate", "measured",
		"24 succeeded, 8 failed (7 of them never sent)", "tokens/s", "results: out/results.jsonl", "errors:  out/errors.jsonl",
	} {
		require.Contains(t, p.stderr.String(), text)
	}
}

func TestResultsAloneOnStandardOutput(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(t, "prompts.jsonl", batch(3, 5)+"not JSON\n")
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--local", "--model", tiny)
	require.Equal(t, 3, p.wait(30*time.Second))
	require.Len(t, parse(t, p.stdout.String()), 4)

	p = h.start(t, nil, "submit", "run", "--prompt", "Hello", "--local", "--model", tiny, "--max-tokens", "3", "--quiet")
	require.Equal(t, 0, p.wait(30*time.Second))
	requireOnce(t, parse(t, p.stdout.String()), 1)
}

func TestInterruptedLocalRunGoesOn(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(t, "prompts.jsonl", batch(40, 100))
	args := []string{"run", "prompts.jsonl", "--local", "--model", slow, "--max-parallel-tokens", "4", "-o", "results.jsonl"}
	p := h.start(t, nil, "submit", args...)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(h.path("results.jsonl"))
		return err == nil && len(text) > 0
	}, 30*time.Second, 10*time.Millisecond)
	engine := p.engine()
	require.NotZero(t, engine)
	p.signal(syscall.SIGINT)
	require.Equal(t, 1, p.wait(8*time.Second))
	require.False(t, alive(engine))
	require.Contains(t, p.stderr.String(), "stopped waiting for batch")
	require.Contains(t, p.stderr.String(), "hint: nothing is lost")
	done := len(read(t, h.path("results.jsonl")))
	require.Less(t, done, 40)

	// Another run in between names what is unfinished, and leaves it alone.
	p = h.start(t, nil, "submit", "run", "--prompt", "Hello", "--local", "--model", slow, "--max-tokens", "3", "-o", "other.jsonl")
	require.Equal(t, 0, p.wait(30*time.Second))
	requireOnce(t, read(t, h.path("other.jsonl")), 1)
	p.says("a batch of another run is not finished")

	p = h.start(t, nil, "submit", args...)
	require.Equal(t, 0, p.wait(60*time.Second))
	requireOnce(t, read(t, h.path("results.jsonl")), 40)
	require.Contains(t, p.stderr.String(), "of an earlier run")
}

func TestEngineKilledInLocalRun(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(t, "prompts.jsonl", batch(24, 100))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--local", "--model", slow, "--max-parallel-tokens", "4", "-o", "results.jsonl")
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(h.path("results.jsonl"))
		return err == nil && len(text) > 0
	}, 30*time.Second, 10*time.Millisecond)
	killed := p.engine()
	require.NoError(t, syscall.Kill(killed, syscall.SIGKILL))
	p.says("a new engine process is ready")
	require.Equal(t, 0, p.wait(60*time.Second))
	results := read(t, h.path("results.jsonl"))
	requireOnce(t, results, 24)
	again := 0
	for _, r := range results {
		require.LessOrEqual(t, r.Tempo.Attempt, 2)
		if r.Tempo.Attempt == 2 {
			again++
		}
	}
	require.Positive(t, again)
	require.LessOrEqual(t, again, 4+4, "those that ran, and as many that waited in the engine")
}
