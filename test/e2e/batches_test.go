package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// submits runs submit to its end, and returns what it has printed.
func (h home) submits(t *testing.T, code int, url string, args ...string) (stdout, stderr string) {
	t.Helper()
	p := h.start(t, nil, "submit", append(args, "--server", url)...)
	require.Equal(t, code, p.wait(40*time.Second), "%q: %s", args, p.stderr)
	return p.stdout.String(), p.stderr.String()
}

// TestBatchOnAQueue sends a batch, pauses it, lets it go on and reads it, each by a command of its own.
func TestBatchOnAQueue(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	h.write(t, "prompts.jsonl", batch(6, 5)+"{\"prompt\":\n")
	id, _ := h.submits(t, 3, url, "send", "prompts.jsonl", "--model", "m", "--errors", "errors.jsonl", "--weight", "200", "--max-in-flight", "2")
	id = strings.TrimSpace(id)
	require.Len(t, read(t, h.path("errors.jsonl")), 1)
	out, _ := h.submits(t, 0, url, "status")
	require.Regexp(t, `BATCH +STATUS +PRIORITY +TOTAL +DONE +FAILED +QUEUED`, out)
	require.Regexp(t, id+` +in_progress +normal +6 +0 +0 +6 .* prompts.jsonl`, out)

	out, _ = h.submits(t, 0, url, "pause", id)
	require.Equal(t, id+" paused\n", out)
	h.worker(t, "a", url, tiny)
	out, _ = h.submits(t, 0, url, "status", id)
	require.Regexp(t, id+` +paused +normal +6 +0 +0 +6`, out)
	_, said := h.submits(t, 1, url, "purge", id)
	require.Contains(t, said, "it is in_progress, with 0 of 6 results: wait for it or cancel it, or give --force")
	h.submits(t, 0, url, "resume", id)
	_, said = h.submits(t, 0, url, "wait", id, "-o", "results.jsonl")
	require.Contains(t, said, "6 succeeded, 0 failed")
	requireOnce(t, read(t, h.path("results.jsonl")), 6)
	out, _ = h.submits(t, 0, url, "results", id, "--quiet")
	requireOnce(t, parse(t, out), 6)
	out, _ = h.submits(t, 0, url, "status", id, "--json")
	require.Contains(t, out, `"status":"completed"`)
	require.Contains(t, out, `"request_counts":{"total":6,"completed":6,"failed":0}`)

	h.submits(t, 0, url, "purge", id)
	out, _ = h.submits(t, 0, url, "status")
	require.NotContains(t, out, id)
	_, said = h.submits(t, 1, url, "wait", id)
	require.Contains(t, said, "no such batch")
}

// TestCancelledBatch: what is queued is not run, and who waits has a result for each job.
func TestCancelledBatch(t *testing.T) {
	t.Parallel()
	c, url := newQueue(t)
	h := newHome(t)
	h.worker(t, "a", url, slow, "--max-parallel-tokens", "2")
	h.write(t, "prompts.jsonl", batch(40, 200))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m", "-o", "results.jsonl")
	id := onlyBatch(t, c, url)
	reaches(t, c, id, 1)
	out, _ := h.submits(t, 0, url, "cancel", id)
	require.Equal(t, id+" cancelled\n", out)
	require.Equal(t, 3, p.wait(20*time.Second))
	codes := map[string]int{}
	for _, r := range read(t, h.path("results.jsonl")) {
		if r.Error != nil {
			codes[r.Error.Code]++
		} else {
			codes["ok"]++
		}
	}
	require.Positive(t, codes["ok"])
	require.Equal(t, 40, codes["ok"]+codes["batch_cancelled"])
	b, err := c.Batch(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, b.Status)
}

// TestDeadline: jobs that nobody has done when the time is over end all the same.
func TestDeadline(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	h.worker(t, "a", url, slow, "--max-parallel-tokens", "2")
	h.write(t, "prompts.jsonl", batch(40, 500))
	out, _ := h.submits(t, 3, url, "run", "prompts.jsonl", "--model", "m", "--deadline", "2s")
	expired := 0
	for _, r := range parse(t, out) {
		if r.Error != nil {
			require.Equal(t, "batch_expired", r.Error.Code)
			expired++
		}
	}
	require.Positive(t, expired)
	_, said := h.submits(t, 2, url, "run", "prompts.jsonl", "--deadline", "soon")
	require.Contains(t, said, "such as 90m or 24h")
}

func TestNoDeadLetters(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	out, _ := h.submits(t, 0, url, "dead")
	require.Equal(t, "no dead letters\n", out)
	out, _ = h.submits(t, 0, url, "dead", "retry", "b")
	require.Equal(t, "no dead letters\n", out)
	_, said := h.submits(t, 2, url, "dead", "show", "b")
	require.Contains(t, said, `show takes a batch and a job, got 1: ["b"]`)
	_, said = h.submits(t, 1, url, "status", "b")
	require.Contains(t, said, "hint: submit status lists the batches that are there")
	_, said = h.submits(t, 1, url, "dead", "show", "b", "row-1")
	require.Contains(t, said, `batch b has no dead letter of a job "row-1"`)
}
