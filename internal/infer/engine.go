package infer

import (
	"context"
	"time"

	"tempo/api"
	"tempo/internal/budget"
)

// Engine generates text with one model on one device. The calls come in the
// order Open, DryRun as often as wanted, Load, then Generate and Reshape, in any
// order and from many goroutines at once.
type Engine interface {
	// Open reads what the model is, without its weights.
	Open(ctx context.Context, spec Spec) (Facts, error)
	// DryRun returns the memory that Load would take for shape, before anything
	// is allocated. It takes milliseconds.
	DryRun(ctx context.Context, shape Shape) (budget.Footprint, error)
	// Load allocates shape, runs its worst case once, and returns what was
	// really allocated.
	Load(ctx context.Context, shape Shape) (budget.Footprint, error)
	// Reshape changes the shape while jobs run, so that memory can be given back to
	// the device and be taken again; it returns what is really allocated then.
	// Nobody generates meanwhile, the running jobs notice nothing else. What they
	// have in the pool is in host memory for as long, beside the rest. It returns
	// *BusyError, and nothing has changed, if they use more than shape has. Before
	// the caller asks for less it must grant no leases beyond that any more. After
	// another error the engine is broken.
	//
	// An empty shape unloads: model and pool are freed, which no job may be in the
	// way of, and jobs that come then wait in Generate until a Reshape loads again.
	// Before Load it does what Load does.
	Reshape(ctx context.Context, shape Shape) (budget.Footprint, error)
	// Generate runs one job to its end. It never uses more KV tokens than
	// req.Lease has. It returns *RequestError if the job itself is at fault,
	// *PoolError if the pool is too small for it, *DiedError if the engine died under it, the error of req.Lease.Resize if
	// memory was refused, and ctx's error if ctx is done.
	Generate(ctx context.Context, req Request) (*Output, error)
	// Narrow bounds the tokens that a job may have at one position (api.Parallel), for all
	// jobs and from the next step on, also those that run; 0 = no bound any more. It is
	// what can be given up under pressure before a job is sent away. It may be called from
	// Open on, and holds for what is loaded later too.
	Narrow(ctx context.Context, width int) error
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
	// CacheTypeK and CacheTypeV are what keys and values are kept in, one of
	// CacheTypes; "" = f16.
	CacheTypeK string `json:"cache_type_k"`
	CacheTypeV string `json:"cache_type_v"`
	// Layout is how the KV cache is divided, one of Layouts; "" = auto.
	Layout string `json:"layout"`
}

// Layouts are the ways to divide the KV cache: by what the jobs need, into a stream of
// its own for each of them, or one pool for all.
func Layouts() []string { return []string{"auto", "streams", "unified"} }

// CacheTypes are the names, llama.cpp's, of what keys and values can be kept in.
func CacheTypes() []string {
	return []string{"bf16", "f16", "f32", "iq4_nl", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"}
}

// Facts are what Open found.
type Facts struct {
	Context    int          `json:"context"`    // longest job in tokens, prompt and output
	Vocabulary int          `json:"vocabulary"` // tokens
	Embedding  int          `json:"embedding"`  // numbers in the vector of a text
	Weights    budget.Bytes `json:"weights"`    // bytes of the tensors
	// Process is what the engine's process holds before anything is loaded, in
	// bytes of proportional set size.
	Process budget.Bytes `json:"process"`
}

// Shape is how much an engine can take at once.
type Shape struct {
	Sequences int `json:"sequences"` // jobs in the batch
	Cells     int `json:"cells"`     // KV tokens of all of them together
	// Ample is how many tokens a set might have, were there memory for as many; no more
	// than Sequences = as many as these. What a set lacks of it counts as cut by memory.
	Ample int `json:"ample,omitempty"`
	// Grant is the most that the engine's process may take in all, in bytes of
	// proportional set size; 0 = no bound. A Host has the kernel keep to it on a CPU.
	Grant budget.Bytes `json:"grant"`
}

// Empty reports whether nothing is loaded in this shape.
func (s Shape) Empty() bool { return s.Cells == 0 && s.Sequences == 0 }

// Request is one job for an engine.
type Request struct {
	ID   string // for messages; two that run at the same time may have the same
	Job  *api.Request
	Seed uint32 // used if the job names none
	// Priority orders the jobs that wait for room in the batch: the highest first, 0 is
	// the usual.
	Priority int
	// Most is how many tokens the sets of a job with several at one position (api.Parallel) may
	// have together, those that are removed again included, for there is memory for no larger
	// result; 0 = no bound. Sets get narrower before the answer ends there.
	Most  int
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
	// Reclaim is a channel, always the same, on which the owner of the memory sends
	// when it wants the job's tokens back for a while; nil = never. Between two
	// steps the engine takes what the job has in the pool into host memory (as many
	// bytes as there, 12 more for each token, 24 for each layer and 1 KiB) and calls
	// Resize with used = 0, which says that the pool's tokens are free. When that
	// returns nil the job goes on where it was.
	//
	// Each value received is answered by one such Resize, or by the end of the job;
	// while the job is in a Resize it is the next call. With a buffer of one and a
	// send that does not block none is lost: what is pending is still to be answered.
	Reclaim() <-chan struct{}
}

// Output is what a job generated.
type Output struct {
	Choices []Choice `json:"choices,omitempty"` // as many as the job asked for
	// Parallel is what a job with several tokens at one position came to, else nil.
	Parallel *api.ParallelResult `json:"parallel,omitempty"`
	// Embeddings has a vector for each text of the job's input, of length 1.
	Embeddings       [][]float32   `json:"embeddings,omitempty"`
	PromptTokens     int           `json:"prompt_tokens"`
	CompletionTokens int           `json:"completion_tokens"` // of all choices
	CachedTokens     int           `json:"cached_tokens"`     // of the prompt, not decoded for this job
	Started          time.Time     `json:"started"`           // when its prefill began
	Prefill          time.Duration `json:"prefill"`           // from there to the first token
	Decode           time.Duration `json:"decode"`            // from there to the last
}

// Text is the first choice's; "" if there is none.
func (o *Output) Text() string {
	if len(o.Choices) == 0 {
		return ""
	}
	return o.Choices[0].Text
}

// Choice is one answer to a job's prompt.
type Choice struct {
	Text         string `json:"text"`
	FinishReason string `json:"finish_reason"` // "stop" or "length"
	Tokens       int    `json:"tokens"`        // generated for this choice
	// Logprobs are those of the tokens whose text the answer has, in their order; nil
	// if the job did not ask for them.
	Logprobs []TokenLogprobs `json:"logprobs,omitempty"`
}

// TokenLogprobs is a generated token with its log probability in the model's own
// distribution, before any sampling parameter.
type TokenLogprobs struct {
	TokenLogprob
	Top []TokenLogprob `json:"top,omitempty"` // the most likely tokens, the likeliest first
}

// TokenLogprob is a token and the natural logarithm of its probability.
type TokenLogprob struct {
	Piece   []byte  `json:"piece"` // the token's bytes: not always whole UTF-8 sequences
	Logprob float32 `json:"logprob"`
}
