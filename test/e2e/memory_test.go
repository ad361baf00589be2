package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/gguf"
)

// TestMemoryFromOutside runs a model at the smallest limit that it is said to need,
// and measures the processes from outside. It is not parallel: pages that other
// processes of the same program share count less.
func TestMemoryFromOutside(t *testing.T) {
	h := newHome(t)
	model := gguf.Tiny()
	model.Layers, model.Embedding, model.Heads, model.KVHeads, model.FeedForward = 8, 512, 8, 8, 2048
	require.NoError(t, gguf.WriteFile(h.path("model.gguf"), model))
	file, err := os.Stat(h.path("model.gguf"))
	require.NoError(t, err)
	h.write(t, "prompts.jsonl", batch(16, 15))
	run := func(limit float64, store string) (code int, peak budget.Bytes, p *process) {
		p = h.start(t, nil, "submit", "run", "prompts.jsonl", "--local", "--model", "model.gguf", "-o", "results.jsonl",
			"--max-memory-gb", fmt.Sprintf("%.2f", limit), "--store-dir", store)
		peak = p.peak(t)
		return p.wait(time.Second), peak, p
	}

	// Far too little: the message says what is needed, and nothing was allocated.
	code, peak, p := run(0.02, "a")
	require.Equal(t, 1, code)
	require.Less(t, int64(peak), file.Size(), "the weights were loaded")
	needed := regexp.MustCompile(`raise --max-memory-gb to at least ([\d.]+)`).FindStringSubmatch(p.stderr.String())
	require.Len(t, needed, 2, p.stderr)
	least, err := strconv.ParseFloat(needed[1], 64)
	require.NoError(t, err)

	// What this process holds at its start differs a little from run to run.
	const little = 0.03
	code, peak, p = run(least-little, "b")
	require.Equal(t, 1, code)
	require.Less(t, int64(peak), file.Size(), "the weights were loaded")
	require.Contains(t, p.stderr.String(), "needed, at most")

	code, peak, _ = run(least+little, "c")
	require.Equal(t, 0, code)
	requireOnce(t, read(t, h.path("results.jsonl")), 16)
	require.LessOrEqual(t, peak, budget.GiBs(least+little))
	require.Greater(t, int64(peak), file.Size(), "not everything was seen")
}

// peak measures the process and its descendants every 20 ms until it has ended, and
// returns the most that they held together.
func (p *process) peak(t *testing.T) budget.Bytes {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var most budget.Bytes
	for {
		most = max(most, held(t, p.cmd.Process.Pid))
		select {
		case <-p.ended:
			return most
		case <-tick.C:
		}
	}
}

// held is the proportional set size of a process and its descendants.
func held(t *testing.T, pid int) budget.Bytes {
	t.Helper()
	sum, err := budget.ProportionalSetSize(pid)
	if errors.Is(err, budget.ErrProcessNotFound) {
		return 0
	}
	require.NoError(t, err)
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for child := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(child)
			require.NoError(t, err)
			sum = sum.Add(held(t, pid))
		}
	}
	return sum
}
