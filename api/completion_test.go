package api

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireJSON checks that value is written as want, byte for byte, and that what is
// read of it is value again.
func requireJSON[T any](t *testing.T, want string, value T) {
	t.Helper()
	raw, err := json.Marshal(value)
	require.NoError(t, err)
	require.Equal(t, []byte(want), raw, "%s", raw)
	var got T
	require.NoError(t, json.Unmarshal(raw, &got))
	require.Equal(t, value, got)
}

// The forms are those of OpenAI's reference, with values like there.
func TestCompletionJSON(t *testing.T) {
	t.Parallel()
	text := "\n\nThis is indeed a test"
	for name, c := range map[string]struct {
		want string
		body Completion
	}{
		"a chat": {
			`{"id":"chatcmpl-123","object":"chat.completion","created":1677652288,"model":"m","choices":[` +
				`{"index":0,"message":{"role":"assistant","content":"Hello there, how may I assist you today?","refusal":null},` +
				`"logprobs":null,"finish_reason":"stop"}],` +
				`"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":0}}}`,
			Completion{
				ID: "chatcmpl-123", Object: "chat.completion", Created: 1677652288, Model: "m",
				Choices: []Choice{{Message: &AnswerMessage{Role: "assistant", Content: "Hello there, how may I assist you today?"}, FinishReason: "stop"}},
				Usage:   Usage{PromptTokens: 9, CompletionTokens: 12, TotalTokens: 21, PromptTokensDetails: &PromptTokensDetails{}},
			},
		},
		"a completion": {
			`{"id":"cmpl-1","object":"text_completion","created":1589478378,"model":"m","choices":[` +
				`{"index":0,"text":"\n\nThis is indeed a test","logprobs":null,"finish_reason":"length"}],` +
				`"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`,
			Completion{
				ID: "cmpl-1", Object: "text_completion", Created: 1589478378, Model: "m",
				Choices: []Choice{{Text: &text, FinishReason: "length"}},
				Usage:   Usage{PromptTokens: 5, CompletionTokens: 7, TotalTokens: 12},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireJSON(t, c.want, c.body)
		})
	}
}

func TestChoiceJSON(t *testing.T) {
	t.Parallel()
	calls := []ToolCall{{ID: "call_abc123", Type: "function", Function: FunctionCall{
		Name: "get_current_weather", Arguments: "{\n\"location\": \"Boston, MA\"\n}",
	}}}
	const callsJSON = `"tool_calls":[{"id":"call_abc123","type":"function",` +
		`"function":{"name":"get_current_weather","arguments":"{\n\"location\": \"Boston, MA\"\n}"}}]`
	text := ""
	hello := TopLogprob{Token: "Hello", Logprob: -0.31725305, Bytes: []int{72, 101, 108, 108, 111}}
	for name, c := range map[string]struct {
		want   string
		choice Choice
	}{
		"a call and nothing else": {
			`{"index":0,"message":{"role":"assistant","content":null,"refusal":null,` + callsJSON + `},"logprobs":null,"finish_reason":"tool_calls"}`,
			Choice{Message: &AnswerMessage{Role: "assistant", ToolCalls: calls}, FinishReason: "tool_calls"},
		},
		"a call with a text": {
			`{"index":1,"message":{"role":"assistant","content":"Let me see.","refusal":null,` + callsJSON + `},"logprobs":null,"finish_reason":"tool_calls"}`,
			Choice{Index: 1, Message: &AnswerMessage{Role: "assistant", Content: "Let me see.", ToolCalls: calls}, FinishReason: "tool_calls"},
		},
		"an empty answer": {
			`{"index":0,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"stop"}`,
			Choice{Message: &AnswerMessage{Role: "assistant"}, FinishReason: "stop"},
		},
		"a chat's log probabilities": {
			`{"index":0,"message":{"role":"assistant","content":"Hello","refusal":null},"logprobs":{"content":[` +
				`{"token":"Hello","logprob":-0.31725305,"bytes":[72,101,108,108,111],"top_logprobs":[` +
				`{"token":"Hello","logprob":-0.31725305,"bytes":[72,101,108,108,111]},` +
				`{"token":"Hi","logprob":-1.3190403,"bytes":[72,105]}]}],"refusal":null},"finish_reason":"stop"}`,
			Choice{
				Message: &AnswerMessage{Role: "assistant", Content: "Hello"}, FinishReason: "stop",
				Logprobs: &Logprobs{ChatLogprobs: &ChatLogprobs{Content: []TokenLogprob{{
					TopLogprob: hello, TopLogprobs: []TopLogprob{hello, {Token: "Hi", Logprob: -1.3190403, Bytes: []int{72, 105}}},
				}}}},
			},
		},
		"a completion's log probabilities": {
			`{"index":0,"text":"","logprobs":{"tokens":["a","b"],"token_logprobs":[-0.5,-9999],` +
				`"top_logprobs":[{"a":-0.5,"c":-1},{"b":-9999}],"text_offset":[7,8]},"finish_reason":"length"}`,
			Choice{Text: &text, FinishReason: "length", Logprobs: &Logprobs{TextLogprobs: &TextLogprobs{
				Tokens: []string{"a", "b"}, TokenLogprobs: []float32{-0.5, MinLogprob},
				TopLogprobs: []map[string]float32{{"c": -1, "a": -0.5}, {"b": MinLogprob}}, TextOffset: []int{7, 8},
			}}},
		},
		"a completion's without the likeliest": {
			`{"index":0,"text":"","logprobs":{"tokens":["a"],"token_logprobs":[-0.5],"top_logprobs":null,"text_offset":[0]},"finish_reason":"stop"}`,
			Choice{Text: &text, FinishReason: "stop", Logprobs: &Logprobs{TextLogprobs: &TextLogprobs{
				Tokens: []string{"a"}, TokenLogprobs: []float32{-0.5}, TextOffset: []int{0},
			}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireJSON(t, c.want, c.choice)
		})
	}
}

func TestEmbeddingListJSON(t *testing.T) {
	t.Parallel()
	usage := EmbeddingUsage{PromptTokens: 8, TotalTokens: 8}
	requireJSON(t, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023064255,-0.009327292,1]}],`+
		`"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		EmbeddingList{Object: ObjectList, Model: "m", Usage: usage, Data: []Embedding{
			{Object: "embedding", Embedding: Vector{Values: []float32{0.0023064255, -0.009327292, 1}}},
		}})
	// 1.0 and -2.0, little endian: 00 00 80 3f 00 00 00 c0.
	requireJSON(t, `{"object":"list","data":[{"object":"embedding","index":1,"embedding":"AACAPwAAAMA="}],`+
		`"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		EmbeddingList{Object: ObjectList, Model: "m", Usage: usage, Data: []Embedding{
			{Object: "embedding", Index: 1, Embedding: Vector{Values: []float32{1, -2}, Base64: true}},
		}})
}

func TestVectorFaults(t *testing.T) {
	t.Parallel()
	_, err := json.Marshal(Vector{Values: []float32{float32(math.NaN())}})
	require.Error(t, err)
	for _, bad := range []string{`"AAAA"`, `"AACAPw="`, `{}`, `["a"]`, `true`} {
		require.Error(t, json.Unmarshal([]byte(bad), new(Vector)), bad)
	}
}
