package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/cli"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/node"
	"tempo/internal/queue"
	"tempo/internal/setup"
	"tempo/internal/submit"
)

const promptTokens, outTokens = 128, 64

// pathBench measures what the way of a prompt costs: file → queue → worker →
// engine process → results, against the same engine called in this process.
func pathBench(ctx context.Context, o options) ([]row, error) {
	if o.jobs == 0 {
		o.jobs = 64
	}
	a, err := openArena(o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if a.model, err = a.pathModel(); err != nil {
		return nil, err
	}
	return a.contest(ctx, contest{
		name: "path", work: fmt.Sprintf("%d tokens in and %d out, greedy", promptTokens, outTokens),
		jobs: o.jobs, make: distinct(promptTokens, outTokens, greedy()),
	}, []rival{{"in-process", 0.9, (*arena).inProcess}})
}

// pathModel is the example model, or a generated one of as many layers as the user
// wants.
func (a *arena) pathModel() (string, error) {
	if a.layers > 0 {
		return a.generated(fmt.Sprintf("random-%d-layers", a.layers), scaled(a.layers))
	}
	if a.example == "" {
		return "", &setup.NotSetUpError{Parts: []setup.Part{setup.Model}}
	}
	return a.example, nil
}

// scaled is the tests' tiny model at the size of a small real one.
func scaled(layers int) gguf.Spec {
	s := gguf.Tiny()
	s.Layers, s.Heads, s.KVHeads, s.Embedding, s.FeedForward = layers, 8, 4, 512, 1536
	s.Vocab, s.Context, s.Type = 32000, 8192, gguf.F16
	return s
}

// path is a queue, a worker and its engine process, as submit run --local has them.
type path struct {
	spec   infer.Spec
	file   string       // the jobs as a batch file
	out    string       // file of the results
	engine atomic.Int64 // pid of the engine process
	server *queue.Embedded
	client *queue.Client
	node   *node.Node
	stop   context.CancelFunc
	ended  chan error // receives what the worker returned
}

// servedName is the name under which the worker serves the model.
const servedName = "bench"

// startPath starts all of it in a directory of its own below dir, with atOnce jobs
// in a step; 0 = as many as the worker chooses.
func startPath(ctx context.Context, dir, model, libDir string, atOnce int, log *zap.Logger) (p *path, err error) {
	if dir, err = os.MkdirTemp(dir, "path-"); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	c, err := config.Load(nil, []string{
		"TEMPO_DEVICE=cpu", "TEMPO_MODEL=" + servedName + "=" + model, "TEMPO_LLAMA_LIB=" + libDir, "TEMPO_LOG_LEVEL=error",
		"TEMPO_MAX_PARALLEL_TOKENS=" + strconv.Itoa(atOnce),
	})
	if err != nil {
		return nil, err
	}
	p = &path{
		spec: infer.Spec{Model: model, LibDir: libDir, GPU: -1, Threads: budget.UsableCores(), Batch: c.Engine.BatchSize},
		file: filepath.Join(dir, "jobs.jsonl"), out: filepath.Join(dir, "results.jsonl"),
		ended: make(chan error, 1),
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
	if p.node, err = node.Start(ctx, c, p.client, node.Options{
		Args: engineArgs(c.Log, screen), Stderr: screen,
		OnEngine: func(pid int, alive bool) {
			if alive {
				p.engine.Store(int64(pid))
			}
		},
	}, log); err != nil {
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
func writeJobs(name string, jobs []job) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write jobs: %w", err)
	}
	enc := json.NewEncoder(f)
	for i, j := range jobs {
		err = errors.Join(err, enc.Encode(map[string]any{
			"custom_id": fmt.Sprint(i), "method": "POST", "url": api.Completions,
			"body": map[string]any{
				"model": servedName, "prompt": j.prompt, "max_tokens": j.out, "ignore_eos": true,
				"temperature": j.sampling.Temperature, "top_p": j.sampling.TopP,
			},
		}))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write jobs: %w", err)
	}
	return nil
}

// run sends the jobs as a file and waits for the file of their results.
func (p *path) run(ctx context.Context, jobs []job) (tally, error) {
	if err := writeJobs(p.file, jobs); err != nil {
		return tally{}, err
	}
	started := time.Now()
	batch, err := submit.Read(ctx, submit.Options{File: p.file, Output: p.out, Route: servedName, New: true, Quiet: true}, nil)
	if err != nil {
		return tally{}, err
	}
	defer batch.Close()
	summary, err := batch.Run(ctx, p.client)
	if err != nil {
		return tally{}, err
	}
	took := time.Since(started)
	if summary.Failed > 0 {
		return tally{}, fmt.Errorf("%d jobs failed", summary.Failed)
	}
	got, err := countResults(p.out)
	got.took = took
	return got, errors.Join(err, p.client.RemoveBatch(ctx, batch.ID))
}

// countResults adds up the tokens in a file of results.
func countResults(name string) (t tally, err error) {
	f, err := os.Open(name)
	if err != nil {
		return t, fmt.Errorf("read results: %w", err)
	}
	defer f.Close()
	for dec := json.NewDecoder(bufio.NewReader(f)); dec.More(); {
		var r api.Result
		var body struct{ Usage api.Usage }
		if err := dec.Decode(&r); err != nil {
			return t, fmt.Errorf("read results: %w", err)
		}
		if !r.OK() {
			return t, fmt.Errorf("job %s failed", r.CustomID)
		}
		if err := json.Unmarshal(r.Response.Body, &body); err != nil {
			return t, fmt.Errorf("read result of job %s: %w", r.CustomID, err)
		}
		t.prompt += body.Usage.PromptTokens
		t.generated += body.Usage.CompletionTokens
	}
	return t, nil
}
