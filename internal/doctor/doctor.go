package doctor

import (
	"context"
	"io"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/config"
	"tempo/internal/node"
	"tempo/internal/queue"
)

// Options say what to look at.
type Options struct {
	Layers bool // list the layers too
	Local  bool // leave NATS out
	// EngineArgs make this program an engine, whose messages go to Stderr.
	EngineArgs []string
	Stderr     io.Writer
	Queue      queue.Options
	// Where directory and model came from, where the configuration names them.
	LibrariesSource, ModelSource string
	// Progress is called when a section is filled in, for ModelSection once for each
	// model, which is the report's Model meanwhile; nil = nobody waits for it.
	Progress func(Section, *Report)
}

// examination is one run of Examine.
type examination struct {
	opts   Options
	config *config.Config
	log    *zap.Logger
	report *Report

	memoryID string      // of the device that would be taken; "" = none
	others   []api.Claim // on it
}

// Examine looks at one thing after the other; what depends on something that
// failed is not checked. It starts an engine process for the dry run, which has
// ended when it returns. A nil log is silent.
func Examine(ctx context.Context, c *config.Config, o Options, log *zap.Logger) *Report {
	if log == nil {
		log = zap.NewNop()
	}
	e := &examination{opts: o, config: c, log: log, report: &Report{Reasons: []string{}}}
	r := e.report
	e.locate()
	e.libraries()
	e.say(LibrariesSection)
	e.devices()
	e.say(DevicesSection)
	e.models(ctx)
	e.nats(ctx)
	e.say(NATSSection)
	plan, err := e.memory(ctx)
	e.say(MemorySection)
	if o.Layers {
		e.layers(plan, err)
		e.say(LayersSection)
	}
	checks := []Check{r.Libraries.Check, r.Devices.Check}
	for _, m := range r.Models {
		checks = append(checks, m.Check)
	}
	for _, c := range append(checks, r.NATS.Check, r.Memory.Check) {
		if c.Status == Fail {
			r.Reasons = append(r.Reasons, c.Problem)
		}
	}
	r.CanRun = len(r.Reasons) == 0
	return r
}

func (e *examination) say(s Section) {
	if e.opts.Progress != nil {
		e.opts.Progress(s, e.report)
	}
}

// memory plans, if all is there that it takes.
func (e *examination) memory(ctx context.Context) (node.Preview, error) {
	r := e.report
	m := &r.Memory
	type need struct {
		what  string
		check Check
	}
	needs := []need{{"the libraries", r.Libraries.Check}, {"a device", r.Devices.Check}}
	for _, m := range r.Models {
		needs = append(needs, need{"the model", m.Check})
	}
	for _, need := range needs {
		if need.check.Status == Fail || need.check.Status == Skipped {
			m.Check = skipped("it needs " + need.what)
			return node.Preview{}, errNoPlan
		}
	}
	p, err := node.PreviewStart(ctx, e.config, node.Options{Args: e.opts.EngineArgs, Stderr: e.opts.Stderr}, e.others, e.log)
	m.Device, m.Limit, m.LimitReason = p.Device.ID, p.Limit, p.Reason
	if err != nil {
		m.Check = fail(err)
		return p, err
	}
	f := p.Plan.Footprint
	m.Check = Check{Status: OK}
	m.Weights, m.KVCache, m.ParallelBatch, m.Overhead, m.Total = f.Weights, f.KVCache, f.ParallelBatch, f.Overhead, f.Total()
	m.Plan, m.MaxCacheTokens, m.MaxParallelTokens = p.Plan.Reason, p.Plan.Cells, p.Parallel.Tokens
	m.Rule = RuleOf(p.Parallel)
	return p, nil
}
