package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/setup"
)

// arena is what all contests of a benchmark share.
type arena struct {
	options
	dir     string // for files that are needed only now
	libDir  string
	example string // the example model; "" = it is not there
	peers   *peers // nil if the benchmark needs none
	threads int    // of both sides
}

func openArena(o options) (*arena, error) {
	libDir, err := libraryDir()
	if err != nil {
		return nil, err
	}
	a := &arena{options: o, libDir: libDir, threads: budget.UsableCores()}
	if found, err := setup.Locate(""); err == nil {
		a.example = found.Model
	}
	if a.dir, err = os.MkdirTemp("", "tempo-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	return a, nil
}

func (a *arena) close() { _ = os.RemoveAll(a.dir) }

// generated is the file of a model with random weights, which is kept in the cache.
func (a *arena) generated(name string, s gguf.Spec) (string, error) {
	cache, err := setup.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "bench")
	key := sha256.Sum256(fmt.Appendf(nil, "%#v", s))
	file := filepath.Join(dir, name+"-"+hex.EncodeToString(key[:4])+".gguf")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	fresh := fmt.Sprintf("%s.%d", file, os.Getpid()) // seen under its name only when it is whole
	if err := gguf.WriteFile(fresh, s); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, file); err != nil {
		return "", fmt.Errorf("keep a model: %w", err)
	}
	return file, nil
}

// contestant does jobs and counts.
type contestant interface {
	run(ctx context.Context, jobs []job) (tally, error)
	close() error
}

// contest is a kind of work that Tempo's whole path and others do.
type contest struct {
	name   string
	work   string
	atOnce int // jobs at once; 0 = as many as the worker chooses
	jobs   int // in a run
	trial  int // jobs in a run that looks for the best settings of a rival
	slot   int // KV tokens of the largest job
	make   maker
	rivals []rival
}

// rival is one of the others. start says what it is, too, for the row.
type rival struct {
	name    string
	atLeast float64
	start   func(a *arena, ctx context.Context, c contest, p *path, words *vocabulary) (contestant, string, error)
}

// rivalsOf are those whose row is wanted.
func (c contest) rivalsOf(wanted func(string) bool) []rival {
	return slices.DeleteFunc(slices.Clone(c.rivals), func(r rival) bool { return !wanted(c.name + "/" + r.name) })
}

// contest has Tempo and the rivals do the work in turn. Only one of them computes
// at a time.
func (a *arena) contest(ctx context.Context, c contest, rivals []rival) (rows []row, err error) {
	started := time.Now()
	if a.jobs > 0 {
		c.jobs = a.jobs
	}
	c.trial = min(c.trial, c.jobs)
	words, err := readVocabulary(a.libDir, a.model, a.log)
	if err != nil {
		return nil, err
	}
	p, err := startPath(ctx, a.dir, a.model, a.libDir, c.atOnce, a.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	sides := []side{c.side("Tempo", p, words)}
	for _, r := range rivals {
		who, what, failed := r.start(a, ctx, c, p, words)
		if failed != nil {
			return nil, fmt.Errorf("%s/%s: %w", c.name, r.name, failed)
		}
		defer func() { err = errors.Join(err, who.close()) }()
		sides = append(sides, alone(p, r.name, c.side(r.name, who, words)))
		rows = append(rows, row{name: c.name + "/" + r.name, Work: a.describe(c), Against: what, Unit: "tokens/s", AtLeast: r.atLeast})
	}
	medians, err := takeTurns(ctx, a.runs, sides...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	for i, r := range rows {
		rows[i] = r.with(medians[0], medians[i+1], a.runs)
	}
	fmt.Fprintf(a.out, "%s took %v\n", c.name, time.Since(started).Round(time.Second))
	return rows, nil
}

// describe is the work of a contest for its rows.
func (a *arena) describe(c contest) string {
	atOnce := "as many at once as the worker chooses"
	if c.atOnce > 0 {
		atOnce = fmt.Sprintf("%d at once", c.atOnce)
	}
	return fmt.Sprintf("%d jobs, %s, %s, %s on the CPU with %d threads, batch file to result file with an embedded queue",
		c.jobs, c.work, atOnce, filepath.Base(a.model), a.threads)
}

// side makes a contestant a side. Each round has other jobs, the same for all
// sides, so that nobody has an answer of an earlier one; the first, which does not
// count, has no more than it takes to warm up.
func (c contest) side(name string, who contestant, words *vocabulary) side {
	round := -1
	return func(ctx context.Context) (float64, error) {
		n := c.jobs
		if round++; round == 0 {
			n = min(n, max(c.atOnce, 16))
		}
		return c.rate(ctx, name, who, words, round, n)
	}
}

// rate has n jobs of a round done.
func (c contest) rate(ctx context.Context, name string, who contestant, words *vocabulary, round, n int) (float64, error) {
	jobs := c.make(words, rand.New(rand.NewPCG(uint64(round), 1)), n)
	got, err := who.run(ctx, jobs)
	if err == nil {
		err = got.check(jobs)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return got.rate(), nil
}

// alone returns an error if Tempo's engine was not idle while a rival ran.
func alone(p *path, name string, rival side) side {
	return func(ctx context.Context) (float64, error) {
		engine, started := int(p.engine.Load()), time.Now()
		before, err := cpuTime(engine)
		if err != nil {
			return 0, err
		}
		rate, err := rival(ctx)
		if err != nil {
			return 0, err
		}
		after, err := cpuTime(engine)
		if err != nil {
			return 0, err
		}
		return rate, checkIdle(name, after-before, time.Since(started))
	}
}

// checkIdle returns an error if Tempo's engine computed for more than a small share
// of the time that a rival took.
func checkIdle(name string, computed, took time.Duration) error {
	const most = 0.05
	if share := float64(computed) / float64(took); share > most {
		return fmt.Errorf("%s: Tempo's engine took %.0f %% of a core meanwhile, without jobs", name, 100*share)
	}
	return nil
}

// inProcess is the same engine in this process, in the shape that the worker's has.
func (a *arena) inProcess(ctx context.Context, _ contest, p *path, _ *vocabulary) (contestant, string, error) {
	s := p.node.Worker.Stats()
	d, err := startDirect(ctx, p.spec, infer.Shape{Sequences: s.MaxParallelTokens, Cells: s.MaxCacheTokens})
	return d, "the same engine in one process, without queue, worker and engine process", err
}

// batchedBest is llama-batched-bench in its best layout.
func (a *arena) batchedBest(ctx context.Context, c contest, p *path, words *vocabulary) (contestant, string, error) {
	engine := func() int { return int(p.engine.Load()) }
	best, err := search(ctx, layouts(), [][]string{withoutFlash()}, func(ctx context.Context, settings []string) (float64, error) {
		return c.rate(ctx, "llama-batched-bench", &batched{a, engine, c.atOnce, settings}, words, trialRound, c.trial)
	})
	if err != nil {
		return nil, "", err
	}
	fmt.Fprintf(a.out, "%s: best of llama-batched-bench: %s\n", c.name, strings.Join(best, " "))
	return &batched{a, engine, c.atOnce, best}, "llama-batched-bench, best layout: " + strings.Join(best, " "), nil
}

// trialRound is a round that is never counted.
const trialRound = 1000

// serverBest is llama-server with its best settings for the work.
func (a *arena) serverBest(ctx context.Context, c contest, p *path, words *vocabulary) (contestant, string, error) {
	// The shortest way to the likeliest token.
	extra := map[string]any{"samplers": []string{"top_k"}, "top_k": 1}
	start := func(settings []string) (*server, error) {
		return a.startServer(ctx, int(p.engine.Load()), c.atOnce, c.slot, settings, extra)
	}
	best, err := search(ctx, layouts(), [][]string{withoutFlash(), withoutHostCache()}, func(ctx context.Context, settings []string) (rate float64, err error) {
		s, err := start(settings)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		return c.rate(ctx, "llama-server", s, words, trialRound, c.trial)
	})
	if err != nil {
		return nil, "", err
	}
	text := strings.Join(best, " ")
	fmt.Fprintf(a.out, "%s: best of llama-server: %s\n", c.name, text)
	s, err := start(best)
	return s, fmt.Sprintf("llama-server --parallel %d, best settings: %s", c.atOnce, text), err
}

// serverDefault is llama-server with no more settings than the work needs.
func (a *arena) serverDefault(ctx context.Context, c contest, p *path, _ *vocabulary) (contestant, string, error) {
	s, err := a.startServer(ctx, int(p.engine.Load()), c.atOnce, c.slot, nil, nil)
	return s, fmt.Sprintf("llama-server --parallel %d, default settings", c.atOnce), err
}
