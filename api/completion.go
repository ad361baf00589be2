package api

import "encoding/json"

// Completion is the body of an answer, of /v1/chat/completions
// (Object "chat.completion") or of /v1/completions ("text_completion").
type Completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"` // Unix seconds
	Model   string   `json:"model"`
	Choices []Choice `json:"choices"` // as many as the job asked for (n)
	Usage   Usage    `json:"usage"`
}

// Choice is one generated answer.
type Choice struct {
	Index        int            `json:"index"`             // from 0
	Message      *AnswerMessage `json:"message,omitempty"` // chat completions
	Text         *string        `json:"text,omitempty"`    // completions
	Logprobs     *Logprobs      `json:"logprobs"`          // nil = not asked for
	FinishReason string         `json:"finish_reason"`     // "stop", "length" or "tool_calls"
}

// AnswerMessage is the assistant's message of a chat completion.
type AnswerMessage struct {
	Role      string     `json:"role"`    // "assistant"
	Content   string     `json:"content"` // written as null if there are calls and nothing else
	Refusal   *string    `json:"refusal"`
	ToolCalls []ToolCall `json:"tool_calls,omitempty"`
}

// MarshalJSON writes the content as OpenAI does.
func (m AnswerMessage) MarshalJSON() ([]byte, error) {
	type plain AnswerMessage
	if m.Content != "" || len(m.ToolCalls) == 0 {
		return json.Marshal(plain(m)) //nolint:wrapcheck // strings only: cannot fail
	}
	return json.Marshal(struct { //nolint:wrapcheck // strings only: cannot fail
		Role      string     `json:"role"`
		Content   *string    `json:"content"`
		Refusal   *string    `json:"refusal"`
		ToolCalls []ToolCall `json:"tool_calls"`
	}{Role: m.Role, Refusal: m.Refusal, ToolCalls: m.ToolCalls})
}

// ToolCall is a call that the model wants made of one of the request's tools.
type ToolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"` // "function"
	Function FunctionCall `json:"function"`
}

// FunctionCall names a function and what to call it with.
type FunctionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"` // a JSON object, as the model wrote it
}

// Logprobs are the log probabilities of an answer's tokens, in the form of one of
// the endpoints; the other is nil.
type Logprobs struct {
	*ChatLogprobs
	*TextLogprobs
}

// ChatLogprobs is their form in chat completions.
type ChatLogprobs struct {
	Content []TokenLogprob `json:"content"`
	Refusal *string        `json:"refusal"`
}

// TokenLogprob is a generated token, and the likeliest ones in its place.
type TokenLogprob struct {
	TopLogprob
	TopLogprobs []TopLogprob `json:"top_logprobs"` // the likeliest first; empty = not asked for
}

// TopLogprob is a token and its log probability.
type TopLogprob struct {
	Token   string  `json:"token"`   // what is not whole in UTF-8 is written \xNN
	Logprob float32 `json:"logprob"` // natural logarithm; MinLogprob stands for less
	Bytes   []int   `json:"bytes"`   // of the token
}

// MinLogprob is OpenAI's value for a token that is very unlikely, or ruled out.
const MinLogprob = -9999

// TextLogprobs is their form in completions: lists of one length.
type TextLogprobs struct {
	Tokens        []string  `json:"tokens"` // what is not whole in UTF-8 is written bytes:\xNN
	TokenLogprobs []float32 `json:"token_logprobs"`
	// TopLogprobs has the likeliest tokens and the generated one; nil = not asked for.
	TopLogprobs []map[string]float32 `json:"top_logprobs"`
	// TextOffset is where a token begins, in characters (Unicode code points) from the
	// beginning of the prompt.
	TextOffset []int `json:"text_offset"`
}

// Usage counts tokens.
type Usage struct {
	PromptTokens        int                  `json:"prompt_tokens"`
	CompletionTokens    int                  `json:"completion_tokens"` // of all choices
	TotalTokens         int                  `json:"total_tokens"`
	PromptTokensDetails *PromptTokensDetails `json:"prompt_tokens_details,omitempty"`
}

// PromptTokensDetails splits PromptTokens.
type PromptTokensDetails struct {
	CachedTokens int `json:"cached_tokens"` // taken from the prefix cache, not decoded again
}
