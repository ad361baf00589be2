// Package local is the llama.cpp engine inside this process. An engine process
// serves it; tests use it directly.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/chat"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/schedule"
)

// Engine is an infer.Engine over llama.cpp.
type Engine struct {
	log *zap.Logger

	mu    sync.RWMutex // guards what follows but broken; Generate holds it only to begin
	spec  infer.Spec
	facts infer.Facts
	lib   *llama.Library
	dry   *llama.Model // metadata only; nil before Open and after Load
	// estimate is what the weights will take.
	estimate budget.Bytes

	model    *llama.Model // nil before Load
	ctx      *llama.Context
	template *chat.Template
	sched    *schedule.Scheduler
	stop     context.CancelFunc // ends the scheduler
	stopped  chan struct{}      // closed when it has ended
	broken   chan error         // receives the error that ended the scheduler before Close
}

var _ infer.Engine = (*Engine)(nil)

// New makes an engine. A nil log is silent.
func New(log *zap.Logger) *Engine {
	if log == nil {
		log = zap.NewNop()
	}
	return &Engine{log: log.Named("llama"), broken: make(chan error, 1)}
}

// Broken receives the error after which the engine can run no more jobs. The
// process that has it must end then: llama.cpp's state is unknown.
func (e *Engine) Broken() <-chan error { return e.broken }

// Open checks the model file, loads the libraries and the file's metadata.
func (e *Engine) Open(_ context.Context, spec infer.Spec) (infer.Facts, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// llama.cpp ends the process on some damaged files, so look first.
	header, err := gguf.ReadHeader(spec.Model)
	if err != nil {
		return infer.Facts{}, startError(err, adviceFile)
	}
	lib, err := llama.Load(spec.LibDir, e.log)
	if err != nil {
		return infer.Facts{}, startError(err, "")
	}
	if spec.GPU >= 0 && !lib.HasGPU() {
		return infer.Facts{}, &infer.NoGPUError{LibDir: spec.LibDir}
	}
	process, err := budget.ProportionalSetSize(os.Getpid())
	if err != nil {
		return infer.Facts{}, fmt.Errorf("measure the engine process: %w", err)
	}
	e.dry, err = lib.OpenModel(spec.Model, llama.ModelOptions{GPU: spec.GPU, DryRun: true})
	if err != nil {
		return infer.Facts{}, startError(err, adviceModel)
	}
	e.lib, e.spec = lib, spec
	e.estimate = e.dry.Weights()
	if header.TiedOutput && e.dry.Repacked() {
		// Looked up at the beginning and multiplied at the end: repacked for the
		// latter, as it is for the former.
		e.estimate = e.estimate.Add(budget.Bytes(header.TokenEmbdBytes))
	}
	e.facts = infer.Facts{
		Context:    e.dry.TrainContext(),
		Vocabulary: e.dry.Vocabulary(),
		Weights:    e.estimate,
		Process:    process,
	}
	if spec.Context > 0 {
		e.facts.Context = spec.Context
	}
	return e.facts, nil
}

// What to do where the error itself does not know.
const (
	adviceFile   = "name a GGUF file that can be read with --model PATH"
	adviceModel  = "the file is whole, but llama.cpp v0.5.0 cannot use it: try another model or another conversion of it"
	adviceMemory = "lower --max-cache-tokens or --max-parallel-tokens"
)

// startError keeps the hint of err on its way to another process; without one it
// is advice.
func startError(err error, advice string) error {
	out := &infer.StartError{Err: err, Advice: advice}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		out.Advice = hinted.Hint()
	}
	return out
}

// DryRun asks llama.cpp what a context of this shape would allocate.
func (e *Engine) DryRun(_ context.Context, shape infer.Shape) (budget.Footprint, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dry == nil {
		return budget.Footprint{}, infer.ErrNotOpen
	}
	ctx, err := e.dry.NewContext(e.options(shape))
	if err != nil {
		return budget.Footprint{}, err
	}
	f := footprint(ctx)
	f.Weights = e.estimate
	return f, ctx.Close()
}

func (e *Engine) options(shape infer.Shape) llama.ContextOptions {
	return llama.ContextOptions{Cells: shape.Cells, Sequences: shape.Sequences, Batch: e.spec.Batch, Threads: e.spec.Threads}
}

func footprint(c *llama.Context) budget.Footprint {
	return budget.Footprint{KVCache: c.Cache(), ParallelBatch: c.Compute()}
}

// Load allocates the model and a context and runs its worst shape once.
func (e *Engine) Load(_ context.Context, shape infer.Shape) (budget.Footprint, error) { //nolint:contextcheck // the scheduler outlives the call
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dry == nil {
		return budget.Footprint{}, infer.ErrNotOpen
	}
	err := e.dry.Close()
	e.dry = nil
	if err != nil {
		return budget.Footprint{}, err
	}
	if e.model, err = e.lib.OpenModel(e.spec.Model, llama.ModelOptions{GPU: e.spec.GPU}); err != nil {
		return budget.Footprint{}, startError(err, adviceModel)
	}
	if e.ctx, err = e.model.NewContext(e.options(shape)); err != nil {
		return budget.Footprint{}, startError(err, adviceMemory)
	}
	if err = e.ctx.WarmUp(); err != nil {
		return budget.Footprint{}, startError(err, adviceMemory)
	}
	if e.template, err = e.chatTemplate(); err != nil {
		return budget.Footprint{}, startError(err, adviceModel)
	}
	e.facts.Context = min(e.facts.Context, shape.Cells)
	e.sched = schedule.New(e.model, e.ctx)
	ctx, stop := context.WithCancel(context.Background())
	e.stop, e.stopped = stop, make(chan struct{})
	go func(s *schedule.Scheduler, stopped chan<- struct{}) {
		defer close(stopped)
		if err := s.Run(ctx); err != nil {
			e.broken <- err
		}
	}(e.sched, e.stopped)
	f := footprint(e.ctx)
	f.Weights = e.model.Weights()
	return f, nil
}

func (e *Engine) chatTemplate() (*chat.Template, error) {
	source := e.model.ChatTemplate()
	if source == "" {
		e.log.Warn("the model file has no chat template, ChatML is used", zap.String("model", e.spec.Model))
		source = chat.ChatML
	}
	bos, eos := e.model.SpecialText()
	return chat.New(source, bos, eos)
}

// Generate runs one job.
func (e *Engine) Generate(ctx context.Context, req infer.Request) (*infer.Output, error) {
	sched, prompt, limit, err := e.begin(req.Job)
	if err != nil {
		return nil, err
	}
	return sched.Submit(ctx, req, prompt, limit)
}

// begin prepares a job. The scheduler may have ended when the caller uses it.
func (e *Engine) begin(job *api.Request) (s *schedule.Scheduler, prompt []llama.Token, limit int, err error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.sched == nil {
		return nil, nil, 0, infer.ErrNotOpen
	}
	prompt, err = e.prompt(job)
	return e.sched, prompt, e.facts.Context, err
}

// prompt renders and tokenizes what the job asks for. mu is held.
func (e *Engine) prompt(job *api.Request) ([]llama.Token, error) {
	text, param := job.Prompt, "prompt"
	if job.URL == api.ChatCompletions {
		param = "messages"
		var err error
		if text, err = e.template.Render(job.Messages); err != nil {
			return nil, &infer.RequestError{
				Param: param, Message: err.Error(),
				Advice: "check the order and the roles of the messages, or ask /v1/completions with a prompt of your own",
			}
		}
	}
	tokens, err := e.model.Tokenize(text)
	if err != nil {
		return nil, &infer.RequestError{Param: param, Message: param + ": " + err.Error(), Advice: "remove the character"}
	}
	if len(tokens) == 0 {
		return nil, &infer.RequestError{Param: param, Message: param + " is empty for this model", Advice: "write at least one character"}
	}
	if len(tokens) >= e.facts.Context {
		return nil, &infer.RequestError{
			Param: param,
			Message: fmt.Sprintf("%s has %d tokens; a job can have at most %d with its output, so at most %d in the prompt",
				param, len(tokens), e.facts.Context, e.facts.Context-1),
			Advice: fmt.Sprintf("shorten the prompt; the model was trained for %d tokens, the worker's limits are --context-size, --max-cache-tokens and --max-memory-gb",
				e.model.TrainContext()),
		}
	}
	return tokens, nil
}

// Close ends the running jobs and frees everything.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	if e.stop != nil {
		e.stop()
		<-e.stopped
	}
	if e.ctx != nil {
		errs = append(errs, e.ctx.Close())
	}
	for _, m := range []*llama.Model{e.model, e.dry} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	e.sched, e.ctx, e.model, e.dry, e.stop = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
