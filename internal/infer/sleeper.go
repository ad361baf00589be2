package infer

import (
	"context"
	"fmt"
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

	mu    sync.Mutex
	life  context.Context    //nolint:containedctx // from Open to Close; nil = not open; guarded by mu
	end   context.CancelFunc // ends life; guarded by mu
	shape Shape              // zero before Load; guarded by mu
}

var _ Engine = (*Sleeper)(nil)

// bytesPerCell is what a Sleeper says that a KV token costs.
const bytesPerCell = 1024

// Open notes that the engine is open.
func (s *Sleeper) Open(context.Context, Spec) (Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, s.end = context.WithCancel(context.Background())
	return Facts{Context: s.context(), Vocabulary: 1}, nil
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
	f, err := s.DryRun(ctx, shape)
	if err != nil {
		return f, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shape = shape
	return f, nil
}

// Generate answers with the prompt, cut to the job's max_tokens words.
func (s *Sleeper) Generate(ctx context.Context, req Request) (*Output, error) {
	s.mu.Lock()
	life, limit := s.life, min(s.context(), s.shape.Cells)
	s.mu.Unlock()
	if life == nil || limit == 0 {
		return nil, ErrNotOpen
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)() //nolint:contextcheck // the engine's own, from Open to Close
	out, err := s.run(ctx, req, limit)
	if err != nil && life.Err() != nil {
		return nil, ErrStopped
	}
	return out, err
}

// run answers a job of at most limit tokens.
func (s *Sleeper) run(ctx context.Context, req Request, limit int) (*Output, error) {
	words, err := words(req.Job, limit)
	if err != nil {
		return nil, err
	}
	made, reason := len(words), "stop"
	if n := limit - len(words); made > n {
		made, reason = n, "length"
	}
	if n := req.Job.MaxTokens; n > 0 && made > n {
		made, reason = n, "length"
	}
	if need := len(words) + made; req.Lease.Tokens() < need {
		if err := req.Lease.Resize(ctx, 0, need); err != nil {
			return nil, err
		}
	}
	started := time.Now()
	if s.Delay != nil {
		timer := time.NewTimer(s.Delay(req))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &Output{
		Text: strings.Join(words[:made], " "), FinishReason: reason,
		PromptTokens: len(words), CompletionTokens: made, Started: started, Decode: time.Since(started),
	}, nil
}

// words takes a job's prompt apart, which must have fewer than limit words.
func words(job *api.Request, limit int) ([]string, error) {
	prompt, param := job.Prompt, "prompt"
	if job.URL == api.ChatCompletions {
		param = "messages"
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
	s.life, s.end, s.shape = nil, nil, Shape{}
	return nil
}
