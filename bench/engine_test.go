package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tempo/internal/cli"
	"tempo/internal/infer/infertest"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestRowsOfTheEngine(t *testing.T) {
	t.Parallel()
	names := rowNames()
	for _, want := range []string{
		"distinct-16/batched-bench", "distinct-16/server-best", "distinct-16/server-default", "distinct-16/server-newer", "distinct-16/in-process",
		"distinct-32/batched-bench", "distinct-32/server-best", "distinct-32/server-default",
		"prefix-16/server-best", "prefix-32/server-best", "mixed-16/server-best",
		"outside-example/greedy", "outside-256k/greedy",
	} {
		require.Contains(t, names, want)
	}
	wanted, err := chooseRows("^prefix|default")
	require.NoError(t, err)
	require.Len(t, contests()[0].rivalsOf(wanted), 1)
	require.Len(t, contests()[2].rivalsOf(wanted), 1)
	require.Empty(t, contests()[4].rivalsOf(wanted))
	var usage *cli.UsageError
	_, err = chooseRows("nothing")
	require.ErrorAs(t, err, &usage)
	require.ErrorContains(t, err, `got --row "nothing", there are: distinct-16/batched-bench,`)
	_, err = chooseRows("(")
	require.ErrorAs(t, err, &usage)
	for _, c := range contests() {
		for _, j := range c.make(abc(), random(1), c.jobs) {
			require.LessOrEqual(t, j.in+j.out, c.slot, c.name)
		}
	}
}

func TestEngineTable(t *testing.T) {
	t.Parallel()
	var shown strings.Builder
	require.NoError(t, engineTable(&shown, "engine", []row{
		row{name: "distinct-16/x", Work: "some work", Against: "somebody", Unit: "tokens/s", AtLeast: 1.5}.with(30, 20, 5),
		{name: "outside", Work: "a step", Against: "bound", Unit: "%", Ours: 4, Theirs: 3, Ratio: 0.75, AtLeast: 1, Runs: 5},
	}))
	require.Regexp(t, `distinct-16/x +tokens/s +30\.0 +20\.0 +1\.500 +1\.50, reached +5\n`, shown.String())
	require.Regexp(t, `outside +% +4\.0 +3\.0 +0\.750 +1\.00, missed +5\n`, shown.String())
	require.Contains(t, shown.String(), "distinct-16/x: some work\n  against somebody\n")
}

// timer is an engine whose second reading comes after a run.
type timer struct{ ran bool }

func (c *timer) StepTimes() (int64, time.Duration, time.Duration) {
	if c.ran {
		return 30, 290 * time.Second, 60 * time.Second
	}
	return 10, 100 * time.Second, 50 * time.Second
}

func (c *timer) run(context.Context, []job) (tally, error) {
	c.ran = true
	return tally{}, nil
}

func (c *timer) close() error { return nil }

func TestOutsideShare(t *testing.T) {
	t.Parallel()
	c := &timer{}
	share, err := outsideShare(t.Context(), c, c, nil)
	require.NoError(t, err)
	require.InDelta(t, 5.0, share, 1e-9, "10 of 200 seconds")
	_, err = outsideShare(t.Context(), c, c, nil)
	require.ErrorContains(t, err, "0 steps")
}

// small makes an arena with a small model.
func small(t *testing.T, runs int) *arena {
	t.Helper()
	return &arena{
		options: options{out: t.Output(), log: zap.NewNop(), runs: runs, model: smallModel(t)},
		dir:     t.TempDir(), libDir: infertest.LibDir(t), threads: 1,
	}
}

// The whole path and the engine in this process do the same jobs, and each round's
// are others. Not parallel: llama.cpp's threads would be in each other's way.
func TestContest(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would have each engine sleep at its end
	a := small(t, 1)
	prompts := map[string]int{}
	rows, err := a.contest(t.Context(), contest{
		name: "small", work: "a little", atOnce: 4, jobs: 8, slot: 32,
		make: func(v *vocabulary, r *rand.Rand, n int) []job {
			jobs := distinct(20, 4, greedy())(v, r, n)
			for _, j := range jobs {
				prompts[j.prompt]++
			}
			return jobs
		},
	}, []rival{{"in-process", 0.5, (*arena).inProcess}})
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, "small/in-process", rows[0].name)
	require.Contains(t, rows[0].Work, "8 jobs, a little, 4 at once, small.gguf on the CPU")
	require.InDelta(t, 0.5, rows[0].AtLeast, 0)
	require.Equal(t, 1, rows[0].Runs)
	require.Positive(t, rows[0].Ratio)
	require.Len(t, prompts, 16, "two rounds")
	for _, times := range prompts {
		require.Equal(t, 2, times, "each side has each prompt once")
	}
}

// A rival that cannot be started is named, with what it said.
func TestContestWithABrokenServer(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	a := small(t, 1)
	program := filepath.Join(t.TempDir(), "llama-server")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho no such model >&2\nexit 1\n"), 0o755))
	a.peers = &peers{server: program, batchedBench: program}
	for name, r := range map[string]rival{
		"default": {"server-default", 1, (*arena).serverDefault},
		"best":    {"server-best", 1, (*arena).serverBest},
		"batched": {"batched-bench", 1, (*arena).batchedBest},
	} {
		c := contest{name: "small", atOnce: 2, jobs: 2, trial: 2, slot: 32, make: distinct(20, 4, greedy())}
		_, err := a.contest(t.Context(), c, []rival{r})
		require.ErrorContains(t, err, "small/"+r.name, name)
		require.ErrorContains(t, err, "no such model", name)
	}
}

func TestRivalMayNotBeDisturbed(t *testing.T) {
	t.Parallel()
	require.NoError(t, checkIdle("peer", 400*time.Millisecond, 10*time.Second))
	require.ErrorContains(t, checkIdle("peer", time.Second, 10*time.Second), "peer: Tempo's engine took 10 % of a core")

	sleeper, err := startPeer(exec.Command("sleep", "1000"), t.TempDir())
	require.NoError(t, err)
	p := &path{}
	p.engine.Store(int64(sleeper.cmd.Process.Pid))
	rate, err := alone(p, "peer", func(context.Context) (float64, error) { return 7, nil })(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 7, rate, 0)
	_, err = alone(p, "peer", func(context.Context) (float64, error) { return 7, sleeper.end() })(t.Context())
	require.ErrorContains(t, err, "read a process's time", "the engine is gone")
}
