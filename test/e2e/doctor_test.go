package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"tempo/internal/doctor"
	"tempo/internal/gguf"
	"tempo/internal/memtest"
)

// lastLine is the last line of a text.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	p := h.start(t, nil, "worker", "doctor", "--local", "--layers", "--model", "tiny="+tiny)
	require.Equal(t, 0, p.wait(20*time.Second))
	out := p.stdout.String()
	require.Equal(t, "a job could run here", lastLine(out))
	require.Empty(t, p.stderr.String(), "nothing to warn of")
	for _, pattern := range []string{
		`(?m)^ok +libraries +` + regexp.QuoteMeta(libs) + ` \(environment TEMPO_LLAMA_LIB\)$`, `backends: .*CPU`,
		`(?m)^ok +devices +takes cpu: asked for$`, `GiB free, bounded by .*; 1 threads on \d+ cores`,
		`(?m)^ok +model +tiny$`, `tiny\.gguf \(flag --model\)`, `llama, 2 layers, trained for 2048 tokens, tensors of \d+ KiB, with a chat template`,
		`(?m)^- +nats +not checked: --local`,
		`(?m)^ok +memory +limit of .* on cpu$`, `parallel batch`, `plan: `, `max_cache_tokens \d+`, `max_parallel_tokens \d+ = clamp\(0\.8 · .* / .*, 1, 50\)`,
		`(?m)^ +0  attention `, `(?m)^ +1  attention `, `(?m)^ +rest `, `(?m)^ +sum `, `(?m)^ dry run `,
	} {
		require.Regexp(t, pattern, out)
	}
}

func TestDoctorJSON(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	p := h.start(t, nil, "worker", "doctor", "--local", "--layers", "--json", "--model", tiny)
	require.Equal(t, 0, p.wait(20*time.Second))
	var r doctor.Report
	require.NoError(t, json.Unmarshal([]byte(p.stdout.String()), &r))
	require.True(t, r.CanRun)
	require.Len(t, r.Layers.List, 2)
	weights, kv := r.Layers.Rest, r.Layers.KVCache
	for _, l := range r.Layers.List {
		weights += l.Weights
		kv -= l.KVCache
	}
	require.Equal(t, r.Model.Tensors, weights)
	require.Zero(t, kv)
	require.Equal(t, r.Memory.KVCache, r.Layers.KVCache)
	require.Equal(t, r.Memory.Total, r.Memory.Weights+r.Memory.KVCache+r.Memory.ParallelBatch+r.Memory.Overhead)
}

func TestDoctorFindsFaults(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for name, test := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"no NATS": {[]string{"--model", tiny, "--server", "nats://127.0.0.1:1"}, 1, []string{
			"FAIL  nats        connect to NATS at nats://127.0.0.1:1", "hint: start a server (", "ok    memory", "no job could run here: connect to NATS",
		}},
		"no model": {[]string{"--local", "--model", "none.gguf", "--layers"}, 1, []string{
			"FAIL  model       none.gguf (flag --model)", "no such file or directory", "hint: give the path of a GGUF file with --model",
			"memory      not checked: it needs the model", "layers      not checked: it needs the model", "no job could run here: open the model file none.gguf",
		}},
		"no memory": {[]string{"--local", "--model", tiny, "--max-memory-gb", "0.02"}, 1, []string{
			"FAIL  memory      limit of 20.5 MiB on cpu", "needed, at most", "hint: raise --max-memory-gb to at least", "no job could run here: ",
		}},
		"usage": {[]string{"--layer"}, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := h.start(t, nil, "worker", append([]string{"doctor"}, test.args...)...)
			require.Equal(t, test.code, p.wait(20*time.Second))
			for _, text := range test.says {
				require.Contains(t, p.stdout.String(), text)
			}
			if test.code == 1 {
				require.Empty(t, p.stderr.String(), "the report says it")
			}
		})
	}
}

// TestDoctorLeavesNothing has a doctor look at a queue on which nobody has been, and
// at one with a worker.
func TestDoctorLeavesNothing(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	p := h.start(t, nil, "worker", "doctor", "--server", url, "--model", tiny)
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Regexp(t, `ok    nats .*, nats-server 2\.\d+\.\d+, JetStream is on`, p.stdout.String())
	require.Contains(t, p.stdout.String(), "streams are not there yet")
	js, err := jetstream.New(plainNATS(t, url).Conn)
	require.NoError(t, err)
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		require.Fail(t, "a stream was made", name)
	}
	require.NoError(t, names.Err())

	w := h.worker(t, "a", url, tiny)
	p = h.start(t, nil, "worker", "doctor", "--server", url, "--model", tiny)
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Regexp(t, `worker a \(m\) has claimed \d.* of the device and holds`, p.stdout.String())
	require.NotContains(t, p.stdout.String(), "doctor has claimed")
	w.signal(syscall.SIGTERM)
	require.Equal(t, 0, w.wait(8*time.Second))
}

// TestMemoryTest runs the memory controls test at three limits. It is not parallel:
// pages that other processes of the same program share count less.
func TestMemoryTest(t *testing.T) {
	h := newHome(t)
	model := gguf.Tiny()
	model.Layers, model.Embedding, model.Heads, model.KVHeads, model.FeedForward = 4, 256, 4, 4, 768
	require.NoError(t, gguf.WriteFile(h.path("model.gguf"), model))
	run := func(limit float64, args ...string) (int, *process) {
		p := h.start(t, nil, "worker", append([]string{
			"memory-test", "--model", "model.gguf", "--max-cache-tokens", "2048", "--max-parallel-tokens", "4", "--seconds", "4",
			"--max-memory-gb", fmt.Sprintf("%.2f", limit),
		}, args...)...)
		code := p.wait(30 * time.Second)
		require.NotContains(t, leftIn(t, h), "tempo-memory-test")
		return code, p
	}

	// Too small.
	code, p := run(0.05)
	require.Equal(t, 1, code)
	out := p.stdout.String()
	require.Contains(t, out, "2 model load: FAIL")
	require.Contains(t, out, "needed, at most")
	require.Contains(t, out, "5 verdict: not run")
	require.Equal(t, "FAIL", lastLine(out))
	require.Empty(t, p.stderr.String(), "the report says it")
	needed := regexp.MustCompile(`hint: raise --max-memory-gb to at least ([\d.]+)`).FindStringSubmatch(out)
	require.Len(t, needed, 2, out)
	least, err := strconv.ParseFloat(needed[1], 64)
	require.NoError(t, err)

	// Tight: not all that is wanted fits.
	code, p = run(least + 0.02)
	require.Equal(t, 0, code, p.stdout)
	require.Equal(t, "PASS", lastLine(p.stdout.String()))

	// Roomy.
	code, p = run(2, "--json")
	require.Equal(t, 0, code, p.stdout)
	var r memtest.Result
	require.NoError(t, json.Unmarshal([]byte(p.stdout.String()), &r))
	require.True(t, r.Passed)
	require.Positive(t, r.Generation.Tokens)
	require.Greater(t, r.Generation.PeakReserved, r.Generation.Pool.Scale(0.8))
	require.Greater(t, r.Opposite.Need, r.Opposite.Available)
	require.Less(t, r.Opposite.Limit, r.Opposite.Smallest)
	require.LessOrEqual(t, r.Verdict.Peak, r.Verdict.Limit)
}

func TestMemoryTestInterrupted(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	p := h.start(t, nil, "worker", "memory-test", "--model", slow, "--max-memory-gb", "2", "--seconds", "60", "--log-level", "info")
	p.says("all jobs are queued")
	engine := p.engine()
	require.NotZero(t, engine)
	p.signal(syscall.SIGINT)
	require.Equal(t, 1, p.wait(10*time.Second))
	require.Contains(t, p.stdout.String(), "interrupted")
	require.False(t, alive(engine))
	require.NotContains(t, leftIn(t, h), "tempo-memory-test")
}

// leftIn lists a home.
func leftIn(t *testing.T, h home) string {
	t.Helper()
	entries, err := os.ReadDir(string(h))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
