package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/cli"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/local"
	"tempo/internal/node"
	"tempo/internal/queue"
	"tempo/internal/setup"
	"tempo/internal/submit"
)

const (
	promptWords = 128 // each of them is about one token
	outTokens   = 64
)

// pathBench measures what the way of a prompt costs: file → queue → worker →
// engine process → results, against the same engine called in this process.
func pathBench(ctx context.Context, o options) (rows []row, err error) {
	if o.jobs == 0 {
		o.jobs = 64
	}
	dir, err := os.MkdirTemp("", "tempo-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	jobs := makeJobs(o.jobs)
	p, err := startPath(ctx, dir, o.layers, jobs, o.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	d, err := p.startDirect(ctx, jobs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.engine.Close()) }()
	r, err := compare(ctx, row{
		Work: fmt.Sprintf("%d jobs, about %d tokens in and %d out, greedy, %s on the CPU, embedded queue to result file",
			o.jobs, promptWords, outTokens, filepath.Base(p.spec.Model)),
		Against: "the same jobs on the same engine in one process, without queue, worker and engine process",
		Unit:    "tokens/s", AtLeast: 0.9,
	}, o.runs, p.run, d.run)
	return []row{r}, err
}

// makeJobs makes completions of words, a different text each.
func makeJobs(n int) []*api.Request {
	words := strings.Fields("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also well")
	random := rand.New(rand.NewPCG(1, 1)) // the same jobs in every run
	jobs := make([]*api.Request, n)
	for i := range jobs {
		text := make([]string, promptWords)
		for j := range text {
			text[j] = words[random.IntN(len(words))]
		}
		jobs[i] = &api.Request{
			URL: api.Completions, Prompt: strings.Join(text, " "), MaxTokens: outTokens,
			Sampling: api.Sampling{TopP: 1, RepeatPenalty: 1},
		}
	}
	return jobs
}

// path is a queue, a worker and its engine process, as submit run --local has them.
type path struct {
	spec   infer.Spec
	file   string // the jobs as a batch file
	out    string // file of the results
	server *queue.Embedded
	client *queue.Client
	node   *node.Node
	stop   context.CancelFunc
	ended  chan error // receives what the worker returned
}

// scaled is the tests' tiny model at the size of a small real one.
func scaled(layers int) gguf.Spec {
	s := gguf.Tiny()
	s.Layers, s.Heads, s.KVHeads, s.Embedding, s.FeedForward = layers, 8, 4, 512, 1536
	s.Vocab, s.Context, s.Type = 32000, 8192, gguf.F16
	return s
}

func startPath(ctx context.Context, dir string, layers int, jobs []*api.Request, log *zap.Logger) (p *path, err error) {
	found, err := setup.Locate("")
	if err != nil {
		return nil, fmt.Errorf("find libraries and model: %w", err)
	}
	if layers > 0 {
		found.Model = filepath.Join(dir, fmt.Sprintf("random-%d-layers.gguf", layers))
		if err := gguf.WriteFile(found.Model, scaled(layers)); err != nil {
			return nil, err
		}
	}
	c, err := config.Load(nil, []string{"TEMPO_DEVICE=cpu", "TEMPO_MODEL=" + found.Model, "TEMPO_LLAMA_LIB=" + found.LlamaLib, "TEMPO_LOG_LEVEL=error"})
	if err != nil {
		return nil, err
	}
	p = &path{
		spec: infer.Spec{Model: found.Model, LibDir: found.LlamaLib, GPU: -1, Threads: budget.UsableCores(), Batch: c.Engine.BatchSize},
		file: filepath.Join(dir, "jobs.jsonl"), out: filepath.Join(dir, "results.jsonl"),
		ended: make(chan error, 1),
	}
	if err := writeJobs(p.file, jobs); err != nil {
		return nil, err
	}
	if p.server, err = queue.StartEmbedded(queue.EmbeddedOptions{Dir: filepath.Join(dir, "queue"), SyncAlways: true}, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.server.Stop()
		}
	}()
	if p.client, err = queue.ConnectEmbedded(ctx, p.server, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.client.Close()
		}
	}()
	if err = p.client.EnsureTopology(ctx, queue.Topology{}); err != nil {
		return nil, err
	}
	screen := cli.NewScreen(os.Stderr)
	if p.node, err = node.Start(ctx, c, p.client, node.Options{Args: cli.EngineArgs(c.Log, screen), Stderr: screen}, log); err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(ctx)
	p.stop = stop
	go func() { p.ended <- p.node.Worker.Run(work) }()
	return p, nil
}

func (p *path) close() error {
	p.stop()
	err := errors.Join(<-p.ended, p.node.Close())
	p.client.Close()
	p.server.Stop()
	return err
}

// writeJobs writes a batch file.
func writeJobs(name string, jobs []*api.Request) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write jobs: %w", err)
	}
	enc := json.NewEncoder(f)
	for i, j := range jobs {
		err = errors.Join(err, enc.Encode(map[string]any{
			"custom_id": fmt.Sprint(i), "method": "POST", "url": j.URL,
			"body": map[string]any{"model": "any", "prompt": j.Prompt, "max_tokens": j.MaxTokens, "temperature": 0},
		}))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write jobs: %w", err)
	}
	return nil
}

// run sends the file and waits for its results.
func (p *path) run(ctx context.Context) (float64, error) {
	started := time.Now()
	batch, err := submit.Read(ctx, submit.Options{File: p.file, Output: p.out, Route: p.node.Worker.Model(), New: true, Quiet: true}, nil)
	if err != nil {
		return 0, err
	}
	defer batch.Close()
	summary, err := batch.Run(ctx, p.client)
	if err != nil {
		return 0, err
	}
	took := time.Since(started)
	if summary.Failed > 0 {
		return 0, fmt.Errorf("%d jobs failed", summary.Failed)
	}
	return float64(summary.Tokens) / took.Seconds(), p.client.RemoveBatch(ctx, batch.ID)
}

// direct is the engine in this process.
type direct struct {
	engine *local.Engine
	jobs   []*api.Request
}

// startDirect loads a second engine in the shape that the worker's has.
func (p *path) startDirect(ctx context.Context, jobs []*api.Request) (*direct, error) {
	d := &direct{engine: local.New(nil), jobs: jobs}
	if _, err := d.engine.Open(ctx, p.spec); err != nil {
		return nil, errors.Join(err, d.engine.Close())
	}
	s := p.node.Worker.Stats()
	if _, err := d.engine.Load(ctx, infer.Shape{Sequences: s.MaxParallelTokens, Cells: s.MaxCacheTokens}); err != nil {
		return nil, errors.Join(err, d.engine.Close())
	}
	return d, nil
}

// run gives the engine all jobs at once.
func (d *direct) run(ctx context.Context) (float64, error) {
	tokens := make([]int, len(d.jobs))
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, j := range d.jobs {
		group.Go(func() error {
			out, err := d.engine.Generate(ctx, infer.Request{ID: fmt.Sprint(i), Job: j, Lease: &plenty{}})
			if err != nil {
				return err
			}
			tokens[i] = out.CompletionTokens
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(started)
	sum := 0
	for _, n := range tokens {
		sum += n
	}
	return float64(sum) / took.Seconds(), nil
}

// plenty is a lease that is always granted.
type plenty struct{ tokens atomic.Int64 }

func (p *plenty) Tokens() int { return int(p.tokens.Load()) }

func (p *plenty) Reclaim() <-chan struct{} { return nil }

func (p *plenty) Resize(_ context.Context, _, n int) error {
	p.tokens.Store(int64(n))
	return nil
}
