package api

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const weather = `[{"type":"function","function":{"name":"get_weather","description":"d","parameters":{"type":"object"},"strict":false}}]`

// everyField has a value for each field that a chat can have, but those that rule
// each other out.
const everyField = `{
	"model": "m", "max_tokens": 5 , "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 40,
	"min_p": 0.05, "seed": 7, "stop": ["a", "b"], "presence_penalty": -1, "frequency_penalty": 2,
	"repeat_penalty": 1.1, "user": "", "metadata": {"a": "b"}, "logit_bias": {"5": -100, "0": 1.5}, "n": 3, "best_of": 3,
	"logprobs": true, "top_logprobs": 20, "grammar": "root ::= \"a\"", "tools": ` + weather + `, "tool_choice": "auto",
	"parallel_tool_calls": true, "reproducible": true, "timeout": 1.5, "tempo": {},
	"messages": [
		{"role": "system", "content": "Be brief.", "name": "boss"},
		{"role": "developer", "content": ""},
		{"role": "user", "content": [{"type": "text", "text": "one"}, {"text": "two", "type": "text"}]},
		{"role": "assistant", "content": "three", "refusal": null, "tool_calls": [], "annotations": []},
		{"role": "assistant", "content": null, "tool_calls": [{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},
		{"role": "tool", "content": "4", "tool_call_id": "1", "name": "f"},
		{"role": "assistant", "tool_calls": [{"id":"2","type":"function","function":{"name":"f","arguments":{"a":1}}}]}
	]}`

func everyRequest() *Request {
	seed := uint32(7)
	return &Request{
		URL: ChatCompletions, Model: "m", MaxTokens: 5, Stop: []string{"a", "b"}, N: 3,
		Messages: []Message{
			{Role: "system", Content: "Be brief.", Name: "boss"},
			{Role: "developer"},
			{Role: "user", Content: "one\ntwo"},
			{Role: "assistant", Content: "three"},
			{Role: "assistant", ToolCalls: json.RawMessage(`[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]`)},
			{Role: "tool", Content: "4", ToolCallID: "1", Name: "f"},
			{Role: "assistant", ToolCalls: json.RawMessage(`[{"id":"2","type":"function","function":{"name":"f","arguments":{"a":1}}}]`)},
		},
		Tools: json.RawMessage(weather), Logprobs: true, TopLogprobs: 20, Grammar: `root ::= "a"`,
		Reproducible: true, Timeout: 1500 * time.Millisecond,
		Sampling: Sampling{
			Temperature: 0.5, TopP: 0.9, TopK: 40, MinP: 0.05, Seed: &seed,
			PresencePenalty: -1, FrequencyPenalty: 2, RepeatPenalty: 1.1, LogitBias: map[int32]float64{5: -100, 0: 1.5},
		},
	}
}

func TestParseRequestEveryField(t *testing.T) {
	t.Parallel()
	req, err := ParseRequest(ChatCompletions, []byte(everyField))
	require.NoError(t, err)
	require.Equal(t, everyRequest(), req)
}

// A request goes to the engine's process as JSON, and must come there as it is.
func TestRequestKeepsItsJSON(t *testing.T) {
	t.Parallel()
	schema := everyRequest()
	schema.Grammar, schema.Tools, schema.Schema, schema.Sampling = "", nil, json.RawMessage(`{"type":"object"}`), DefaultSampling()
	embeddings, err := ParseRequest(Embeddings, []byte(`{"input":["a","b"],"encoding_format":"base64"}`))
	require.NoError(t, err)
	completion, err := ParseRequest(Completions, []byte(`{"prompt":"x","echo":true,"ignore_eos":true}`))
	require.NoError(t, err)
	for _, want := range []*Request{everyRequest(), schema, embeddings, completion} {
		raw, err := json.Marshal(want)
		require.NoError(t, err)
		got := new(Request)
		require.NoError(t, json.Unmarshal(raw, got))
		require.Equal(t, want, got)
	}
}

func TestParseRequestCompletions(t *testing.T) {
	t.Parallel()
	req, err := ParseRequest(Completions, []byte(
		`{"prompt":"The cat","max_completion_tokens":3,"stop":"\n","top_k":-1,"logprobs":0,"n":2,"best_of":2,"ignore_eos":true}`))
	require.NoError(t, err)
	require.Equal(t, &Request{
		URL: Completions, Prompt: "The cat", MaxTokens: 3, Stop: []string{"\n"}, Logprobs: true, N: 2, IgnoreEOS: true,
		Sampling: DefaultSampling(),
	}, req)

	req, err = ParseRequest(Completions, []byte(`{"prompt":"x","echo":true,"response_format":{"type":"json_object"}}`))
	require.NoError(t, err)
	require.True(t, req.Echo)
	require.JSONEq(t, `{}`, string(req.Schema))
	require.False(t, req.Logprobs)

	req, err = ParseRequest(Completions, []byte(`{"prompt":"x","logprobs":20}`))
	require.NoError(t, err)
	require.Equal(t, 20, req.TopLogprobs)
}

func TestParseRequestEmbeddings(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]Request{
		`{"input":"a","model":"m","user":"u"}`:         {Model: "m", Input: []string{"a"}},
		`{"input":["a","b"]}`:                          {Input: []string{"a", "b"}},
		`{"input":"a","encoding_format":"float"}`:      {Input: []string{"a"}},
		`{"input":"a","encoding_format":"base64"}`:     {Input: []string{"a"}, Base64: true},
		`{"input":"a","reproducible":false}`:           {Input: []string{"a"}},
		`{"input":"a","timeout":604800,"metadata":{}}`: {Input: []string{"a"}, Timeout: 7 * 24 * time.Hour},
	} {
		want.URL, want.N, want.Sampling = Embeddings, 1, DefaultSampling()
		req, err := ParseRequest(Embeddings, []byte(body))
		require.NoError(t, err, body)
		require.Equal(t, &want, req, body)
	}
}

func TestParseRequestResponseFormat(t *testing.T) {
	t.Parallel()
	for format, schema := range map[string]string{
		`{"type":"json_object"}`: `{}`,
		`{"type":"json_schema","json_schema":{"name":"a-B_9","schema":{"type":"array"}}}`:                           `{"type":"array"}`,
		`{"json_schema":{"name":"x","strict":true,"description":"d","schema":{}},"type":"json_schema"}`:             `{}`,
		`{"type":"json_schema","json_schema":{"name":"x","strict":null,"description":null,"schema":{"const":"a"}}}`: `{"const":"a"}`,
	} {
		req, err := ParseRequest(ChatCompletions, []byte(`{`+hello+`,"response_format":`+format+`}`))
		require.NoError(t, err, format)
		require.Equal(t, schema, string(req.Schema), format)
	}
}

func TestParseRequestLogitBias(t *testing.T) {
	t.Parallel()
	for bias, want := range map[string]map[int32]float64{
		`{"50256":-100,"7":0.5}`:           {50256: -100, 7: 0.5},
		`{"2147483647":100}`:               {2147483647: 100},
		`[[15043,1.5],[7,false],[0,-100]]`: {15043: 1.5, 7: -100, 0: -100},
	} {
		req, err := ParseRequest(Completions, []byte(`{"prompt":"x","logit_bias":`+bias+`}`))
		require.NoError(t, err, bias)
		require.Equal(t, want, req.Sampling.LogitBias, bias)
	}
	pairs := make([]string, 1024)
	for i := range pairs {
		pairs[i] = fmt.Sprintf(`"%d":1`, i)
	}
	req, err := ParseRequest(Completions, []byte(`{"prompt":"x","logit_bias":{`+strings.Join(pairs, ",")+`}}`))
	require.NoError(t, err)
	require.Len(t, req.Sampling.LogitBias, 1024)
	requireFault(t, Completions, `{"prompt":"x","logit_bias":{"5000":1,`+strings.Join(pairs, ",")+`}}`,
		"logit_bias", "1025 tokens", "up to 1024")
}

func TestParseRequestTools(t *testing.T) {
	t.Parallel()
	for choice, want := range map[string]string{``: weather, `,"tool_choice":"auto"`: weather, `,"tool_choice":"none"`: ``, `,"tool_choice":null`: weather} {
		req, err := ParseRequest(ChatCompletions, []byte(`{`+hello+`,"tools":`+weather+choice+`}`))
		require.NoError(t, err, choice)
		require.Equal(t, want, string(req.Tools), choice)
	}
	// What a call could not stand beside is no matter where none is made.
	_, err := ParseRequest(ChatCompletions, []byte(
		`{`+hello+`,"tools":`+weather+`,"tool_choice":"none","response_format":{"type":"json_object"},"parallel_tool_calls":false}`))
	require.NoError(t, err)
}

// The manual has every field that is read or refused by name.
func TestManualHasEveryField(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../docs/requests.md")
	require.NoError(t, err)
	for _, url := range []string{ChatCompletions, Completions, Embeddings} {
		for _, name := range accepted(url) {
			require.Contains(t, string(manual), "`"+name+"`", url)
		}
	}
	for name := range strings.FieldsSeq("stream store functions function_call suffix modalities service_tier reasoning_effort " +
		"stream_options audio prediction verbosity web_search_options prompt_cache_key safety_identifier dimensions tempo") {
		_, chat := neutral(ChatCompletions, name)
		_, embeddings := neutral(Embeddings, name)
		require.True(t, chat || embeddings, name)
		require.Contains(t, string(manual), "`"+name+"`")
	}
}

// What is read from a body is within the bounds that the fields' comments promise.
func FuzzParseRequest(f *testing.F) {
	f.Add(`{` + hello + `,"max_tokens":5}`)
	f.Add(`{"prompt":"x","stop":["a"],"echo":true,"timeout":1e-300}`)
	f.Add(`{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}`)
	f.Add(`{"input":["a"],"encoding_format":"base64"}`)
	f.Add(`{"prompt":"x","logit_bias":[[5,false]],"n":2,"best_of":2,"logprobs":3}`)
	f.Add(everyField)
	f.Add(`{"prompt":"x","max_tokens":9,"tempo":{"selection_threshold":0.1,"min_steps":9,"dynamic_threshold":{"curve":"relu"},"retroactive_removal":{"window":1}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, url := range []string{ChatCompletions, Completions, Embeddings} {
			req, err := ParseRequest(url, []byte(body))
			if err != nil {
				continue
			}
			require.True(t, len(req.Messages) > 0 || req.Prompt != "" || len(req.Input) > 0)
			require.GreaterOrEqual(t, req.MaxTokens, 0)
			require.LessOrEqual(t, len(req.Stop), 4)
			require.True(t, req.N >= 1 && req.N <= 128)
			require.True(t, req.TopLogprobs >= 0 && req.TopLogprobs <= 20)
			require.True(t, req.Timeout >= 0 && req.Timeout <= 7*24*time.Hour)
			require.LessOrEqual(t, len(req.Sampling.LogitBias), 1024)
			require.False(t, req.Grammar != "" && req.Schema != nil)
			if p := req.Parallel; p != nil {
				require.True(t, p.Threshold > 0 && p.Threshold <= 1)
				require.True(t, p.MaxTokens >= 0 && p.MaxTokens <= 256)
				require.True(t, p.Dynamic == nil || req.MaxTokens > 0)
				require.True(t, req.N == 1 && !req.Logprobs && !req.Reproducible && req.Sampling.Temperature > 0)
			}
			raw, err := json.Marshal(req)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(raw, new(Request)))
		}
	})
}
