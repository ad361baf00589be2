package api

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// parallelForms has values of tempo, and what is read of them.
var parallelForms = map[string]*Parallel{
	`{}`:                             nil,
	`{"isolate":null}`:               nil,
	`{"selection_threshold":null}`:   nil,
	`{"selection_threshold":0.1}`:    {Threshold: 0.1, Mix: MixWeighted},
	`{"selection_threshold":1}`:      {Threshold: 1, Mix: MixWeighted},
	`{"selection_threshold":0.0001}`: {Threshold: 0.0001, Mix: MixWeighted},
	`{"selection_threshold":0.1,"max_parallel_tokens":1,"isolate":false,"mix":"weighted","min_steps":0,"max_cache_tokens":2,"return_parallel_sets":false}`: {
		Threshold: 0.1, MaxTokens: 1, Mix: MixWeighted, MaxCacheTokens: 2,
	},
	`{"selection_threshold":0.25,"max_parallel_tokens":256,"isolate":true,"mix":"top","min_steps":9,"dynamic_threshold":{},
		"max_cache_tokens":4096,"retroactive_removal":{},"return_parallel_sets":true}`: {
		Threshold: 0.25, MaxTokens: 256, Isolate: true, Mix: MixTop, MinSteps: 9, MaxCacheTokens: 4096, ReturnSets: true,
		Dynamic: &DynamicThreshold{Final: 1, Curve: CurveBezier, P1: 0.2, P2: 0.8},
		Removal: &RetroactiveRemoval{AttentionThreshold: 0.01, Window: 8},
	},
	`{"selection_threshold":0.1,"mix":null,"dynamic_threshold":null,"retroactive_removal":null}`: {Threshold: 0.1, Mix: MixWeighted},
	`{"dynamic_threshold":{"p2":0,"final":0.5,"p1":1,"curve":"bezier","activation_point":null},"selection_threshold":0.1}`: {
		Threshold: 0.1, Mix: MixWeighted, Dynamic: &DynamicThreshold{Final: 0.5, Curve: CurveBezier, P1: 1},
	},
	`{"dynamic_threshold":{"curve":"linear"},"selection_threshold":0.1}`: {
		Threshold: 0.1, Mix: MixWeighted, Dynamic: &DynamicThreshold{Final: 1, Curve: CurveLinear},
	},
	`{"dynamic_threshold":{"curve":"relu"},"selection_threshold":0.1}`: {
		Threshold: 0.1, Mix: MixWeighted, Dynamic: &DynamicThreshold{Final: 1, Curve: CurveReLU, ActivationPoint: 0.5},
	},
	`{"dynamic_threshold":{"curve":"relu","activation_point":0,"p1":null},"selection_threshold":0.1}`: {
		Threshold: 0.1, Mix: MixWeighted, Dynamic: &DynamicThreshold{Final: 1, Curve: CurveReLU},
	},
	`{"retroactive_removal":{"attention_threshold":1,"window":64},"selection_threshold":0.1}`: {
		Threshold: 0.1, Mix: MixWeighted, Removal: &RetroactiveRemoval{AttentionThreshold: 1, Window: 64},
	},
	`{"retroactive_removal":{"attention_threshold":0,"window":null},"selection_threshold":0.1}`: {
		Threshold: 0.1, Mix: MixWeighted, Removal: &RetroactiveRemoval{Window: 8},
	},
}

func TestParseRequestParallel(t *testing.T) {
	t.Parallel()
	for tempo, want := range parallelForms {
		req, err := ParseRequest(ChatCompletions, []byte(`{`+hello+`,"max_tokens":9,"tempo":`+tempo+`}`))
		require.NoError(t, err, tempo)
		require.Equal(t, want, req.Parallel, tempo)
	}
}

// What is written for a Parallel asks for the same, and goes to the engine as it is.
func TestParallelMembers(t *testing.T) {
	t.Parallel()
	for _, want := range parallelForms {
		if want == nil {
			continue
		}
		fields := map[string]json.RawMessage{}
		for _, m := range want.Members() {
			fields[m.Name] = m.Value
		}
		tempo, err := json.Marshal(fields)
		require.NoError(t, err)
		req, err := ParseRequest(Completions, []byte(`{"prompt":"x","max_tokens":9,"tempo":`+string(tempo)+`}`))
		require.NoError(t, err, string(tempo))
		require.Equal(t, want, req.Parallel, string(tempo))
		raw, err := json.Marshal(req)
		require.NoError(t, err)
		got := new(Request)
		require.NoError(t, json.Unmarshal(raw, got))
		require.Equal(t, req, got)
	}
	short := &Parallel{Threshold: 0.1, Mix: MixWeighted}
	require.Equal(t, []Member{{Name: "selection_threshold", Value: json.RawMessage("0.1")}}, short.Members(), "defaults are not written")
}

// Parallel generation stands beside everything that it can follow.
func TestParseRequestBesideParallel(t *testing.T) {
	t.Parallel()
	const tempo = `"tempo":{"selection_threshold":0.1,"min_steps":5}`
	for _, body := range []string{
		`{` + hello + `,"temperature":0.7,"seed":42,"stop":"x","ignore_eos":true,"logit_bias":{"5":-100},"timeout":5,"user":"u",`,
		`{` + hello + `,"tools":` + weather + `,"tool_choice":"auto",`,
		`{` + hello + `,"n":1,"best_of":1,"logprobs":false,"top_logprobs":0,"grammar":"","response_format":{"type":"text"},"reproducible":false,`,
		`{` + hello + `,"top_p":1,"top_k":-1,"min_p":0,"presence_penalty":0,"frequency_penalty":0,"repeat_penalty":1,"max_tokens":5,`,
	} {
		req, err := ParseRequest(ChatCompletions, []byte(body+tempo+`}`))
		require.NoError(t, err, body)
		require.Equal(t, &Parallel{Threshold: 0.1, Mix: MixWeighted, MinSteps: 5}, req.Parallel)
	}
	req, err := ParseRequest(Completions, []byte(`{"prompt":"x","echo":true,"max_completion_tokens":8,"tempo":{"selection_threshold":0.1,"dynamic_threshold":{}}}`))
	require.NoError(t, err)
	require.NotNil(t, req.Parallel.Dynamic)
	// What asks for nothing rules nothing out.
	_, err = ParseRequest(Completions, []byte(`{"prompt":"x","n":2,"temperature":0,"tempo":{}}`))
	require.NoError(t, err)
}

func TestParseRequestFaultsOfParallel(t *testing.T) {
	t.Parallel()
	with := func(more string) string { return `"tempo":{"selection_threshold":0.1,` + more + `}` }
	dynamic := func(d string) string { return `"max_tokens":9,` + with(`"dynamic_threshold":`+d) }
	for _, b := range []badField{
		{`"tempo":[]`, "tempo", says("wrong type", "selection_threshold")},
		{`"tempo":true`, "tempo", says("wrong type")},
		{`"tempo":{"isolate":true}`, "tempo.selection_threshold", says("missing", "0.0001 to 1")},
		{`"tempo":{"selection_threshold":null,"mix":"top"}`, "tempo.selection_threshold", says("missing beside tempo.mix, which refines it", "null counts as missing")},
		{`"tempo":{"selection_threshold":null,"max_parallel_tokens":4}`, "tempo.selection_threshold", says("missing beside tempo.max_parallel_tokens")},
		{`"tempo":{"selection_threshold":0}`, "tempo.selection_threshold", says("out of range", "0.0001 to 1")},
		{`"tempo":{"selection_threshold":1.01}`, "tempo.selection_threshold", says("out of range", "1.01")},
		{`"tempo":{"selection_threshold":"0.1"}`, "tempo.selection_threshold", says("wrong type", `"0.1"`)},
		{`"tempo":{"selection_treshold":0.1}`, "tempo.selection_treshold", says(`did you mean "tempo.selection_threshold"?`)},
		{`"tempo":{"colour":null}`, "tempo.colour", says("unknown field, allowed: selection_threshold, max_parallel_tokens, isolate, mix,")},
		{`"tempo":{"threshold":0.1}`, "tempo.threshold", says("unknown field", `did you mean "tempo.selection_threshold"?`)},
		{`"tempo":{"selection_threshold":0.1,"retroactive_removal":{"threshold":0.1}}`, "tempo.retroactive_removal.threshold", says(`did you mean "tempo.retroactive_removal.attention_threshold"?`)},
		{`"tempo":{"selection_threshold":0.1,"retroactive_removal":{"x":0.1}}`, "tempo.retroactive_removal.x", says("unknown field, allowed: attention_threshold, window")},
		{`"parallel":{"selection_threshold":0.1}`, "parallel", says("unknown field", `did you mean "tempo"?`)},
		{with(`"selection_threshold":0.1`), "tempo.selection_threshold", says("given twice")},
		{with(`"max_parallel_tokens":0`), "tempo.max_parallel_tokens", says("out of range", "1 to 256")},
		{with(`"max_parallel_tokens":257`), "tempo.max_parallel_tokens", says("out of range", "257")},
		{with(`"max_parallel_tokens":1.5`), "tempo.max_parallel_tokens", says("wrong type")},
		{with(`"isolate":1`), "tempo.isolate", says("wrong type", "true or false")},
		{with(`"mix":"mean"`), "tempo.mix", says("not supported", `"mean"`, `"weighted", "top"`)},
		{with(`"mix":1`), "tempo.mix", says("wrong type")},
		{with(`"min_steps":-1`), "tempo.min_steps", says("out of range", "0 to max_tokens")},
		{with(`"min_steps":6`) + `,"max_tokens":5`, "tempo.min_steps", says("over max_tokens (5)", "got 6", "0 to 5")},
		{with(`"min_steps":6`) + `,"max_completion_tokens":5`, "tempo.min_steps", says("over max_tokens (5)")},
		{with(`"max_cache_tokens":1`), "tempo.max_cache_tokens", says("out of range", "2 or more")},
		{with(`"max_cache_tokens":"2k"`), "tempo.max_cache_tokens", says("wrong type")},
		{with(`"return_parallel_sets":"yes"`), "tempo.return_parallel_sets", says("wrong type")},

		{dynamic(`true`), "tempo.dynamic_threshold", says("wrong type", "{} asks for the defaults")},
		{dynamic(`{"final":0}`), "tempo.dynamic_threshold.final", says("out of range", "0.0001 to 1")},
		{dynamic(`{"final":1.5}`), "tempo.dynamic_threshold.final", says("out of range")},
		{dynamic(`{"curve":"sigmoid"}`), "tempo.dynamic_threshold.curve", says("not supported", `"linear", "bezier", "relu"`)},
		{dynamic(`{"curve":2}`), "tempo.dynamic_threshold.curve", says("wrong type")},
		{dynamic(`{"p1":-0.1}`), "tempo.dynamic_threshold.p1", says("out of range", "0 to 1")},
		{dynamic(`{"p2":1.1}`), "tempo.dynamic_threshold.p2", says("out of range")},
		{dynamic(`{"curve":"relu","activation_point":2}`), "tempo.dynamic_threshold.activation_point", says("out of range")},
		{dynamic(`{"p1":0.2,"curve":"linear"}`), "tempo.dynamic_threshold.p1", says(`cannot stand beside curve ("linear")`, `only with the curve "bezier"`)},
		{dynamic(`{"curve":"relu","p2":0.2}`), "tempo.dynamic_threshold.p2", says(`cannot stand beside curve ("relu")`)},
		{dynamic(`{"activation_point":0.5}`), "tempo.dynamic_threshold.activation_point", says(`cannot stand beside curve ("bezier")`, `only with the curve "relu"`)},
		{dynamic(`{"bezier_p1":0.5}`), "tempo.dynamic_threshold.bezier_p1", says(`did you mean "tempo.dynamic_threshold.p1"?`)},
		{with(`"dynamic_threshold":{}`), "tempo.dynamic_threshold", says("needs max_tokens")},

		{with(`"retroactive_removal":0.01`), "tempo.retroactive_removal", says("wrong type", "{} asks for the defaults")},
		{with(`"retroactive_removal":{"attention_threshold":1.1}`), "tempo.retroactive_removal.attention_threshold", says("out of range")},
		{with(`"retroactive_removal":{"window":0}`), "tempo.retroactive_removal.window", says("out of range", "1 to 64")},
		{with(`"retroactive_removal":{"window":65}`), "tempo.retroactive_removal.window", says("out of range")},
		{with(`"retroactive_removal":{"removal_window":5}`), "tempo.retroactive_removal.removal_window", says(`did you mean "tempo.retroactive_removal.window"?`)},

		{`"selection_threshold":0.1`, "selection_threshold", says("unknown field", `did you mean "tempo.selection_threshold"?`)},
	} {
		requireFault(t, ChatCompletions, `{`+hello+`,`+b.json+`}`, b.field, b.says...)
	}
	for _, tempo := range []string{`{"selection_threshold":0.1}`, `{"a":1}`} {
		requireFault(t, Embeddings, `{"input":"x","tempo":`+tempo+`}`, "tempo", "not supported", tempo)
	}
	requireFault(t, Embeddings, `{"input":"x","isolate":true}`, "isolate", "unknown field")
}

// What would have to be ignored is refused, with both names and what to change.
func TestParseRequestClashesWithParallel(t *testing.T) {
	t.Parallel()
	const tempo = `"tempo":{"selection_threshold":0.1}`
	for _, b := range []badField{
		{`"n":2`, "n", says("got 2", "allowed: 1")},
		{`"n":2,"best_of":2`, "n", nil},
		{`"logprobs":true`, "logprobs", says("return_parallel_sets")},
		{`"grammar":"root ::= \"a\""`, "grammar", says("none")},
		{`"response_format":{"type":"json_object"}`, "response_format", says(`{"type":"text"}`)},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{}}}`, "response_format", nil},
		{`"reproducible":true`, "reproducible", says("false")},
		{`"top_p":0.9`, "top_p", says("1 (off)")},
		{`"top_k":40`, "top_k", says("0 (off)")},
		{`"min_p":0.05`, "min_p", says("0 (off)")},
		{`"presence_penalty":0.5`, "presence_penalty", says("0 (off)")},
		{`"frequency_penalty":-1`, "frequency_penalty", says("0 (off)")},
		{`"repeat_penalty":1.1`, "repeat_penalty", says("1 (off)")},
		{`"temperature":0`, "temperature", says("one token at each position is what temperature 0 means")},
	} {
		requireFault(t, ChatCompletions, `{`+hello+`,`+b.json+`,`+tempo+`}`, b.field,
			append(b.says, `cannot stand beside tempo ({"selection_threshold":0.1})`)...)
	}
	requireFault(t, Completions, `{"prompt":"x","logprobs":0,`+tempo+`}`, "logprobs", "cannot stand beside tempo", "got 0")

	_, err := ParseRequest(ChatCompletions, []byte(
		`{`+hello+`,"n":2,"best_of":2,"logprobs":true,"top_logprobs":2,"temperature":0,"top_p":7,`+tempo+`}`))
	hints := map[string]string{}
	for _, f := range FieldErrors(err) {
		hints[f.Field] = f.Hint()
	}
	require.Equal(t, map[string]string{
		"n": "leave out n, or tempo", "best_of": "leave out best_of, or tempo", "logprobs": "leave out logprobs, or tempo",
		"top_logprobs": "leave out top_logprobs, or tempo",
		"temperature":  "one token at each position is what temperature 0 means: leave out tempo, or the temperature",
		"top_p":        "set top_p to: a number over 0, up to 1 (off)",
	}, hints)
}

// The manual has every member of tempo.
func TestManualHasEveryMemberOfTempo(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../docs/requests.md")
	require.NoError(t, err)
	for _, name := range append(tempoMembers(), "final", "curve", "p1", "p2", "activation_point", "attention_threshold", "window") {
		require.Contains(t, string(manual), "| `"+name+"` |", name)
	}
}
