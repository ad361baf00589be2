package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/queue"
	"tempo/internal/setup"
)

// What TestMain has made.
var (
	binaries string // directory with worker and submit
	tiny     string // a model file
	slow     string // one that takes long enough for a signal in the middle
	libs     string // llama.cpp's
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tempo-e2e-*")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare the tests:", err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
	found, err := setup.Locate("")
	if found == nil || found.LlamaLib == "" {
		return fmt.Errorf("no llama.cpp libraries, run make setup-lib: %w", err)
	}
	libs = found.LlamaLib
	binaries = filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", binaries+"/", "tempo/cmd/worker", "tempo/cmd/submit")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	tiny, slow = filepath.Join(dir, "tiny.gguf"), filepath.Join(dir, "slow.gguf")
	big := gguf.Tiny()
	big.Layers, big.Embedding, big.FeedForward = 6, 256, 768
	return errors.Join(gguf.WriteFile(tiny, gguf.Tiny()), gguf.WriteFile(slow, big))
}

// home is a user's home directory; processes of one test share it.
type home string

func newHome(t *testing.T) home {
	t.Helper()
	return home(t.TempDir())
}

func (h home) path(name string) string { return filepath.Join(string(h), name) }

func (h home) write(t *testing.T, name, text string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(h.path(name), []byte(text), 0o600))
	return h.path(name)
}

// process is a running program.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	stdout *output
	stderr *output
	ended  chan struct{}
}

// start starts a program with a home of its own environment; env is added to it.
func (h home) start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, stdout: &output{}, stderr: &output{}, ended: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(binaries, name), args...)
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + string(h), "TMPDIR=" + string(h), "TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_LLAMA_LIB=" + libs,
	}, env...)
	p.cmd.Dir = string(h)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the state says more
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %q wrote:\n%s", name, args, p.stderr)
		}
		_ = p.cmd.Process.Kill() // it has ended, unless the test failed
		<-p.ended
	})
	return p
}

// wait returns the exit code, -1 if a signal has ended the process.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		require.FailNow(p.t, p.name+" has not ended", "after %s", within)
	}
	require.NotContains(p.t, p.stderr.String(), "goroutine ", "a stack trace")
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// says waits until the process has written text to stderr.
func (p *process) says(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.stderr.String(), text) }, 20*time.Second, 10*time.Millisecond,
		"%s does not say %q", p.name, text)
}

// engine is the process id of the process's engine, 0 if there is none.
func (p *process) engine() int {
	p.t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(p.t, err)
	for _, path := range entries {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …, where the name may have spaces
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[1] == strconv.Itoa(p.cmd.Process.Pid) && fields[0] != "Z" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			require.NoError(p.t, err)
			return pid
		}
	}
	return 0
}

// alive reports whether there is a process that is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// output is what a process writes. Safe for concurrent use.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// newQueue starts a server that listens, and returns a client and the server's
// address.
func newQueue(t *testing.T) (*queue.Client, string) {
	t.Helper()
	e, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir(), Listen: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	c, err := queue.ConnectEmbedded(context.Background(), e, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, e.URL()
}

// line is a request in OpenAI's form.
func line(id, prompt string, maxTokens int) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":%q}],"max_tokens":%d}}`,
		id, prompt, maxTokens)
}

// batch is a file of n requests, job-0 and so on.
func batch(n, maxTokens int) string {
	var lines strings.Builder
	for i := range n {
		lines.WriteString(line(fmt.Sprintf("job-%d", i), fmt.Sprintf("Tell me the story of number %d.", i), maxTokens) + "\n")
	}
	return lines.String()
}

// read parses the lines of an output file.
func read(t *testing.T, path string) []api.Result {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return parse(t, string(text))
}

func parse(t *testing.T, text string) []api.Result {
	t.Helper()
	var all []api.Result
	for l := range strings.Lines(text) {
		var r api.Result
		require.NoError(t, json.Unmarshal([]byte(l), &r), l)
		all = append(all, r)
	}
	return all
}

// requireOnce checks that there are n results, all answered, each id once; and
// returns how many each worker has made.
func requireOnce(t *testing.T, results []api.Result, n int) map[string]int {
	t.Helper()
	ids, workers := map[string]bool{}, map[string]int{}
	for _, r := range results {
		require.True(t, r.OK(), "%+v", r)
		require.False(t, ids[r.CustomID], "%s is doubled", r.CustomID)
		ids[r.CustomID] = true
		workers[r.Tempo.Worker]++
	}
	require.Len(t, ids, n)
	return workers
}

// onlyBatch waits for a batch and returns its id.
func onlyBatch(t *testing.T, c *queue.Client, url string) string {
	t.Helper()
	plain := plainNATS(t, url)
	var id string
	require.Eventually(t, func() bool {
		keys, err := plain.keys(t, "BATCHES")
		if err != nil || len(keys) != 1 {
			return false
		}
		id, err = queue.Untoken(keys[0])
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	_, err := c.Batch(t.Context(), id)
	require.NoError(t, err)
	return id
}

// reaches waits until a batch has n results.
func reaches(t *testing.T, c *queue.Client, id string, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := c.CountResults(t.Context(), id)
		return err == nil && got >= n
	}, 30*time.Second, 5*time.Millisecond)
}
