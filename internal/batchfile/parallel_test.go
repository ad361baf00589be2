package batchfile

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// sets is what the flags give in these tests.
func sets() *api.Parallel {
	return &api.Parallel{
		Threshold: 0.1, MaxTokens: 4, Isolate: true, Mix: api.MixTop, MinSteps: 3,
		Dynamic: &api.DynamicThreshold{Final: 0.5, Curve: api.CurveReLU, ActivationPoint: 0.25},
	}
}

func TestReadAddsParallel(t *testing.T) {
	t.Parallel()
	const message = `"messages":[{"role":"user","content":"Hi"}],"model":"m","max_tokens":9`
	const all = `{"selection_threshold":0.1,"max_parallel_tokens":4,"isolate":true,"mix":"top","min_steps":3,` +
		`"dynamic_threshold":{"final":0.5,"curve":"relu","activation_point":0.25}}`
	for own, want := range map[string]string{
		``:                           message + `,"tempo":` + all,
		`,"tempo":null`:              message + `,"tempo":` + all,
		`,"tempo":{}`:                message + `,"tempo":{}`,
		`,"tempo":{"isolate":null}`:  message + `,"tempo":{"isolate":null}`,
		`,"tempo":{"isolate":false}`: message + `,"tempo":{"isolate":false,"selection_threshold":0.1,"max_parallel_tokens":4,"mix":"top","min_steps":3,"dynamic_threshold":{"final":0.5,"curve":"relu","activation_point":0.25}}`,
		`,"tempo":{"selection_threshold":0.3,"mix":"weighted","max_parallel_tokens":null,"min_steps":0,"dynamic_threshold":{}},"n":1`: message +
			`,"n":1,"tempo":{"selection_threshold":0.3,"mix":"weighted","min_steps":0,"dynamic_threshold":{},"max_parallel_tokens":4,"isolate":true}`,
	} {
		lines, faults := read(t, `{"custom_id":"a","url":"/v1/chat/completions","body":{`+message+own+`}}`, Options{Parallel: sets()})
		require.Empty(t, faults, own)
		require.Equal(t, `{`+want+`}`, string(lines[0].Body), own)
	}
	lines, faults := read(t, `{"prompt":"Hi","tempo":{"selection_threshold":0.3}}`, Options{DefaultModel: "m", MaxTokens: 9, Parallel: sets()})
	require.Empty(t, faults)
	req, err := api.ParseRequest(lines[0].URL, lines[0].Body)
	require.NoError(t, err)
	want := sets()
	want.Threshold = 0.3
	require.Equal(t, want, req.Parallel, "the short form")

	line, err := Prompt("Hi", Options{DefaultModel: "m", MaxTokens: 9, Parallel: sets()})
	require.NoError(t, err)
	req, err = api.ParseRequest(line.URL, line.Body)
	require.NoError(t, err)
	require.Equal(t, sets(), req.Parallel)
}

// A line that cannot stand with the flags is refused with the flag's name; what is the
// line's own fault is not put on the flags.
func TestReadClashesWithParallel(t *testing.T) {
	t.Parallel()
	const flag = "--selection-threshold"
	for _, test := range []struct{ fields, field, says, hint string }{
		{`"max_tokens":9,"n":2`, "n", "body.n: cannot stand beside tempo ({", "leave out body.n in this line, give it tempo: {}, or run without " + flag},
		{`"max_tokens":9,"temperature":0`, "temperature", "from --selection-threshold, got 0, allowed: a number over 0, up to 2; one token at each position is what temperature 0 means", "or run without " + flag},
		{`"max_tokens":9,"reproducible":true`, "reproducible", "from --selection-threshold, got true", "leave out body.reproducible"},
		{`"max_tokens":2`, "tempo.min_steps", "body.tempo.min_steps: from --min-steps, over max_tokens (2), got 3", "or run without --min-steps"},
		{`"top_p":1`, "tempo.dynamic_threshold", "body.tempo.dynamic_threshold: from --dynamic-threshold, needs max_tokens", "add max_tokens, or leave out tempo.dynamic_threshold, or run without --dynamic-threshold"},
		{`"max_tokens":9,"n":0`, "n", "body.n: out of range", "set body.n to"},
		{`"max_tokens":9,"n":2,"tempo":{"selection_threshold":0.2}`, "n", "cannot stand beside tempo", "leave out n, or tempo"},
		{`"max_tokens":9,"tempo":{"isolate":1}`, "tempo.isolate", "wrong type", "set body.tempo.isolate to"},
		{`"max_tokens":9,"tempo":[]`, "tempo", "body.tempo: wrong type", "set body.tempo to"},
		{`"max_tokens":9,"tempo":{"isolate":true,"isolate":true}`, "tempo.isolate", "given twice", "set body.tempo.isolate to"},
	} {
		text := fmt.Sprintf(`{"custom_id":"a","url":"/v1/completions","body":{"prompt":"Hi","model":"m",%s}}`, test.fields)
		lines, faults := read(t, text+"\n"+`{"prompt":"next","model":"m","max_tokens":9}`, Options{Parallel: sets()})
		require.Len(t, lines, 1, "the rest runs")
		require.Len(t, faults, 1, test.fields)
		require.Equal(t, "body."+test.field, faults[0].Field)
		require.Contains(t, faults[0].Error(), "prompts.jsonl:1: ")
		require.Contains(t, faults[0].Error(), test.says)
		require.Contains(t, faults[0].Hint(), test.hint)
	}
	_, err := Prompt("Hi", Options{DefaultModel: "m", MaxTokens: 2, Parallel: sets()})
	require.ErrorContains(t, err, "--prompt: tempo.min_steps: from --min-steps, over max_tokens (2)")
}
