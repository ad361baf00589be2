package e2e

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBadInput(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { taken.Close() })
	_, url := newQueue(t)
	addr := taken.Addr().String()
	whole, err := os.ReadFile(tiny)
	require.NoError(t, err)
	h := newHome(t)
	h.write(t, "good.jsonl", batch(2, 5))
	h.write(t, "empty.jsonl", "\n  \n")
	h.write(t, "bad.yaml", "max_memory_gbs: 3\n")
	h.write(t, "text.gguf", "this is not a model file, but it is long enough to be read as one")
	h.write(t, "cut.gguf", string(whole[:len(whole)/2]))
	local := func(args ...string) []string { return append([]string{"run", "good.jsonl", "--local"}, args...) }

	for name, test := range map[string]struct {
		program string
		args    []string
		code    int
		says    []string
	}{
		"empty file":       {"submit", []string{"run", "empty.jsonl", "--local", "--model", tiny}, 1, []string{"submit: empty.jsonl: the file has no requests", "hint: write one request a line"}},
		"missing file":     {"submit", []string{"run", "none.jsonl"}, 1, []string{"submit: read none.jsonl: no such file", "hint: check the path"}},
		"directory":        {"submit", []string{"run", "."}, 1, []string{"submit: read .: it is a directory", "hint:"}},
		"nothing":          {"submit", []string{"run"}, 2, []string{"submit: nothing to send", "hint: submit run --help"}},
		"two files":        {"submit", []string{"run", "good.jsonl", "good.jsonl"}, 2, []string{"submit: run takes one file, got 2", "hint: submit run --help"}},
		"unknown command":  {"submit", []string{"runn"}, 2, []string{`submit: unknown command "runn"`, "hint: submit --help"}},
		"unknown argument": {"worker", []string{"good.jsonl"}, 2, []string{`worker: unknown command "good.jsonl"`, "hint: worker --help"}},
		"unknown flag":     {"submit", local("--max-memory", "3"), 2, []string{"submit: unknown flag: --max-memory", "hint: submit run --help"}},
		"flag's value":     {"worker", []string{"--max-memory-gb", "much"}, 2, []string{"worker: ", "--max-memory-gb", "hint: worker --help"}},
		"out of range":     {"worker", []string{"--max-memory-gb", "-1"}, 2, []string{"worker: max_memory_gb: got -1", "allowed", "hint: in flag --max-memory-gb"}},
		"unknown key":      {"worker", []string{"--config", "bad.yaml"}, 2, []string{"worker: max_memory_gbs: unknown setting (from file bad.yaml)", "did you mean max_memory_gb"}},
		"missing config":   {"worker", []string{"--config", "none.yaml"}, 2, []string{"worker: read configuration file none.yaml", "hint: "}},
		"missing model":    {"submit", local("--model", "none.gguf"), 1, []string{"submit: open the model file none.gguf: no such file", "hint: give the path of a GGUF file with --model"}},
		"model directory":  {"worker", []string{"--model", ".", "--server", url}, 1, []string{"worker: open the model file .: it is a directory", "hint: give the path"}},
		"not a model":      {"submit", local("--model", "text.gguf"), 1, []string{"text.gguf", "GGUF", "hint: "}},
		"truncated model":  {"submit", local("--model", "cut.gguf"), 1, []string{"cut.gguf", "hint: "}},
		"limit too low":    {"submit", local("--model", tiny, "--max-memory-gb", "0.02"), 1, []string{"needed, at most", "hint: raise --max-memory-gb to at least"}},
		"port in use":      {"submit", local("--model", tiny, "--listen", addr), 1, []string{"submit: listen on " + addr, "address already in use", "hint: give another address with --listen"}},
		"bad address":      {"submit", local("--model", tiny, "--listen", "here"), 2, []string{"listen", "here", "hint: "}},
		"no NATS, submit":  {"submit", []string{"run", "good.jsonl", "--model", "m", "--server", "nats://127.0.0.1:1"}, 1, []string{"submit: connect to NATS at nats://127.0.0.1:1", "hint: start a server ("}},
		"no NATS, worker":  {"worker", []string{"--model", tiny, "--server", "nats://127.0.0.1:1"}, 1, []string{"worker: connect to NATS at nats://127.0.0.1:1", "hint: start a server ("}},
		"no libraries":     {"submit", local("--model", tiny, "--llama-lib", "nowhere"), 1, []string{"nowhere", "hint: "}},
		"output directory": {"submit", local("--model", tiny, "-o", "/proc/none/results.jsonl"), 1, []string{"submit: write /proc/none/results.jsonl", "hint: check the path"}},
		"output is input":  {"submit", local("--model", tiny, "-o", "./good.jsonl"), 1, []string{"good.jsonl", "hint: "}},
		"engine by hand":   {"worker", []string{"engine"}, 1, []string{"an engine process is started by a worker, not by hand"}},
		"priority":         {"submit", []string{"run", "good.jsonl", "--priority", "urgent"}, 2, []string{"submit: priority: got \"urgent\"", "high, normal, low"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := test.args
			if test.program == "submit" && len(args) > 1 {
				args = append(args, "--store-dir", t.TempDir())
			}
			p := h.start(t, nil, test.program, args...)
			code := p.wait(20 * time.Second)
			require.Equal(t, test.code, code, p.stderr)
			require.Empty(t, p.stdout.String())
			for _, text := range test.says {
				require.Contains(t, p.stderr.String(), text)
			}
			faults := 0
			for l := range strings.Lines(p.stderr.String()) {
				if strings.HasPrefix(l, test.program+": ") {
					faults++
				}
			}
			require.Equal(t, 1, faults, "one message is clear")
		})
	}
}

func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(t, "prompts.jsonl", batch(60, 400))
	args := []string{"run", "prompts.jsonl", "--local", "--model", slow, "--max-parallel-tokens", "2", "--store-dir", "store"}
	first := h.start(t, nil, "submit", args...)
	first.says("all jobs are queued")
	second := h.start(t, nil, "submit", args...)
	require.Equal(t, 1, second.wait(10*time.Second))
	require.Contains(t, second.stderr.String(), "submit: open queue directory store: process ")
	require.Contains(t, second.stderr.String(), "hint: wait until the other run has ended")
	first.signal(syscall.SIGINT)
	require.Equal(t, 1, first.wait(8*time.Second))
}

func TestInterruptedWhileItReads(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	require.NoError(t, syscall.Mkfifo(h.path("pipe"), 0o600))
	p := h.start(t, nil, "submit", "run", "pipe", "--model", "m")
	hold, err := os.OpenFile(h.path("pipe"), os.O_WRONLY, 0) // returns when it reads
	require.NoError(t, err)
	defer hold.Close()
	p.signal(syscall.SIGINT)
	require.Equal(t, 1, p.wait(3*time.Second))
	left, err := os.ReadDir(string(h))
	require.NoError(t, err)
	require.Len(t, left, 1, "a temporary file is left")
}

func TestInterruptedWhileItLoads(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	p := h.start(t, nil, "submit", "run", "--prompt", "hello", "--max-tokens", "5", "--local", "--model", slow)
	p.says("device found")
	p.signal(syscall.SIGINT)
	require.Contains(t, []int{0, 1}, p.wait(8*time.Second)) // 0: it was done already
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	_, url := newQueue(t)
	h := newHome(t)
	w := h.worker(t, "a", url, slow, "--max-parallel-tokens", "1")
	h.write(t, "prompts.jsonl", batch(20, 2000))
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--server", url, "--model", "m")
	p.says("all jobs are queued")
	require.Eventually(t, func() bool { return w.engine() != 0 }, 5*time.Second, 10*time.Millisecond)
	engine := w.engine()
	w.signal(syscall.SIGINT)
	w.says("draining")
	w.signal(syscall.SIGINT)
	require.Equal(t, -1, w.wait(2*time.Second))
	require.Eventually(t, func() bool { return !alive(engine) }, 3*time.Second, 10*time.Millisecond)
	p.signal(syscall.SIGINT)
	require.Equal(t, 1, p.wait(5*time.Second))
}
