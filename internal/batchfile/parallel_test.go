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
		``:                                      message + `,"tempo":` + all,
		`,"tempo":null`:                         message + `,"tempo":` + all,
		`,"tempo":{}`:                           message + `,"tempo":{}`,
		`,"tempo":{"isolate":null}`:             message + `,"tempo":{"isolate":null}`,
		`,"tempo":{"selection_threshold":null}`: message + `,"tempo":{"selection_threshold":null}`,
		`,"tempo":{"isolate":false}`:            message + `,"tempo":{"isolate":false,"selection_threshold":0.1,"max_parallel_tokens":4,"mix":"top","min_steps":3,"dynamic_threshold":{"final":0.5,"curve":"relu","activation_point":0.25}}`,
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
		{`"max_tokens":9,"n":2`, "n", `body.n: cannot stand beside --selection-threshold, got 2, allowed: 1, or "tempo":{} beside it, which has the line generated as usual`, "leave out body.n in this line, give it tempo: {}, or run without " + flag},
		{`"max_tokens":9,"temperature":0`, "temperature", "beside --selection-threshold, got 0, allowed: a number over 0, up to 2; one token at each position is what temperature 0 means, or \"tempo\":{} beside it", "or run without " + flag},
		{`"max_tokens":9,"reproducible":true`, "reproducible", "beside --selection-threshold, got true", "leave out body.reproducible"},
		{`"max_tokens":2`, "tempo.min_steps", "body.tempo.min_steps: from --min-steps, over max_tokens (2), got 3", "lower --min-steps, or raise body.max_tokens in this line"},
		{`"top_p":1`, "tempo.dynamic_threshold", "body.tempo.dynamic_threshold: from --dynamic-threshold, needs max_tokens", "add --max-tokens, or leave out --dynamic-threshold"},
		{`"max_tokens":2,"tempo":{"min_steps":5}`, "tempo.min_steps", "body.tempo.min_steps: over max_tokens (2), got 5", "lower tempo.min_steps, or raise max_tokens"},
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
}

// What is from other flags than those of the sets is named too.
func TestReadClashesWithFlags(t *testing.T) {
	t.Parallel()
	cold := 0.0
	for name, test := range map[string]struct {
		opts             Options
		fields           string
		field, say, hint string
	}{
		"temperature": {
			Options{Temperature: &cold},
			`"tempo":{"selection_threshold":0.1}`,
			"temperature", "body.temperature: from --temperature, cannot stand beside tempo ({", "leave out body.tempo in this line, give it a body.temperature that is allowed, or run without --temperature",
		},
		"reproducible": {
			Options{Reproducible: true},
			`"tempo":{"selection_threshold":0.1}`,
			"reproducible", "body.reproducible: from --reproducible, cannot stand", "or run without --reproducible",
		},
		"default mode": {
			Options{ThresholdOff: true},
			`"tempo":{"isolate":true}`,
			"tempo.selection_threshold", "missing beside tempo.isolate, which refines it; --default-mode has that of --selection-threshold not used", "or run without --default-mode",
		},
		"no default mode": {
			Options{},
			`"tempo":{"isolate":true}`,
			"tempo.selection_threshold", "missing beside tempo.isolate, which refines it, allowed: ", "or leave out tempo",
		},
		"default mode, its own threshold": {
			Options{ThresholdOff: true},
			`"tempo":{"selection_threshold":3}`,
			"tempo.selection_threshold", "out of range, got 3, allowed: ", "",
		},
		"most tokens": {
			Options{MaxTokens: 4},
			`"tempo":{"selection_threshold":0.1,"min_steps":9}`,
			"tempo.min_steps", "body.tempo.min_steps: over --max-tokens (4), got 9", "lower body.tempo.min_steps in this line, or raise --max-tokens",
		},
		"both": {
			Options{MaxTokens: 2, Parallel: sets()},
			`"user":"u"`,
			"tempo.min_steps", "body.tempo.min_steps: from --min-steps, over --max-tokens (2), got 3", "lower --min-steps, or raise --max-tokens",
		},
	} {
		_, faults := read(t, fmt.Sprintf(`{"custom_id":"a","url":"/v1/completions","body":{"prompt":"Hi","model":"m",%s}}`, test.fields), test.opts)
		require.Len(t, faults, 1, name)
		require.Equal(t, "body."+test.field, faults[0].Field, name)
		require.Contains(t, faults[0].Error(), test.say, name)
		require.Contains(t, faults[0].Hint(), test.hint, name)
	}
}

// All that a prompt asks for is from flags.
func TestPromptNamesFlags(t *testing.T) {
	t.Parallel()
	_, err := Prompt("Hi", Options{DefaultModel: "m", MaxTokens: 2, Parallel: sets()})
	require.EqualError(t, err, "--prompt: --min-steps: over --max-tokens (2), got 3, allowed: an integer from 0 to 2")
	var fault *LineError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, "lower --min-steps, or raise --max-tokens", fault.Hint())

	_, err = Prompt("Hi", Options{DefaultModel: "m", Parallel: sets()})
	require.EqualError(t, err, "--prompt: --dynamic-threshold: needs --max-tokens, at whose last position the threshold is final")
	require.ErrorAs(t, err, &fault)
	require.Equal(t, "add --max-tokens, or leave out --dynamic-threshold", fault.Hint())
}
