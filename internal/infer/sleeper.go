package infer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

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
	open  bool
	shape Shape
}

var _ Engine = (*Sleeper)(nil)

// bytesPerCell is what a Sleeper says that a KV token costs.
const bytesPerCell = 1024

// Open notes that the engine is open.
func (s *Sleeper) Open(context.Context, Spec) (Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	return Facts{Context: s.context(), Vocabulary: 1}, nil
}

func (s *Sleeper) context() int {
	if s.ContextTokens == 0 {
		return 1024
	}
	return s.ContextTokens
}

var errNotOpen = fmt.Errorf("the engine has no model open")

// DryRun says what Load would: a KiB for each cell.
func (s *Sleeper) DryRun(_ context.Context, shape Shape) (budget.Footprint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return budget.Footprint{}, errNotOpen
	}
	return budget.Footprint{KVCache: budget.Bytes(shape.Cells * bytesPerCell)}, nil
}

// Load notes the shape.
func (s *Sleeper) Load(ctx context.Context, shape Shape) (budget.Footprint, error) {
	f, err := s.DryRun(ctx, shape)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shape = shape
	return f, err
}

// Generate answers with the prompt, cut to the job's max_tokens words.
func (s *Sleeper) Generate(ctx context.Context, req Request) (*Output, error) {
	s.mu.Lock()
	loaded := s.open && s.shape.Cells > 0
	limit := min(s.context(), s.shape.Cells)
	s.mu.Unlock()
	if !loaded {
		return nil, errNotOpen
	}
	prompt := req.Job.Prompt
	for _, m := range req.Job.Messages {
		prompt = strings.TrimSpace(prompt + " " + m.Content)
	}
	words := strings.Fields(prompt)
	if len(words) == 0 || len(words) >= limit {
		return nil, &RequestError{
			Param: "prompt", Message: fmt.Sprintf("the prompt has %d words, allowed are 1 to %d", len(words), limit-1),
			Advice: "change its length",
		}
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

// Close forgets the model.
func (s *Sleeper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.shape = false, Shape{}
	return nil
}
