package infer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tempo/api"
	"tempo/internal/budget"
)

// Sleeper is an Engine without a model: it answers each job after Delay, with
// the job's prompt in words for tokens. It keeps to the seam in everything, so
// that queues, workers and hosts can be tested at rates that no model reaches.
type Sleeper struct {
	// Delay is how long a job takes; nil = no time.
	Delay func(Request) time.Duration
	// ContextTokens is the longest job; 0 = 1024.
	ContextTokens int

	mu      sync.Mutex
	life    context.Context    //nolint:containedctx // from Open to Close; nil = not open; guarded by mu
	end     context.CancelFunc // ends life; guarded by mu
	shape   Shape              // empty before Load and while unloaded; guarded by mu
	loaded  bool               // Load was called; guarded by mu
	changed chan struct{}      // closed and replaced when shape changes; nil before Open; guarded by mu
	width   int                // see Narrow; guarded by mu
	jobs    int                // in Generate, not waiting for a shape; guarded by mu
	asleep  map[*Request]bool  // those of them that have their memory; guarded by mu
}

var _ Engine = (*Sleeper)(nil)

// bytesPerCell is what a Sleeper says that a KV token costs.
const bytesPerCell = 1024

// Open notes that the engine is open.
func (s *Sleeper) Open(context.Context, Spec) (Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, s.end = context.WithCancel(context.Background())
	s.changed, s.asleep = make(chan struct{}), map[*Request]bool{}
	return Facts{Context: s.context(), Vocabulary: 1, Embedding: 1}, nil
}

func (s *Sleeper) context() int {
	if s.ContextTokens == 0 {
		return 1024
	}
	return s.ContextTokens
}

// DryRun says what Load would: a KiB for each cell.
func (s *Sleeper) DryRun(_ context.Context, shape Shape) (budget.Footprint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil {
		return budget.Footprint{}, ErrNotOpen
	}
	return budget.Footprint{KVCache: budget.Bytes(shape.Cells * bytesPerCell)}, nil
}

// Load notes the shape.
func (s *Sleeper) Load(ctx context.Context, shape Shape) (budget.Footprint, error) {
	return s.Reshape(ctx, shape)
}

// Reshape notes the shape, if the jobs that sleep have no more than it has. How many
// sleep at a time is bounded by their memory alone otherwise.
func (s *Sleeper) Reshape(ctx context.Context, shape Shape) (budget.Footprint, error) {
	f, err := s.DryRun(ctx, shape)
	if err != nil {
		return f, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	jobs, cells := len(s.asleep), 0
	for r := range s.asleep {
		cells += r.Lease.Tokens()
	}
	if shape.Empty() {
		jobs = s.jobs
	}
	if jobs > shape.Sequences || cells > shape.Cells {
		return budget.Footprint{}, &BusyError{Jobs: jobs, Cells: cells, Shape: shape}
	}
	s.shape, s.loaded = shape, true
	close(s.changed)
	s.changed = make(chan struct{})
	return f, nil
}

// Narrow notes the width, which changes nothing: no job has more than one token at a position.
func (s *Sleeper) Narrow(_ context.Context, width int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil {
		return ErrNotOpen
	}
	s.width = width
	return nil
}

// Width is the last that Narrow was called with.
func (s *Sleeper) Width() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width
}

// Generate answers with the prompt, cut to the job's max_tokens words.
func (s *Sleeper) Generate(ctx context.Context, req Request) (*Output, error) {
	life, pool, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	out, err := s.run(ctx, req, pool)
	if err != nil && life.Err() != nil {
		return nil, ErrStopped
	}
	return out, err
}

// begin waits until there is a pool, and returns its size.
func (s *Sleeper) begin(ctx context.Context) (life context.Context, pool int, err error) {
	for {
		s.mu.Lock()
		life, shape, loaded, changed := s.life, s.shape, s.loaded, s.changed
		if !shape.Empty() {
			s.jobs++
		}
		s.mu.Unlock()
		switch {
		case !shape.Empty():
			return life, shape.Cells, nil
		case !loaded:
			return nil, 0, ErrNotOpen
		}
		select {
		case <-changed:
		case <-life.Done():
			return nil, 0, ErrStopped
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (s *Sleeper) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs--
}

// run answers a job in a pool of so many tokens.
func (s *Sleeper) run(ctx context.Context, req Request, pool int) (*Output, error) {
	words, err := words(req.Job, s.context())
	if err != nil {
		return nil, err
	}
	if len(words) >= pool {
		return nil, &PoolError{Need: len(words) + 1, Have: pool}
	}
	made, reason := len(words), "stop"
	if n := min(pool, s.context()) - len(words); made > n {
		made, reason = n, "length"
	}
	if n := req.Job.MaxTokens; n > 0 && made > n {
		made, reason = n, "length"
	}
	need := len(words) + made
	if req.Lease.Tokens() < need {
		if err := req.Lease.Resize(ctx, 0, need); err != nil {
			return nil, err
		}
	}
	started := time.Now()
	if s.Delay != nil {
		if err := s.sleep(ctx, &req, need); err != nil {
			return nil, err
		}
	}
	if req.Job.URL == api.Embeddings {
		return &Output{
			Embeddings:   slices.Repeat([][]float32{{1}}, len(req.Job.Input)),
			PromptTokens: len(words), Started: started, Decode: time.Since(started),
		}, nil
	}
	n := max(req.Job.N, 1)
	return &Output{
		Choices:      slices.Repeat([]Choice{{Text: strings.Join(words[:made], " "), FinishReason: reason, Tokens: made}}, n),
		PromptTokens: len(words), CompletionTokens: n * made, Started: started, Decode: time.Since(started),
	}, nil
}

// sleep takes a job's time. If its memory is wanted back meanwhile, it is given up
// and taken anew.
func (s *Sleeper) sleep(ctx context.Context, req *Request, need int) error {
	timer := time.NewTimer(s.Delay(*req))
	defer timer.Stop()
	for {
		s.inPool(req, true)
		select {
		case <-timer.C:
			s.inPool(req, false)
			return nil
		case <-req.Lease.Reclaim():
			s.inPool(req, false)
			if err := req.Lease.Resize(ctx, 0, need); err != nil {
				return err
			}
		case <-ctx.Done():
			s.inPool(req, false)
			return ctx.Err()
		}
	}
}

// inPool notes whether a job has its memory.
func (s *Sleeper) inPool(req *Request, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.asleep, req); is {
		s.asleep[req] = true
	}
}

// words takes a job's prompt apart, which must have fewer than limit words.
func words(job *api.Request, limit int) ([]string, error) {
	prompt, param := job.Prompt, "prompt"
	if job.URL == api.ChatCompletions {
		param = "messages"
	}
	if job.URL == api.Embeddings {
		prompt, param = strings.Join(job.Input, " "), "input"
	}
	for _, m := range job.Messages {
		prompt = strings.TrimSpace(prompt + " " + m.Content)
	}
	if strings.ContainsRune(prompt, 0) {
		return nil, &RequestError{Param: param, Message: param + " has a NUL character", Advice: "remove the character"}
	}
	list := strings.Fields(prompt)
	if len(list) == 0 || len(list) >= limit {
		return nil, &RequestError{
			Param: param, Message: fmt.Sprintf("%s has %d words, allowed are 1 to %d", param, len(list), limit-1),
			Advice: "change its length",
		}
	}
	return list, nil
}

// Close ends the running jobs and forgets the model.
func (s *Sleeper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end()
	}
	s.life, s.end, s.shape, s.loaded = nil, nil, Shape{}, false
	return nil
}
