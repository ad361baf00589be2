// Package local is the llama.cpp engine inside this process. An engine process
// serves it; tests use it directly.
package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/schedule"
)

// Engine is an infer.Engine over llama.cpp.
type Engine struct {
	log    *zap.Logger
	broken chan error // receives the error that ended the scheduler before Close

	setting  sync.Mutex // held by all but Generate; guards what follows
	spec     infer.Spec
	facts    infer.Facts
	lib      *llama.Library                // nil before Open
	dry      *llama.Model                  // metadata only; nil before Open and after the first load
	estimate budget.Bytes                  // what the weights will take
	measured map[infer.Shape]schedule.Size // by dry runs of this model
	size     schedule.Size                 // of the load
	// compute is what the compute buffers may take with so many cells; nil before the load.
	compute func(cells int) budget.Bytes
	attends func(cells int) int // see schedule.Options
	width   int                 // see Narrow
	plain   bool                // the weights stay as they are in the file

	mu       sync.Mutex     // guards what follows; never held for long
	model    *loaded        // nil while none is
	unloaded bool           // jobs wait for a model
	changed  chan struct{}  // closed and replaced when the two above change
	jobs     int            // that use model
	running  sync.WaitGroup // the same, for Close; added to under mu
}

var _ infer.Engine = (*Engine)(nil)

// New makes an engine. A nil log is silent.
func New(log *zap.Logger) *Engine {
	if log == nil {
		log = zap.NewNop()
	}
	return &Engine{log: log, broken: make(chan error, 1), changed: make(chan struct{})}
}

// Broken receives the error after which the engine can run no more jobs. The
// process that has it must end then: llama.cpp's state is unknown.
func (e *Engine) Broken() <-chan error { return e.broken }

// Open checks the model file, loads the libraries and the file's metadata.
func (e *Engine) Open(_ context.Context, spec infer.Spec) (infer.Facts, error) {
	e.setting.Lock()
	defer e.setting.Unlock()
	// llama.cpp ends the process on some damaged files, so look first.
	header, err := gguf.ReadHeader(spec.Model)
	if err != nil {
		return infer.Facts{}, startError(err, adviceFile)
	}
	if header.EncoderOnly() {
		return infer.Facts{}, startError(fmt.Errorf("%s is an encoder (%s), which cannot be run yet", spec.Model, header.Architecture),
			"for embeddings, name a model that is made of a decoder, such as Qwen3-Embedding")
	}
	lib, err := llama.Load(spec.LibDir, e.log.Named("llama"))
	if err != nil {
		return infer.Facts{}, startError(err, "")
	}
	if spec.GPU >= 0 && !lib.HasGPU() {
		return infer.Facts{}, &infer.NoGPUError{LibDir: spec.LibDir}
	}
	e.lib, e.spec, e.measured = lib, spec, make(map[infer.Shape]schedule.Size)
	if err := e.openDry(header); err != nil {
		return infer.Facts{}, startError(err, adviceModel)
	}
	// With the vocabulary in it, which stays.
	process, err := budget.ProportionalSetSize(os.Getpid())
	if err != nil {
		return infer.Facts{}, fmt.Errorf("measure the engine process: %w", err)
	}
	e.facts = infer.Facts{
		Context:    e.dry.TrainContext(),
		Vocabulary: e.dry.Vocabulary(),
		Embedding:  e.dry.EmbeddingSize(),
		Weights:    e.estimate,
		Process:    process,
	}
	if spec.Context > 0 {
		e.facts.Context = spec.Context
	}
	return e.facts, nil
}

// openDry reads the metadata, and what the weights will take.
func (e *Engine) openDry(header *gguf.Header) (err error) {
	if e.dry, err = e.lib.OpenModel(e.spec.Model, e.modelOptions(true)); err != nil {
		return err
	}
	if slices.Contains(e.dry.Buffers(), gguf.BufferAMX) && !header.Tileable() {
		// llama.cpp v0.5.0 aborts with weights in tiles under operations that AMX has not.
		e.plain = true
		if err := e.dry.Close(); err != nil {
			return err
		}
		if e.dry, err = e.lib.OpenModel(e.spec.Model, e.modelOptions(true)); err != nil {
			return err
		}
	}
	if e.spec.GPU >= 0 {
		e.estimate = budget.Bytes(header.OffloadedBytes())
		return nil
	}
	n, exact := header.LoadedBytes(e.dry.Buffers())
	if !exact {
		e.log.Warn("the CPU wants its weights in a layout that is not known, they may take more than is estimated",
			zap.Strings("buffers", e.dry.Buffers()))
	}
	e.estimate = budget.Bytes(n)
	return nil
}

func (e *Engine) modelOptions(dryRun bool) llama.ModelOptions {
	return llama.ModelOptions{GPU: e.spec.GPU, DryRun: dryRun, Plain: e.plain}
}

// What to do where the error itself does not know.
const (
	adviceFile   = "name a GGUF file that can be read with --model PATH"
	adviceModel  = "the file is whole, but llama.cpp v0.5.0 cannot use it: try another model or another conversion of it"
	adviceMemory = "lower --max-cache-tokens or --max-parallel-tokens"
	adviceCache  = "quantised values need flash attention, which llama.cpp turns on where the model and the device allow it: try --cache-type-v f16"
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

// Load allocates the model and a context and runs its worst shapes once.
func (e *Engine) Load(_ context.Context, shape infer.Shape) (budget.Footprint, error) {
	e.setting.Lock()
	defer e.setting.Unlock()
	if e.dry == nil {
		return budget.Footprint{}, infer.ErrNotOpen
	}
	return e.load(shape) //nolint:contextcheck // the scheduler outlives the call
}

// Reshape changes the pool of the running scheduler, loads, or unloads.
func (e *Engine) Reshape(_ context.Context, shape infer.Shape) (budget.Footprint, error) {
	e.setting.Lock()
	defer e.setting.Unlock()
	if e.lib == nil {
		return budget.Footprint{}, infer.ErrNotOpen
	}
	if shape.Empty() {
		return budget.Footprint{}, e.unload(shape)
	}
	e.mu.Lock()
	l := e.model
	e.mu.Unlock()
	if l == nil {
		return e.load(shape) //nolint:contextcheck // the scheduler outlives the call
	}
	if err := l.sched.Reshape(shape); err != nil {
		if _, busy := errors.AsType[*infer.BusyError](err); busy {
			return budget.Footprint{}, err
		}
		return budget.Footprint{}, e.contextError(err)
	}
	return l.footprint(), nil
}

// Narrow tells the scheduler, and those to come.
func (e *Engine) Narrow(_ context.Context, width int) error {
	e.setting.Lock()
	defer e.setting.Unlock()
	if e.lib == nil {
		return infer.ErrNotOpen
	}
	e.width = width
	e.mu.Lock()
	l := e.model
	e.mu.Unlock()
	if l != nil {
		l.sched.Narrow(width)
	}
	return nil
}

// load loads the model. setting is held.
func (e *Engine) load(shape infer.Shape) (budget.Footprint, error) {
	if e.dry != nil {
		err := errors.Join(e.computeLine(shape), e.dry.Close())
		e.dry = nil
		e.lib.Trim() // what the dry runs had would be counted beside the model
		if err != nil {
			return budget.Footprint{}, err
		}
	}
	l, err := e.start(shape)
	if err != nil {
		return budget.Footprint{}, err
	}
	l.sched.Narrow(e.width)
	e.set(l, false)
	return l.footprint(), nil
}

// unload frees the model, and has jobs wait from then on. setting is held.
func (e *Engine) unload(shape infer.Shape) error {
	e.mu.Lock()
	l := e.model
	if e.jobs > 0 {
		defer e.mu.Unlock()
		return &infer.BusyError{Jobs: e.jobs, Shape: shape}
	}
	e.mu.Unlock()
	e.set(nil, true)
	if l == nil {
		return nil
	}
	err := l.close()
	e.lib.Trim()
	return err
}

// set changes what jobs find.
func (e *Engine) set(l *loaded, unloaded bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.model, e.unloaded = l, unloaded
	close(e.changed)
	e.changed = make(chan struct{})
}

// Generate runs one job.
func (e *Engine) Generate(ctx context.Context, req infer.Request) (*infer.Output, error) {
	l, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer e.leave()
	if err := e.supports(req.Job); err != nil {
		return nil, err
	}
	if req.Job.URL == api.Embeddings {
		texts, err := l.texts(req.Job.Input)
		if err != nil {
			return nil, err
		}
		return l.sched.Embed(ctx, req, texts)
	}
	prompt, err := l.prompt(req.Job)
	if err != nil {
		return nil, err
	}
	return l.sched.Submit(ctx, req, prompt, l.longest)
}

// supports refuses what this device or these settings cannot give.
func (e *Engine) supports(job *api.Request) error {
	switch {
	case job.Reproducible && job.URL != api.Embeddings && e.size.NoExact != nil:
		return &infer.RequestError{
			Param: "reproducible", Message: "reproducible: it is not promised here: " + e.size.NoExact.Error(),
			Advice: "send the job to a worker on a CPU, with --cache-type-v f16 if the model has a state, or leave out reproducible",
		}
	case unknownToken(job.Sampling.LogitBias, e.facts.Vocabulary) >= 0:
		return &infer.RequestError{
			Param: "logit_bias",
			Message: fmt.Sprintf("logit_bias: token %d is not one of this model's, which are 0 to %d",
				unknownToken(job.Sampling.LogitBias, e.facts.Vocabulary), e.facts.Vocabulary-1),
			Advice: "take the ids from this model's tokenizer",
		}
	case job.Parallel != nil && e.size.NoSets != nil:
		return &infer.RequestError{
			Param: "tempo.selection_threshold", Message: "this model cannot have several tokens at one position: " + e.size.NoSets.Error(),
			Advice: "name a model without a recurrent state, or leave out tempo",
		}
	case job.Parallel != nil && job.Parallel.Removal != nil && e.size.NoRemoval != nil:
		return &infer.RequestError{
			Param: "tempo.retroactive_removal", Message: "nothing can be removed retroactively here: " + e.size.NoRemoval.Error(),
			Advice: "leave out retroactive_removal, or send the job to a worker with another model or --cache-type-v f16",
		}
	case job.URL == api.Embeddings && e.size.NoVectors != nil:
		return &infer.RequestError{
			Param: "model", Message: "this model gives no embeddings: " + e.size.NoVectors.Error(),
			Advice: "name a model for embeddings",
		}
	}
	return nil
}

// unknownToken is the first token of bias that a vocabulary of so many has not, -1 if it
// has all.
func unknownToken(bias map[int32]float64, vocabulary int) int32 {
	for _, t := range slices.Sorted(maps.Keys(bias)) {
		if int(t) >= vocabulary {
			return t
		}
	}
	return -1
}

// StepTimes are the scheduler's; zeros while nothing is loaded.
func (e *Engine) StepTimes() (steps int64, decode, outside time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.model == nil {
		return 0, 0, 0
	}
	return e.model.sched.StepTimes()
}

// begin waits until there is a model, which stays until leave is called.
func (e *Engine) begin(ctx context.Context) (*loaded, error) {
	for waited := false; ; waited = true {
		e.mu.Lock()
		l, unloaded, changed := e.model, e.unloaded, e.changed
		if l != nil {
			e.jobs++
			e.running.Add(1)
		}
		e.mu.Unlock()
		switch {
		case l != nil:
			return l, nil
		case !unloaded && waited:
			return nil, infer.ErrStopped
		case !unloaded:
			return nil, infer.ErrNotOpen
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (e *Engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs--
	e.running.Done()
}

// Close ends the running jobs and frees everything.
func (e *Engine) Close() error {
	e.setting.Lock()
	defer e.setting.Unlock()
	e.mu.Lock()
	l := e.model
	e.mu.Unlock()
	e.set(nil, false)
	var errs []error
	if l != nil {
		l.end()
		e.running.Wait() // they may still tokenize
		errs = append(errs, l.close())
	}
	if e.dry != nil {
		errs = append(errs, e.dry.Close())
	}
	e.lib, e.dry = nil, nil
	return errors.Join(errs...)
}
