package memtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/doctor"
	"tempo/internal/node"
	"tempo/internal/queue"
)

// Options say how to test.
type Options struct {
	// Seconds bounds the generation.
	Seconds float64
	// EngineArgs make this program an engine, whose messages go to Stderr.
	EngineArgs []string
	Stderr     io.Writer
	// Progress is called when a step is done; nil = nobody waits for it.
	Progress func(Step, *Result)
}

// test is one run.
type test struct {
	opts    Options
	config  *config.Config
	log     *zap.Logger
	result  *Result
	dir     string // of all temporary files
	sampler *sampler
	client  *queue.Client
	node    *node.Node // with the model loaded; nil = none is
	longest int        // job in tokens
}

// Run runs the steps until one fails, and returns what was measured. Temporary files
// and processes are gone when it returns. An error says that the test itself could
// not be set up. A nil log is silent.
func Run(ctx context.Context, c *config.Config, o Options, log *zap.Logger) (*Result, error) {
	if log == nil {
		log = zap.NewNop()
	}
	dir, err := os.MkdirTemp("", "tempo-memory-test-*")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the test: %w", err)
	}
	t := &test{opts: o, config: c, log: log, dir: dir, result: newResult()}
	err = t.run(ctx)
	return t.result, errors.Join(err, os.RemoveAll(dir))
}

func newResult() *Result {
	r := &Result{}
	r.Load.Lines = []Line{}
	for _, o := range []*Outcome{
		&r.Monitor.Outcome, &r.Load.Outcome, &r.Limits.Outcome, &r.Generation.Outcome, &r.Opposite.Outcome, &r.Verdict.Outcome,
	} {
		o.Status = NotRun
	}
	return r
}

// run sets up what the steps share, and runs them.
func (t *test) run(ctx context.Context) error {
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: filepath.Join(t.dir, "queue")}, t.log)
	if err != nil {
		return err
	}
	defer server.Stop()
	if t.client, err = queue.ConnectEmbedded(ctx, server, t.log); err != nil {
		return err
	}
	defer t.client.Close()
	if err := t.client.EnsureTopology(ctx, queue.Topology{}); err != nil {
		return fmt.Errorf("prepare the queue: %w", err)
	}
	defer func() {
		if t.node != nil { // a step has failed while it was there
			_ = t.node.Close()
		}
	}()
	r := t.result
	outcomes := map[Step]*Outcome{
		MonitorStep: &r.Monitor.Outcome, LoadStep: &r.Load.Outcome, LimitsStep: &r.Limits.Outcome,
		GenerationStep: &r.Generation.Outcome, OppositeStep: &r.Opposite.Outcome, VerdictStep: &r.Verdict.Outcome,
	}
	failed := false
	for _, step := range []struct {
		name Step
		do   func(context.Context) Outcome
	}{
		{MonitorStep, t.monitor},
		{LoadStep, t.load},
		{LimitsStep, t.limits},
		{GenerationStep, t.generate},
		{OppositeStep, t.opposite},
		{VerdictStep, t.verdict},
	} {
		if !failed {
			outcome := step.do(ctx)
			if ctx.Err() != nil {
				outcome = Outcome{Status: Failed, Problem: "interrupted"}
			}
			*outcomes[step.name] = outcome
			failed = outcome.Status == Failed
			r.Passed = step.name == VerdictStep && !failed
		}
		if t.opts.Progress != nil {
			t.opts.Progress(step.name, r)
		}
	}
	if t.sampler != nil {
		t.sampler.stop()
	}
	return nil
}

func (t *test) nodeOptions() node.Options {
	return node.Options{Args: t.opts.EngineArgs, Stderr: t.opts.Stderr, DrainTimeout: time.Second}
}

// monitor says what there is, and has an engine size the model.
func (t *test) monitor(ctx context.Context) Outcome {
	preview, err := t.preview(ctx)
	m := &t.result.Monitor
	m.Device, m.DeviceName = preview.Device.ID, preview.Device.Name
	m.Total, m.Free = preview.Device.Total, preview.Device.Free
	m.Limit, m.LimitReason = preview.Limit, preview.Reason
	t.longest = preview.Facts.Context
	m.Model = filepath.Base(preview.Spec.Model)
	var large *budget.TooLargeError
	if err != nil && !errors.As(err, &large) { // that one is for the load to say
		return failure(err)
	}
	_, m.Engine = t.sampler.phase()
	m.Process = t.sampler.sample().Self
	return Outcome{Status: OK}
}

// preview plans the memory and measures meanwhile; the device is the planned one
// from then on.
func (t *test) preview(ctx context.Context) (node.Preview, error) {
	for {
		if t.sampler != nil {
			t.sampler.stop()
			t.sampler = nil
		}
		device, err := node.Device(t.config)
		if err != nil {
			return node.Preview{}, err
		}
		if t.sampler, err = newSampler(ctx, device, t.config.Engine.NVMLPath); err != nil {
			return node.Preview{}, err
		}
		t.sampler.begin()
		p, err := node.PreviewStart(ctx, t.config, t.nodeOptions(), nil, t.log)
		if p.Device.ID == device.ID || p.Device.ID == "" {
			p.Device = device
			return p, err
		}
		c := *t.config // the GPU is of no use
		c.Engine.Device = p.Device.ID
		t.config = &c
	}
}

// load starts the worker as it is configured.
func (t *test) load(ctx context.Context) Outcome {
	t.sampler.begin()
	n, err := node.Start(ctx, t.config, t.client, t.nodeOptions(), t.log)
	l := &t.result.Load
	l.Peak, _ = t.sampler.phase()
	if large, ok := errors.AsType[*budget.TooLargeError](err); ok { // what was done when it was refused says nothing to the user
		return failure(large)
	}
	if err != nil {
		return failure(err)
	}
	t.node = n
	s := n.Worker.Stats()
	l.Limit = budget.Bytes(s.Limit)
	l.Lines = lines(s)
	l.Total = line("total", s.Estimate.Total(), s.Total())
	return Outcome{Status: OK}
}

func lines(s api.MemoryStats) []Line {
	return []Line{
		line("weights", s.Estimate.Weights, s.Weights),
		line("KV cache", s.Estimate.KVCache, s.KVCache),
		line("parallel batch", s.Estimate.ParallelBatch, s.ParallelBatch),
		line("overhead", s.Estimate.Overhead, s.Overhead),
	}
}

func line(name string, estimate, measured int64) Line {
	return Line{name, budget.Bytes(estimate), budget.Bytes(measured), budget.Bytes(measured).Sub(budget.Bytes(estimate))}
}

// limits says what bounds the jobs.
func (t *test) limits(context.Context) Outcome {
	l, c := &t.result.Limits, t.config.Memory
	s := t.node.Worker.Stats()
	l.MaxParallelTokens, l.MaxCacheTokens, l.Pool = s.MaxParallelTokens, s.MaxCacheTokens, budget.Bytes(s.KVCache)
	l.Rule = doctor.RuleOf(t.node.Worker.Parallel())
	limit := budget.Bytes(s.Limit)
	l.Warn, l.WarnShare, l.Act, l.ActShare = limit.Scale(c.Warn), c.Warn, limit.Scale(c.Act), c.Act
	return Outcome{Status: OK}
}

// verdict compares the highest measurement with the limit.
func (t *test) verdict(context.Context) Outcome {
	v := &t.result.Verdict
	var err error
	v.Peak, v.Samples, err = t.sampler.all()
	v.Limit, v.EveryMS = t.result.Load.Limit, sampleEvery.Milliseconds()
	switch {
	case err != nil:
		return failure(err)
	case v.Peak > v.Limit:
		return Outcome{
			Status: Failed, Problem: fmt.Sprintf("the processes held %v, %v beyond the limit of %v", v.Peak, v.Peak.Sub(v.Limit), v.Limit),
			Hint: "please report this: the limit must hold; --log-level debug shows the worker's steps",
		}
	}
	return Outcome{Status: OK}
}
