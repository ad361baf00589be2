package memtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local/localtest"
)

// configured is a configuration for the tiny model on the CPU; env is added to it.
func configured(t *testing.T, env ...string) *config.Config {
	t.Helper()
	spec := infertest.TinySpec(t)
	c, err := config.Load(nil, append([]string{
		"TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_MODEL=" + spec.Model, "TEMPO_LLAMA_LIB=" + spec.LibDir, "TEMPO_MAX_MEMORY_GB=2",
	}, env...))
	require.NoError(t, err)
	return c
}

func options(t *testing.T, progress func(Step, *Result)) Options {
	t.Helper()
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would have each engine sleep at its end
	return Options{Seconds: 3, EngineArgs: []string{localtest.EngineArg}, Stderr: os.Stderr, Progress: progress}
}

// TestRun is not parallel: the engines of other tests would be its descendants.
func TestRun(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would have each engine sleep at its end
	var order []Step
	r, err := Run(t.Context(), configured(t), options(t, func(s Step, _ *Result) { order = append(order, s) }), nil)
	require.NoError(t, err)
	require.True(t, r.Passed, "%+v", r)
	require.Equal(t, []Step{MonitorStep, LoadStep, LimitsStep, GenerationStep, OppositeStep, VerdictStep}, order)

	require.Equal(t, budget.CPUID, r.Monitor.Device)
	require.Equal(t, 2*budget.GiB, r.Monitor.Limit)
	require.Positive(t, r.Monitor.Process)
	require.Positive(t, r.Monitor.Engine)
	require.Len(t, r.Load.Lines, 4)
	var sum budget.Bytes
	for _, l := range r.Load.Lines {
		require.Equal(t, l.Difference, l.Measured-l.Estimate)
		sum = sum.Add(l.Measured)
	}
	require.Equal(t, r.Load.Total.Measured, sum)
	require.Positive(t, r.Load.Peak)
	require.True(t, r.Limits.Rule.Automatic)
	require.Less(t, r.Limits.Warn, r.Limits.Act)
	g := r.Generation
	require.Positive(t, g.Tokens)
	require.Positive(t, g.Answered)
	require.LessOrEqual(t, g.PeakReserved, g.Pool)
	require.Greater(t, g.PeakReserved, g.Pool.Scale(0.8), "the pool was not filled")
	require.Positive(t, g.PeakRunning)
	o := r.Opposite
	require.Less(t, o.Limit, o.Smallest)
	require.Greater(t, o.Need, o.Available)
	require.LessOrEqual(t, o.Peak, o.Allowed)
	require.GreaterOrEqual(t, r.Verdict.Peak, g.Peak)
	require.LessOrEqual(t, r.Verdict.Peak, r.Verdict.Limit)
	require.Greater(t, r.Verdict.Samples, 20)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, descendants(os.Getpid()))
}

func TestRunRefused(t *testing.T) {
	r, err := Run(t.Context(), configured(t, "TEMPO_MAX_MEMORY_GB=0.02"), options(t, nil), nil)
	require.NoError(t, err)
	require.False(t, r.Passed)
	require.Equal(t, OK, r.Monitor.Status)
	require.Equal(t, Failed, r.Load.Status)
	require.Contains(t, r.Load.Problem, "no room for one job")
	require.Contains(t, r.Load.Hint, "raise --max-memory-gb")
	require.Equal(t, []Status{NotRun, NotRun, NotRun, NotRun},
		[]Status{r.Limits.Status, r.Generation.Status, r.Opposite.Status, r.Verdict.Status})
}

func TestRunWithoutModel(t *testing.T) {
	r, err := Run(t.Context(), configured(t, "TEMPO_MODEL=/none.gguf"), options(t, nil), nil)
	require.NoError(t, err)
	require.Equal(t, Failed, r.Monitor.Status)
	require.Contains(t, r.Monitor.Hint, "--model")
	require.Equal(t, NotRun, r.Load.Status)
}

func TestRunInterrupted(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := Run(ctx, configured(t), options(t, func(s Step, _ *Result) {
		if s == LoadStep {
			cancel()
		}
	}), nil)
	require.NoError(t, err)
	require.False(t, r.Passed)
	require.Equal(t, "interrupted", r.Limits.Problem)
	require.Equal(t, NotRun, r.Generation.Status)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, descendants(os.Getpid()))
}

func TestSampler(t *testing.T) {
	t.Parallel()
	var next reading
	var fault error
	s := &sampler{measure: func() (reading, error) { return next, fault }}
	for _, next = range []reading{{10, 5}, {30, 20}, {20, 25}} {
		s.sample()
	}
	all, engines := s.phase()
	require.Equal(t, []budget.Bytes{50, 25}, []budget.Bytes{all, engines})
	next = reading{1, 2}
	require.Equal(t, next, s.begin())
	all, engines = s.phase()
	require.Equal(t, []budget.Bytes{3, 2}, []budget.Bytes{all, engines})
	fault = errors.New("gone")
	require.Equal(t, next, s.sample(), "the last one that was measured")
	peak, samples, err := s.all()
	require.Equal(t, budget.Bytes(50), peak)
	require.Equal(t, 4, samples)
	require.ErrorIs(t, err, fault)
}

func TestSamplerMeasures(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	closed := false
	s := startSampler(t.Context(), hostReading, func() error { closed = true; return nil })
	require.Eventually(t, func() bool {
		_, engines := s.phase()
		return engines > 0
	}, 5*time.Second, 5*time.Millisecond)
	require.Contains(t, descendants(os.Getpid()), cmd.Process.Pid)
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.Zero(t, s.begin().Engines)
	s.stop()
	require.True(t, closed)
}

// card is a GPU that says what it is told to.
type card map[int]error

func (c card) ProcessMemory(pid int) (budget.Bytes, error) {
	if c[pid] != nil {
		return 0, c[pid]
	}
	return 100, nil
}

func (c card) Growth() (budget.Bytes, error) { return 700, c[0] }

func TestGPUReading(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		gpu  card
		want budget.Bytes
		err  error
	}{
		"two engines":      {card{}, 200, nil},
		"one has not come": {card{2: budget.ErrProcessNotFound}, 100, nil},
		"not told":         {card{2: budget.ErrNotMeasured}, 700, nil},
		"lost":             {card{1: budget.ErrGPULost}, 0, budget.ErrGPULost},
		"lost, not told":   {card{2: budget.ErrNotMeasured, 0: budget.ErrGPULost}, 700, budget.ErrGPULost},
	} {
		r, err := gpuReading(test.gpu, []int{1, 2})
		require.Equal(t, reading{Engines: test.want}, r, name)
		require.ErrorIs(t, err, test.err, name)
	}
}

func TestWriteJobs(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ parallel, cells, longest int }{
		"usual":         {16, 16384, 8192},
		"short context": {8, 8192, 256},
		"one":           {1, 256, 2048},
		"small pool":    {8, 256, 2048},
		"many":          {256, 100_000, 4096},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			w := bufio.NewWriter(&out)
			require.NoError(t, writeJobs(w, test.parallel, test.cells, test.longest))
			require.NoError(t, w.Flush())
			jobs, tokens := 0, 0
			for l := range strings.Lines(out.String()) {
				var job struct {
					Body json.RawMessage `json:"body"`
				}
				require.NoError(t, json.Unmarshal([]byte(l), &job))
				r, err := api.ParseRequest(api.Completions, job.Body)
				require.NoError(t, err)
				size := strings.Count(r.Prompt, " a") + r.MaxTokens
				require.LessOrEqual(t, size, min(test.longest, test.cells)*3/4)
				jobs++
				tokens += size
			}
			require.LessOrEqual(t, jobs, mostJobs)
			require.GreaterOrEqual(t, jobs, test.parallel)
			if jobs > test.parallel && test.longest > test.cells/test.parallel*4 {
				require.Greater(t, tokens, 2*test.cells)
			}
		})
	}
}
