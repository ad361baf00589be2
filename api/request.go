package api

import (
	"encoding/json"
	"time"
)

// Request is the body of a job after checking: what the engine is to do.
type Request struct {
	URL      string
	Model    string    // as the body names it; "" if it does not
	Messages []Message // ChatCompletions
	// Tools are the functions that the model may call, as the body has them: a JSON
	// array for the model's chat template; nil = none.
	Tools  json.RawMessage `json:",omitempty"`
	Prompt string          // Completions
	Input  []string        // Embeddings: one text or more, none empty
	// Base64 has embeddings written as base64 of little-endian 32-bit floats, not as
	// numbers (encoding_format).
	Base64 bool
	// MaxTokens bounds the generated tokens; 0 means as many as the context allows.
	MaxTokens int
	Stop      []string // at most 4, none empty
	// IgnoreEOS goes on where the model would end its answer, so that it has MaxTokens
	// tokens (llama.cpp's and vLLM's extra, for measurements).
	IgnoreEOS bool
	N         int // answers to the same prompt, 1 to 128
	// Logprobs asks for the log probability of each generated token, and TopLogprobs
	// (0 to 20) for those of so many most likely ones beside it.
	Logprobs    bool
	TopLogprobs int
	// Echo repeats the prompt before the answer (Completions).
	Echo bool
	// Grammar bounds the answer, in GBNF; Schema does as JSON Schema ({} = any JSON
	// object). At most one of them is set.
	Grammar string
	Schema  json.RawMessage `json:",omitempty"`
	// Reproducible asks for the same answer bit for bit whatever else runs.
	Reproducible bool
	// Timeout bounds the time from when the job first joins the batch; 0 = none.
	Timeout  time.Duration
	Sampling Sampling
	Parallel *Parallel `json:",omitempty"` // nil = one token at each position
}

// Message is one turn of a chat.
type Message struct {
	Role    string `json:"role"` // system, developer, user, assistant or tool
	Content string `json:"content"`
	Name    string `json:"name,omitempty"`
	// ToolCalls are an assistant's calls, as the body has them: a JSON array; nil = none.
	ToolCalls json.RawMessage `json:"tool_calls,omitempty"`
	// ToolCallID is the call that a tool's message answers.
	ToolCallID string `json:"tool_call_id,omitempty"`
}

// Sampling says how the next token is chosen. DefaultSampling has OpenAI's
// defaults; the others stand for "off".
type Sampling struct {
	Temperature      float64 // 0 (greedy) to 2
	TopP             float64 // over 0, up to 1
	TopK             int     // 0 = off
	MinP             float64 // 0 (off) to 1
	Seed             *uint32 // nil = derived from the job's id, so that a second attempt repeats the first
	PresencePenalty  float64 // -2 to 2
	FrequencyPenalty float64 // -2 to 2
	RepeatPenalty    float64 // over 0; 1 = off
	// LogitBias is added to the logits of tokens, -100 to 100 each; -100 bans one.
	LogitBias map[int32]float64 `json:",omitempty"`
}

// DefaultSampling is what holds when a body says nothing.
func DefaultSampling() Sampling {
	return Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1}
}
