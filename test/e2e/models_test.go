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

// mixed is a file of n requests in chat form, each other one for b.
func mixed(n, maxTokens int) string {
	var lines strings.Builder
	for i := range n {
		l := line(fmt.Sprintf("job-%d", i), fmt.Sprintf("Tell me the story of number %d.", i), maxTokens)
		lines.WriteString(strings.Replace(l, `"body":{`, fmt.Sprintf(`"body":{"model":%q,`, string("ab"[i%2])), 1) + "\n")
	}
	return lines.String()
}

// models starts a worker that serves the tiny model as a and the slow one as b.
func (h home) models(t *testing.T, url string, args ...string) *process {
	t.Helper()
	args = append([]string{"--server", url, "--worker-name", "w", "--model", "a=" + tiny, "--model", "b=" + slow}, args...)
	p := h.start(t, nil, "worker", args...)
	p.says("ready for jobs")
	return p
}

// requireModels checks that each line was answered by the model that it names.
func requireModels(t *testing.T, results []api.Result, limit int64) {
	t.Helper()
	for _, r := range results {
		var i int
		_, err := fmt.Sscanf(r.CustomID, "job-%d", &i)
		require.NoError(t, err)
		var answer api.Completion
		require.NoError(t, json.Unmarshal(r.Response.Body, &answer))
		require.Equal(t, string("ab"[i%2]), answer.Model)
		require.LessOrEqual(t, r.Tempo.Memory.Total(), r.Tempo.Memory.Limit)
		require.Less(t, r.Tempo.Memory.Limit, limit, "the other model and the worker itself have their part")
	}
}

// TestTwoModels of one worker, side by side.
func TestTwoModels(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	w := h.models(t, url, "--max-memory-gb", "2")
	require.NotContains(t, w.stderr.String(), "the model is loaded", "nobody wants one yet")
	h.write(t, "prompts.jsonl", mixed(60, 20)+strings.Replace(line("other", "hello", 5), `"body":{`, `"body":{"model":"gpt-5",`, 1)+"\n")
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "-o", "results.jsonl", "--errors", "errors.jsonl")
	require.Equal(t, 3, p.wait(60*time.Second))
	results := read(t, h.path("results.jsonl"))
	requireOnce(t, results, 60)
	requireModels(t, results, 2<<30)
	require.Contains(t, p.stderr.String(), "Memory of worker w on cpu, model a")
	require.Contains(t, p.stderr.String(), "Memory of worker w on cpu, model b")
	refused := read(t, h.path("errors.jsonl"))
	require.Len(t, refused, 1)
	require.Contains(t, refused[0].Error.Message, "served are: a, b")

	engine := w.engine()
	require.NotZero(t, engine)
	w.signal(syscall.SIGTERM)
	require.Equal(t, 0, w.wait(8*time.Second))
	require.False(t, alive(engine))
	require.Zero(t, w.engine())
}

// TestTwoModelsInTurns that do not fit together: one is unloaded for the other.
func TestTwoModelsInTurns(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	w := h.models(t, url, "--max-memory-gb", "0.25", "--max-cache-tokens", "4096", "--max-parallel-tokens", "4")
	h.write(t, "prompts.jsonl", mixed(40, 20))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "-o", "results.jsonl")
	require.Equal(t, 0, p.wait(60*time.Second))
	results := read(t, h.path("results.jsonl"))
	requireOnce(t, results, 40)
	requireModels(t, results, 1<<28)
	require.Contains(t, w.stderr.String(), "the model is unloaded: another one is wanted")
	w.signal(syscall.SIGTERM)
	require.Equal(t, 0, w.wait(8*time.Second))
}

// TestADamagedModel ends the start, and is named.
func TestADamagedModel(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	whole, err := os.ReadFile(tiny)
	require.NoError(t, err)
	bad := h.write(t, "bad.gguf", string(whole[:len(whole)/2]))
	p := h.start(t, nil, "worker", "--server", url, "--model", "good="+tiny, "--model", "bad="+bad)
	require.Equal(t, 1, p.wait(20*time.Second))
	require.Contains(t, p.stderr.String(), "model bad: ")
	require.NotContains(t, p.stderr.String(), "model good: ")
}
