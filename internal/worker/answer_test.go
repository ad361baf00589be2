package worker

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// answering is a worker that has nothing loaded, for a model of 1024 tokens.
func answering(t *testing.T) *Worker {
	t.Helper()
	ledger, err := budget.NewLedger("cpu", budget.GiB)
	require.NoError(t, err)
	return &Worker{
		opts: Options{Model: "m"}, facts: infer.Facts{Context: 1024}, ledger: ledger,
		monitor: budget.NewMonitor(func(int) (budget.Bytes, error) { return processMemory, nil }, time.Second, nil),
	}
}

// written is the answer to a request as it stands in the result.
func written(t *testing.T, url, body string, out *infer.Output) string {
	t.Helper()
	request, err := api.ParseRequest(url, []byte(body))
	require.NoError(t, err)
	j := &job{delivery: &queue.Delivery{Job: api.Job{Batch: "b", ID: "7", CustomID: "c"}, Attempt: 1}}
	r := answering(t).success(j, request, out)
	require.True(t, r.OK())
	require.Equal(t, "batch_req_b-7", r.ID)
	require.False(t, r.Tempo.CutByMemory)
	var created struct{ Created int64 }
	require.NoError(t, json.Unmarshal(r.Response.Body, &created))
	require.WithinDuration(t, time.Now(), time.Unix(created.Created, 0), time.Minute)
	var rest map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(r.Response.Body, &rest))
	delete(rest, "created")
	raw, err := json.Marshal(rest)
	require.NoError(t, err)
	return string(raw)
}

// output is what an engine made of a prompt of 5 tokens, of which it had 2.
func output(choices ...infer.Choice) *infer.Output {
	out := &infer.Output{Choices: choices, PromptTokens: 5, CachedTokens: 2, Started: time.Now()}
	for _, c := range choices {
		out.CompletionTokens += c.Tokens
	}
	return out
}

func token(text string, logprob float32, top ...infer.TokenLogprob) infer.TokenLogprobs {
	return infer.TokenLogprobs{TokenLogprob: infer.TokenLogprob{Piece: []byte(text), Logprob: logprob}, Top: top}
}

const (
	asked   = `"messages":[{"role":"user","content":"q"}]`
	weather = `,"tools":[{"type":"function","function":{"name":"weather"}}]`
	usage   = `"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}`
	chats   = `{"id":"chatcmpl-b-7","object":"chat.completion","model":"m",` + usage + `,"choices":[`
	texts   = `{"id":"cmpl-b-7","object":"text_completion","model":"m",` + usage + `,"choices":[`
)

func TestAnswer(t *testing.T) {
	t.Parallel()
	const called = "Wait. <tool_call>{\"name\":\"weather\",\"arguments\":{\"city\": \"Oslo\"}}</tool_call>"
	for _, c := range []struct {
		name, url, body string
		out             *infer.Output
		want            string
	}{
		{
			"a chat", api.ChatCompletions, `{` + asked + `}`,
			output(infer.Choice{Text: "Hi <b>", FinishReason: "stop", Tokens: 2}),
			chats + `{"index":0,"message":{"role":"assistant","content":"Hi <b>","refusal":null},"logprobs":null,"finish_reason":"stop"}]}`,
		},
		{
			"two answers", api.ChatCompletions, `{` + asked + `,"n":2,"max_tokens":1}`,
			output(infer.Choice{Text: "a", FinishReason: "length", Tokens: 1}, infer.Choice{Text: "b", FinishReason: "stop", Tokens: 1}),
			chats + `{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"length"},` +
				`{"index":1,"message":{"role":"assistant","content":"b","refusal":null},"logprobs":null,"finish_reason":"stop"}]}`,
		},
		{
			"log probabilities", api.ChatCompletions, `{` + asked + `,"logprobs":true,"top_logprobs":1}`,
			output(infer.Choice{Text: "aé", FinishReason: "stop", Tokens: 2, Logprobs: []infer.TokenLogprobs{
				token("a", -0.5, infer.TokenLogprob{Piece: []byte("b"), Logprob: -0.25}),
				token("é\xc3", float32(math.Inf(-1))),
			}}),
			chats + `{"index":0,"message":{"role":"assistant","content":"aé","refusal":null},"finish_reason":"stop","logprobs":{"content":[` +
				`{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-0.25,"bytes":[98]}]},` +
				`{"token":"é\\xc3","logprob":-9999,"bytes":[195,169,195],"top_logprobs":[]}],"refusal":null}}]}`,
		},
		{
			"no log probabilities of nothing", api.ChatCompletions, `{` + asked + `,"logprobs":true}`,
			output(infer.Choice{FinishReason: "stop", Tokens: 2}),
			chats + `{"index":0,"message":{"role":"assistant","content":"","refusal":null},"finish_reason":"stop","logprobs":{"content":[],"refusal":null}}]}`,
		},
		{
			"calls", api.ChatCompletions, `{` + asked + weather + `}`,
			output(infer.Choice{Text: called, FinishReason: "stop", Tokens: 2}),
			chats + `{"index":0,"message":{"role":"assistant","content":"Wait.","refusal":null,"tool_calls":[` +
				`{"id":"` + answer{id: "b-7"}.callID(0, 0) + `","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Oslo\"}"}}]},` +
				`"logprobs":null,"finish_reason":"tool_calls"}]}`,
		},
		{
			"a call at the end of max_tokens", api.ChatCompletions, `{` + asked + weather + `,"max_tokens":2}`,
			output(infer.Choice{Text: `{"name":"weather","parameters":{}}`, FinishReason: "length", Tokens: 2}),
			chats + `{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[` +
				`{"id":"` + answer{id: "b-7"}.callID(0, 0) + `","type":"function","function":{"name":"weather","arguments":"{}"}}]},` +
				`"logprobs":null,"finish_reason":"length"}]}`,
		},
		{
			"what looks like a call, but tools are off", api.ChatCompletions, `{` + asked + weather + `,"tool_choice":"none"}`,
			output(infer.Choice{Text: `{"name":"weather","parameters":{}}`, FinishReason: "stop", Tokens: 2}),
			chats + `{"index":0,"message":{"role":"assistant","content":"{\"name\":\"weather\",\"parameters\":{}}","refusal":null},` +
				`"logprobs":null,"finish_reason":"stop"}]}`,
		},
		{
			"a completion", api.Completions, `{"prompt":"The cat"}`,
			output(infer.Choice{Text: " sat", FinishReason: "stop", Tokens: 2}),
			texts + `{"index":0,"text":" sat","logprobs":null,"finish_reason":"stop"}]}`,
		},
		{
			"a completion with its prompt", api.Completions, `{"prompt":"The cat","echo":true}`,
			output(infer.Choice{Text: " sat", FinishReason: "stop", Tokens: 2}),
			texts + `{"index":0,"text":"The cat sat","logprobs":null,"finish_reason":"stop"}]}`,
		},
		{
			"a completion's log probabilities", api.Completions, `{"prompt":"é!","logprobs":2}`,
			output(infer.Choice{Text: "ab€c", FinishReason: "stop", Tokens: 2, Logprobs: []infer.TokenLogprobs{
				token("ab", -1, infer.TokenLogprob{Piece: []byte("x"), Logprob: -0.5}, infer.TokenLogprob{Piece: []byte("x"), Logprob: -0.75}),
				token("\xe2\x82", -0.5), token("\xac", -0.25, infer.TokenLogprob{Piece: []byte("\xac"), Logprob: -0.25}), token("c", -0.5),
			}}),
			texts + `{"index":0,"text":"ab€c","finish_reason":"stop","logprobs":{"tokens":["ab","bytes:\\xe2\\x82","bytes:\\xac","c"],` +
				`"token_logprobs":[-1,-0.5,-0.25,-0.5],` +
				`"top_logprobs":[{"ab":-1,"x":-0.5},{"bytes:\\xe2\\x82":-0.5},{"bytes:\\xac":-0.25},{"c":-0.5}],"text_offset":[2,4,4,5]}}]}`,
		},
		{
			"a completion's without the likeliest", api.Completions, `{"prompt":"x","logprobs":0}`,
			output(infer.Choice{Text: "a", FinishReason: "stop", Tokens: 2, Logprobs: []infer.TokenLogprobs{token("a", -1)}}),
			texts + `{"index":0,"text":"a","finish_reason":"stop","logprobs":{"tokens":["a"],"token_logprobs":[-1],"top_logprobs":null,"text_offset":[1]}}]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.JSONEq(t, c.want, written(t, c.url, c.body, c.out))
		})
	}
}

func TestAnswerEmbeddings(t *testing.T) {
	t.Parallel()
	out := &infer.Output{Embeddings: [][]float32{{1, -2}, {0.5, 0}}, PromptTokens: 6, Started: time.Now()}
	const start, end = `{"object":"list","model":"m","usage":{"prompt_tokens":6,"total_tokens":6},"data":[`, `]}`
	for format, want := range map[string]string{
		"float":  `{"object":"embedding","index":0,"embedding":[1,-2]},{"object":"embedding","index":1,"embedding":[0.5,0]}`,
		"base64": `{"object":"embedding","index":0,"embedding":"AACAPwAAAMA="},{"object":"embedding","index":1,"embedding":"AAAAPwAAAAA="}`,
	} {
		request, err := api.ParseRequest(api.Embeddings, []byte(`{"input":["a","b"],"encoding_format":"`+format+`"}`))
		require.NoError(t, err)
		r := answering(t).success(&job{delivery: &queue.Delivery{}}, request, out)
		require.True(t, r.OK())
		require.JSONEq(t, start+want+end, string(r.Response.Body))
		require.False(t, r.Tempo.CutByMemory)
	}
	// A number that is none makes an error of the answer, not half a line.
	request, err := api.ParseRequest(api.Embeddings, []byte(`{"input":"a"}`))
	require.NoError(t, err)
	out.Embeddings[0][0] = float32(math.NaN())
	r := answering(t).success(&job{delivery: &queue.Delivery{}}, request, out)
	require.Contains(t, requireFailed(t, *r, 500).Message, "cannot be written as JSON")
}

func TestCallIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, job := range []string{"b-7", "b-8"} {
		for choice := range 2 {
			for call := range 2 {
				id := answer{id: job}.callID(choice, call)
				require.Regexp(t, `^[a-z2-7]{9}$`, id)
				require.False(t, seen[id], "each call has its own")
				require.Equal(t, id, answer{id: job}.callID(choice, call), "every attempt has the same")
				seen[id] = true
			}
		}
	}
}

func TestCutByMemory(t *testing.T) {
	t.Parallel()
	ends := func(reason string, tokens int) infer.Choice {
		return infer.Choice{FinishReason: reason, Tokens: tokens}
	}
	for _, c := range []struct {
		name      string
		maxTokens int
		choices   []infer.Choice
		want      bool
	}{
		{"at max_tokens", 10, []infer.Choice{ends("length", 10)}, false},
		{"before max_tokens", 10, []infer.Choice{ends("length", 9)}, true},
		{"by itself", 10, []infer.Choice{ends("stop", 9)}, false},
		{"without max_tokens", 0, []infer.Choice{ends("length", 9)}, true},
		{"at the end of the context", 0, []infer.Choice{ends("length", 95)}, false},
		{"one of three", 10, []infer.Choice{ends("length", 10), ends("length", 9), ends("stop", 1)}, true},
		{"none of three", 10, []infer.Choice{ends("length", 10), ends("length", 10), ends("stop", 1)}, false},
		{"no choices", 0, nil, false},
	} {
		out := output(c.choices...)
		require.Equal(t, c.want, cutByMemory(&api.Request{MaxTokens: c.maxTokens}, out, 100), c.name)
	}
	// An engine need not count the tokens of an only choice.
	one := &infer.Output{Choices: []infer.Choice{{FinishReason: "length"}}, PromptTokens: 5, CompletionTokens: 10}
	require.False(t, cutByMemory(&api.Request{MaxTokens: 10}, one, 100))
	require.True(t, cutByMemory(&api.Request{MaxTokens: 11}, one, 100))
}

// TestAnswerOfAParallelJob: all tokens are paid for, and what they came to is beside the
// answer.
func TestAnswerOfAParallelJob(t *testing.T) {
	t.Parallel()
	request, err := api.ParseRequest(api.Completions, []byte(`{"prompt":"The","max_tokens":3}`))
	require.NoError(t, err)
	out := output(infer.Choice{Text: " quick fox", FinishReason: "length", Tokens: 7})
	out.Parallel = &api.ParallelResult{Text: " [quick/swift] [fox/dog]", Positions: 3, Tokens: 7, MeanWidth: 7.0 / 3, Widest: 3}
	r := answering(t).success(&job{delivery: &queue.Delivery{}}, request, out)
	require.Equal(t, out.Parallel, r.Tempo.Parallel)
	require.False(t, r.Tempo.CutByMemory)
	var body api.Completion
	require.NoError(t, json.Unmarshal(r.Response.Body, &body))
	require.Equal(t, 7, body.Usage.CompletionTokens)
	require.Equal(t, 12, body.Usage.TotalTokens)

	out.Parallel = nil
	require.Nil(t, answering(t).success(&job{delivery: &queue.Delivery{}}, request, out).Tempo.Parallel)
}

func TestParallelJobsCutByMemory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, reason               string
		maxTokens                  int
		positions, tokens, removed int
		want                       bool
	}{
		{"at max_tokens", "length", 10, 10, 30, 0, false},
		{"before max_tokens", "length", 10, 9, 30, 0, true},
		{"as many tokens as max_tokens", "length", 30, 9, 30, 0, true},
		{"by itself", "stop", 10, 9, 30, 0, false},
		{"without max_tokens", "length", 0, 9, 30, 0, true},
		{"at the end of the context", "length", 0, 95, 115, 20, false},
		{"before the end of the context, with more tokens", "length", 0, 94, 190, 20, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := output(infer.Choice{FinishReason: c.reason, Tokens: c.tokens})
			out.Parallel = &api.ParallelResult{Positions: c.positions, Tokens: c.tokens, Removed: c.removed}
			require.Equal(t, c.want, cutByMemory(&api.Request{MaxTokens: c.maxTokens}, out, 100))
		})
	}
}
