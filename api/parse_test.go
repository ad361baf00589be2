package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const hello = `"messages":[{"role":"user","content":"Hello"}]`

func TestParseRequestDefaults(t *testing.T) {
	t.Parallel()
	req, err := ParseRequest(ChatCompletions, []byte(`{`+hello+`}`))
	require.NoError(t, err)
	require.Equal(t, &Request{
		URL: ChatCompletions, N: 1,
		Messages: []Message{{Role: "user", Content: "Hello"}},
		Sampling: DefaultSampling(),
	}, req)
}

// What changes nothing is accepted, so that files written for other programs
// pass.
func TestParseRequestNeutralValues(t *testing.T) {
	t.Parallel()
	for _, field := range []string{
		`"n":1`, `"stream":false`, `"logprobs":false`, `"top_logprobs":0`, `"tools":[]`, `"tool_choice":"none"`,
		`"logit_bias":{ }`, `"logit_bias":[]`, `"response_format":{"type": "text"}`, `"grammar":""`, `"tempo":{}`, `"store":false`,
		`"best_of":1`, `"echo":false`, `"tool_choice":"auto"`, `"parallel_tool_calls":false`, `"functions":[]`, `"reproducible":false`,
		`"n":null`, `"stream":null`, `"tools":null`, `"response_format":null`, `"stop":null`, `"seed":null`,
		`"max_tokens":null`, `"model":null`, `"reasoning_effort":null`, `"stop":[]`,
	} {
		req, err := ParseRequest(ChatCompletions, []byte(`{`+hello+`, `+field+` }`))
		require.NoError(t, err, field)
		require.Equal(t, &Request{
			URL: ChatCompletions, N: 1, Messages: []Message{{Role: "user", Content: "Hello"}}, Sampling: DefaultSampling(),
		}, withoutEmpty(req), field)
	}
	for _, field := range []string{
		`"echo":false`, `"suffix":""`, `"best_of":1`, `"logprobs":null`, `"top_logprobs":0`, `"tools":[]`, `"parallel_tool_calls":true`,
	} {
		_, err := ParseRequest(Completions, []byte(`{"prompt":"x",`+field+`}`))
		require.NoError(t, err, field)
	}
	_, err := ParseRequest(Embeddings, []byte(`{"input":"x","encoding_format":"float","dimensions":null,"tempo":{}}`))
	require.NoError(t, err)
}

// withoutEmpty makes an empty list of stops none.
func withoutEmpty(r *Request) *Request {
	if len(r.Stop) == 0 {
		r.Stop = nil
	}
	return r
}

func TestParseRequestFaults(t *testing.T) {
	t.Parallel()
	chat := func(field string) string { return `{` + hello + `,` + field + `}` }
	message := func(m string) string { return `{"messages":[{"role":"system","content":"s"},` + m + `]}` }
	tests := []struct {
		name, body string
		url        string // ChatCompletions if empty
		field      string // of the first fault
		says       []string
	}{
		{name: "unknown field", body: chat(`"max_token":5`), field: "max_token", says: []string{"unknown field", `did you mean "max_tokens"?`}},
		{name: "another program's name", body: chat(`"repetition_penalty":1.1`), field: "repetition_penalty", says: []string{`did you mean "repeat_penalty"?`}},
		{name: "unknown field that is like none", body: chat(`"colour":null`), field: "colour", says: []string{"unknown field"}},
		{name: "names are compared exactly", body: chat(`"Temperature":1`), field: "Temperature", says: []string{`did you mean "temperature"?`}},
		{name: "field given twice", body: chat(`"seed":1,"seed":2`), field: "seed", says: []string{"given twice"}},

		{name: "temperature as a string", body: chat(`"temperature":"hot"`), field: "temperature", says: []string{"wrong type", `"hot"`, "0", "2"}},
		{name: "temperature too high", body: chat(`"temperature":2.1`), field: "temperature", says: []string{"out of range", "2.1"}},
		{name: "temperature beyond numbers", body: chat(`"temperature":1e999`), field: "temperature", says: []string{"out of range"}},
		{name: "top_p of 0", body: chat(`"top_p":0`), field: "top_p", says: []string{"out of range", "over 0"}},
		{name: "top_k below off", body: chat(`"top_k":-2`), field: "top_k", says: []string{"out of range"}},
		{name: "min_p over 1", body: chat(`"min_p":1.5`), field: "min_p", says: []string{"out of range"}},
		{name: "repeat_penalty of 0", body: chat(`"repeat_penalty":0`), field: "repeat_penalty", says: []string{"out of range"}},
		{name: "presence_penalty", body: chat(`"presence_penalty":-2.5`), field: "presence_penalty", says: []string{"out of range", "-2 to 2"}},
		{name: "frequency_penalty", body: chat(`"frequency_penalty":true`), field: "frequency_penalty", says: []string{"wrong type"}},
		{name: "max_tokens of 0", body: chat(`"max_tokens":0`), field: "max_tokens", says: []string{"out of range", "from 1 to 2147483647"}},
		{name: "max_tokens with a fraction", body: chat(`"max_tokens":1.5`), field: "max_tokens", says: []string{"wrong type", "integer"}},
		{name: "max_tokens as a string", body: chat(`"max_tokens":"100"`), field: "max_tokens", says: []string{"wrong type", `"100"`}},
		{name: "max_tokens too large", body: chat(`"max_tokens":99999999999999999999`), field: "max_tokens", says: []string{"out of range"}},
		{name: "two different limits", body: chat(`"max_tokens":5,"max_completion_tokens":6`), field: "max_completion_tokens", says: []string{"contradicts max_tokens (5)", "6"}},
		{name: "negative seed", body: chat(`"seed":-1`), field: "seed", says: []string{"out of range", "4294967294"}},
		{name: "the seed that means random", body: chat(`"seed":4294967295`), field: "seed", says: []string{"out of range"}},
		{name: "five stops", body: chat(`"stop":["a","b","c","d","e"]`), field: "stop", says: []string{"up to 4"}},
		{name: "empty stop", body: chat(`"stop":""`), field: "stop", says: []string{"none empty"}},
		{name: "stop as a number", body: chat(`"stop":5`), field: "stop", says: []string{"wrong type"}},
		{name: "stop with a number", body: chat(`"stop":["a",5]`), field: "stop[1]", says: []string{"wrong type"}},
		{name: "model as a number", body: chat(`"model":5`), field: "model", says: []string{"wrong type"}},
		{name: "empty model", body: chat(`"model":""`), field: "model", says: []string{"empty"}},
		{name: "user as a number", body: chat(`"user":5`), field: "user", says: []string{"wrong type"}},
		{name: "metadata as a list", body: chat(`"metadata":[]`), field: "metadata", says: []string{"wrong type"}},

		{name: "stream", body: chat(`"stream":true`), field: "stream", says: []string{"not supported", "true", "allowed: false"}},
		{name: "reasoning_effort", body: chat(`"reasoning_effort":"low"`), field: "reasoning_effort", says: []string{"not supported"}},
		{name: "suffix", url: Completions, body: `{"prompt":"x","suffix":"y"}`, field: "suffix", says: []string{"not supported"}},

		{name: "no messages", body: `{}`, field: "messages", says: []string{"missing"}},
		{name: "null messages", body: `{"messages":null}`, field: "messages", says: []string{"missing"}},
		{name: "empty messages", body: `{"messages":[]}`, field: "messages", says: []string{"empty", "at least one"}},
		{name: "messages as a string", body: `{"messages":"Hello"}`, field: "messages", says: []string{"wrong type", `"Hello"`}},
		{name: "message as a string", body: `{"messages":["Hello"]}`, field: "messages[0]", says: []string{"wrong type"}},
		{name: "unknown role", body: message(`{"role":"robot","content":"x"}`), field: "messages[1].role", says: []string{"unknown role", `"robot"`, "system, developer, user, assistant, tool"}},
		{name: "role as a number", body: message(`{"role":1,"content":"x"}`), field: "messages[1].role", says: []string{"wrong type"}},
		{name: "no role", body: message(`{"content":"x"}`), field: "messages[1].role", says: []string{"missing"}},
		{name: "no content", body: message(`{"role":"user"}`), field: "messages[1].content", says: []string{"missing"}},
		{name: "null content", body: message(`{"role":"user","content":null}`), field: "messages[1].content", says: []string{"missing"}},
		{name: "content as a number", body: message(`{"role":"user","content":5}`), field: "messages[1].content", says: []string{"wrong type"}},
		{name: "misspelt message field", body: message(`{"role":"user","contnet":"x","content":"x"}`), field: "messages[1].contnet", says: []string{`did you mean "messages[1].content"?`}},
		{name: "message field given twice", body: message(`{"role":"user","role":"user","content":"x"}`), field: "messages[1].role", says: []string{"given twice"}},
		{name: "empty parts", body: message(`{"role":"user","content":[]}`), field: "messages[1].content", says: []string{"empty"}},
		{name: "part as a string", body: message(`{"role":"user","content":["x"]}`), field: "messages[1].content[0]", says: []string{"wrong type"}},
		{name: "image part", body: message(`{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}`), field: "messages[1].content[0].type", says: []string{"not supported", `"image_url"`}},
		{name: "part without type", body: message(`{"role":"user","content":[{"text":"x"}]}`), field: "messages[1].content[0].type", says: []string{"missing"}},
		{name: "part without text", body: message(`{"role":"user","content":[{"type":"text"}]}`), field: "messages[1].content[0].text", says: []string{"missing"}},
		{name: "part with a number", body: message(`{"role":"user","content":[{"type":"text","text":1}]}`), field: "messages[1].content[0].text", says: []string{"wrong type"}},
		{name: "unknown part field", body: message(`{"role":"user","content":[{"type":"text","text":"x","txt":1}]}`), field: "messages[1].content[0].txt", says: []string{"unknown field"}},

		{name: "no prompt", url: Completions, body: `{}`, field: "prompt", says: []string{"missing"}},
		{name: "empty prompt", url: Completions, body: `{"prompt":""}`, field: "prompt", says: []string{"empty"}},
		{name: "list of prompts", url: Completions, body: `{"prompt":["a","b"]}`, field: "prompt", says: []string{"wrong type", "one prompt a line"}},
		{name: "messages for completions", url: Completions, body: `{` + hello + `}`, field: "messages", says: []string{"unknown field", `did you mean "prompt"?`}},
		{name: "prompt for chat", body: `{"prompt":"x"}`, field: "prompt", says: []string{"unknown field", `did you mean "messages"?`}},

		{name: "body as a list", body: `[1]`, field: "body", says: []string{"a JSON object", "[1]"}},
		{name: "not UTF-8", body: "{\"prompt\":\"\xff\"}", field: "body", says: []string{"UTF-8"}},
		{name: "unknown url", url: "/v1/responses", body: `{}`, field: "url", says: []string{`"/v1/responses"`, ChatCompletions, Completions, Embeddings}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			requireFault(t, tt.url, tt.body, tt.field, tt.says...)
		})
	}
}

// requireFault checks the first fault of a body; url is ChatCompletions if empty.
func requireFault(t *testing.T, url, body, field string, says ...string) {
	t.Helper()
	if url == "" {
		url = ChatCompletions
	}
	req, err := ParseRequest(url, []byte(body))
	require.Error(t, err)
	require.Nil(t, req)
	faults := FieldErrors(err)
	require.NotEmpty(t, faults)
	require.Equal(t, field, faults[0].Field)
	require.NotEmpty(t, faults[0].Hint())
	require.Contains(t, faults[0].Error(), field+": ")
	for _, s := range says {
		require.Contains(t, faults[0].Error(), s)
	}
}

func TestParseRequestCollectsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := ParseRequest(ChatCompletions, []byte(
		`{"stream":true,"temprature":1,"seed":1,"seed":1,"top_p":7,"messages":[{"role":"robot"},{"role":"user","content":"x"},5]}`))
	var fields []string
	for _, f := range FieldErrors(err) {
		fields = append(fields, f.Field)
	}
	require.Equal(t, []string{
		"seed", "stream", "temprature", "top_p", "messages[0].role", "messages[0].content", "messages[2]",
	}, fields)
}

func TestParseRequestSyntaxError(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `{`, `{"a":1}}`, `{"a":1} {}`, `{'a':1}`} {
		_, err := ParseRequest(ChatCompletions, []byte(body))
		var syntax *json.SyntaxError
		require.ErrorAs(t, err, &syntax, body)
	}
}

// A field stands in one place only: what is accepted is not refused, and each
// accepted field is read (a wrong type is noticed).
func TestParseRequestReadsWhatItAccepts(t *testing.T) {
	t.Parallel()
	for _, url := range []string{ChatCompletions, Completions, Embeddings} {
		for _, name := range accepted(url) {
			_, later := neutral(url, name)
			require.False(t, later, name)
			_, err := ParseRequest(url, fmt.Appendf(nil, `{%q:false}`, name))
			if err == nil || !strings.Contains(err.Error(), name+": wrong type, got false") { // false is what it takes
				_, err = ParseRequest(url, fmt.Appendf(nil, `{%q:5}`, name))
				require.ErrorContains(t, err, name+": wrong type, got 5")
			}
		}
	}
}

func TestFieldErrorHint(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]*FieldError{
		"write max_tokens instead of max_token": {Field: "max_token", Problem: problemUnknown, Suggestion: "max_tokens"},
		"leave out tools":                       {Field: "tools", Problem: problemUnsupported},
		"add prompt: a string":                  {Field: "prompt", Problem: problemMissing, Allowed: "a string"},
		"set n to: 1":                           {Field: "n", Problem: problemUnsupported, Allowed: "1"},
	} {
		require.Equal(t, want, e.Hint())
	}
}

func TestFieldErrors(t *testing.T) {
	t.Parallel()
	a, b := &FieldError{Field: "a"}, &FieldError{Field: "b"}
	require.Nil(t, FieldErrors(nil))
	require.Nil(t, FieldErrors(errors.New("other")))
	require.Equal(t, []*FieldError{a, b}, FieldErrors(fmt.Errorf("check line: %w", errors.Join(a, errors.New("other"), b))))
}

func TestFieldErrorShortensTheValue(t *testing.T) {
	t.Parallel()
	long := make([]rune, 200)
	for i := range long {
		long[i] = 'ü'
	}
	_, err := ParseRequest(ChatCompletions, fmt.Appendf(nil, `{"messages":%q}`, string(long)))
	require.Less(t, len(err.Error()), 150)
	require.Contains(t, err.Error(), "ü…")
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"max_tokens", "temperature", "top_p", "top_k", "n"}
	for name, want := range map[string]string{
		"max_token": "max_tokens", "maxtokens": "max_tokens", "temprature": "temperature", "top-p": "top_p",
		"colour": "", "": "", "x": "", "stop": "",
	} {
		require.Equal(t, want, Nearest(name, known), name)
	}
}

func ExampleParseRequest() {
	_, err := ParseRequest(ChatCompletions, []byte(
		`{"messages":[{"role":"robot","content":"Hello"}],"max_token":5,"n":200}`))
	fmt.Println(err)
	// Output:
	// messages[0].role: unknown role, got "robot", allowed: system, developer, user, assistant, tool
	// max_token: unknown field; did you mean "max_tokens"?
	// n: out of range, got 200, allowed: an integer from 1 to 128
}
