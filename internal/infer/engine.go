package infer

import (
	"context"
	"time"

	"tempo/api"
	"tempo/internal/budget"
)

// Engine generates text with one model on one device. The calls come in the
// order Open, DryRun as often as wanted, Load, Generate; Generate may be called
// from many goroutines at once.
type Engine interface {
	// Open reads what the model is, without its weights.
	Open(ctx context.Context, spec Spec) (Facts, error)
	// DryRun returns the memory that Load would take for shape, before anything
	// is allocated. It takes milliseconds.
	DryRun(ctx context.Context, shape Shape) (budget.Footprint, error)
	// Load allocates shape, runs its worst case once, and returns what was
	// really allocated.
	Load(ctx context.Context, shape Shape) (budget.Footprint, error)
	// Generate runs one job to its end. It never uses more KV tokens than
	// req.Lease has. It returns *RequestError if the job itself is at fault,
	// *DiedError if the engine died under it, the error of req.Lease.Resize if
	// memory was refused, and ctx's error if ctx is done.
	Generate(ctx context.Context, req Request) (*Output, error)
	// Close ends the engine, also one that is stuck in a step, and gives its memory
	// back. It may be called at any time, also while others call Generate.
	Close() error
}

// Spec says which model to open and with what.
type Spec struct {
	Model   string `json:"model"`   // path of the GGUF file
	LibDir  string `json:"lib_dir"` // directory of llama.cpp's libraries
	GPU     int    `json:"gpu"`     // index of the CUDA device, -1 = CPU
	Threads int    `json:"threads"` // CPU threads that decode
	Batch   int    `json:"batch"`   // most tokens in one decode step
	Context int    `json:"context"` // longest job in tokens, 0 = what the model was trained for
}

// Facts are what Open found.
type Facts struct {
	Context    int          `json:"context"`    // longest job in tokens, prompt and output
	Vocabulary int          `json:"vocabulary"` // tokens
	Weights    budget.Bytes `json:"weights"`    // bytes of the tensors
	// Process is what the engine's process holds before anything is loaded, in
	// bytes of proportional set size.
	Process budget.Bytes `json:"process"`
}

// Shape is how much an engine can take at once.
type Shape struct {
	Sequences int `json:"sequences"` // jobs in the batch
	Cells     int `json:"cells"`     // KV tokens of all of them together
}

// Request is one job for an engine.
type Request struct {
	ID    string // for messages; two that run at the same time may have the same
	Job   *api.Request
	Seed  uint32 // used if the job names none
	Lease Lease
}

// Lease is a job's claim on the KV pool, in tokens. The engine never puts more
// tokens of the job into the pool than Tokens returns.
type Lease interface {
	// Tokens is what the job may use now.
	Tokens() int
	// Resize asks for n tokens in all and blocks until they are there. Fewer
	// tokens than before are granted at once. used is how many tokens of the job
	// are in the pool: while it is 0 the lease may be given up and taken anew.
	// An error ends the job; the engine returns it from Generate.
	Resize(ctx context.Context, used, n int) error
}

// Output is what a job generated.
type Output struct {
	Text             string        `json:"text"`
	FinishReason     string        `json:"finish_reason"` // "stop" or "length"
	PromptTokens     int           `json:"prompt_tokens"`
	CompletionTokens int           `json:"completion_tokens"`
	CachedTokens     int           `json:"cached_tokens"`
	Started          time.Time     `json:"started"` // when its prefill began
	Prefill          time.Duration `json:"prefill"` // from there to the first token
	Decode           time.Duration `json:"decode"`  // from there to the last
}
