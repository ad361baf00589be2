package api

// Request is the body of a job after checking: what the engine is to do.
type Request struct {
	URL      string
	Model    string    // as the body names it; "" if it does not
	Messages []Message // ChatCompletions
	Prompt   string    // Completions
	// MaxTokens bounds the generated tokens; 0 means as many as the context allows.
	MaxTokens int
	Stop      []string // at most 4, none empty
	Sampling  Sampling
}

// Message is one turn of a chat.
type Message struct {
	Role    string `json:"role"` // system, developer, user or assistant
	Content string `json:"content"`
	Name    string `json:"name,omitempty"`
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
}

// DefaultSampling is what holds when a body says nothing.
func DefaultSampling() Sampling {
	return Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1}
}
