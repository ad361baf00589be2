package config

import (
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestForLines(t *testing.T) {
	t.Parallel()
	plain := api.Parallel{Threshold: 0.1, Mix: api.MixWeighted}
	with := func(change func(p *api.Parallel)) *api.Parallel {
		p := plain
		change(&p)
		return &p
	}
	for name, test := range map[string]struct {
		args []string
		env  []string
		file string
		want *api.Parallel
	}{
		"nothing":      {},
		"threshold":    {args: []string{"--selection-threshold=0.1"}, want: &plain},
		"variable":     {env: []string{"TEMPO_SELECTION_THRESHOLD=0.1"}, want: &plain},
		"file":         {file: "selection_threshold: 0.1", want: &plain},
		"flag wins":    {args: []string{"--selection-threshold=0.1"}, env: []string{"TEMPO_SELECTION_THRESHOLD=0.2"}, file: "selection_threshold: 0.3", want: &plain},
		"not given":    {file: "selection_threshold: null\nisolate: true\nuse_relu: true\nbezier_p1: 0.5\nattention_threshold: 0.5"},
		"default mode": {file: "selection_threshold: 0.1", args: []string{"--default-mode", "--isolate"}},
		"members": {
			args: []string{"--selection-threshold=0.1", "--isolate", "--mix=top", "--min-steps=4", "--return-parallel-sets"},
			want: with(func(p *api.Parallel) { p.Isolate, p.Mix, p.MinSteps, p.ReturnSets = true, api.MixTop, 4, true }),
		},
		"limits": {
			args: []string{"--selection-threshold=0.1", "--max-parallel-tokens=5", "--max-cache-tokens=512"},
			want: with(func(p *api.Parallel) { p.MaxTokens, p.MaxCacheTokens = 5, 512 }),
		},
		"limits of a local worker": {
			args: []string{"--selection-threshold=0.1", "--max-parallel-tokens=5", "--local"},
			want: with(func(p *api.Parallel) { p.MaxTokens = 5 }),
		},
		"dynamic": {
			args: []string{"--selection-threshold=0.1", "--dynamic-threshold"},
			want: with(func(p *api.Parallel) {
				p.Dynamic = &api.DynamicThreshold{Final: 1, Curve: api.CurveBezier, P1: 0.2, P2: 0.8}
			}),
		},
		"ReLU": {
			args: []string{"--selection-threshold=0.1", "--dynamic-threshold", "--use-relu", "--relu-activation-point=0.25", "--final-threshold=0.5"},
			want: with(func(p *api.Parallel) {
				p.Dynamic = &api.DynamicThreshold{Final: 0.5, Curve: api.CurveReLU, ActivationPoint: 0.25}
			}),
		},
		"removal": {
			args: []string{"--selection-threshold=0.1", "--use-retroactive-removal", "--removal-window=3"},
			want: with(func(p *api.Parallel) {
				p.Removal = &api.RetroactiveRemoval{AttentionThreshold: 0.01, Window: 3}
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := load(t, append(test.args, "--config="+file(t, "c.yaml", test.file)), test.env)
			require.NoError(t, err)
			require.Equal(t, test.want, c.ForLines())
		})
	}
}

// TEMPO's other files, as they are, and its two keys that have other names here.
func TestAncestorParallel(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--config", file(t, "c.yaml", `
max_tokens: 25
selection_threshold: 0.08
use_retroactive_removal: true
attention_threshold: 0.015
use_relative_attention: true
dynamic_threshold: true
final_threshold: 0.3
bezier_points: [0.3, 1]
allow_intraset_token_visibility: false
`)}, nil)
	require.NoError(t, err)
	require.Equal(t, &api.Parallel{
		Threshold: 0.08, Isolate: true, Mix: api.MixWeighted,
		Dynamic: &api.DynamicThreshold{Final: 0.3, Curve: api.CurveBezier, P1: 0.3, P2: 1},
		Removal: &api.RetroactiveRemoval{AttentionThreshold: 0.015, Window: 8},
	}, c.ForLines())
	require.Equal(t, []string{"use_relative_attention=true"}, c.Unused)

	for name, test := range map[string]struct {
		file    string
		env     []string
		args    []string
		isolate bool
		p1, p2  float64
	}{
		"nothing is visible":          {p1: 0.2, p2: 0.8},
		"not visible":                 {file: "allow_intraset_token_visibility: false", isolate: true, p1: 0.2, p2: 0.8},
		"visible":                     {file: "allow_intraset_token_visibility: true", p1: 0.2, p2: 0.8},
		"the newer key wins":          {file: "allow_intraset_token_visibility: false\nisolate: false", p1: 0.2, p2: 0.8},
		"the flag wins":               {file: "allow_intraset_token_visibility: true", args: []string{"--isolate"}, isolate: true, p1: 0.2, p2: 0.8},
		"the variable wins over file": {file: "isolate: true\nbezier_p1: 0.5", env: []string{"TEMPO_ALLOW_INTRASET_TOKEN_VISIBILITY=true", "TEMPO_BEZIER_POINTS=0.3, 0.4"}, p1: 0.3, p2: 0.4},
		"the newer variable wins":     {env: []string{"TEMPO_ALLOW_INTRASET_TOKEN_VISIBILITY=true", "TEMPO_ISOLATE=true"}, isolate: true, p1: 0.2, p2: 0.8},
		"points of a file":            {file: "bezier_points: [0, 1.0]", p2: 1},
		"one point by its own key":    {file: "bezier_points: [0.3, 0.4]\nbezier_p1: 0.5", p1: 0.5, p2: 0.4},
		"points that are null":        {file: "bezier_points: null", p1: 0.2, p2: 0.8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append(test.args, "--selection-threshold=0.1", "--dynamic-threshold", "--config="+file(t, "c.yaml", test.file))
			c, err := load(t, args, test.env)
			require.NoError(t, err)
			require.Equal(t, test.isolate, c.ForLines().Isolate)
			require.InDelta(t, test.p1, c.ForLines().Dynamic.P1, 0)
			require.InDelta(t, test.p2, c.ForLines().Dynamic.P2, 0)
			require.Empty(t, c.Unused)
		})
	}
}

func TestParallelFaults(t *testing.T) {
	t.Parallel()
	const on = "--selection-threshold=0.1"
	for _, test := range []struct {
		args []string
		env  string
		file string
		says string
		hint string
	}{
		{args: []string{"--isolate"}, says: "isolate: given (from flag --isolate) without --selection-threshold, which it refines", hint: "add --selection-threshold, or leave out isolate"},
		{env: "TEMPO_MIX=top", says: "mix: given (from environment TEMPO_MIX) without --selection-threshold", hint: "add --selection-threshold"},
		{args: []string{"--min-steps=1"}, says: "min_steps: given (from flag --min-steps) without --selection-threshold", hint: "leave out min_steps"},
		{args: []string{"--return-parallel-sets"}, says: "without --selection-threshold", hint: "add --selection-threshold"},
		{args: []string{"--dynamic-threshold"}, says: "dynamic_threshold: given (from flag --dynamic-threshold) without --selection-threshold,", hint: "add --selection-threshold"},
		{args: []string{"--use-retroactive-removal"}, says: "without --selection-threshold,", hint: "add --selection-threshold"},
		{args: []string{"--attention-threshold=0.1"}, says: "without --selection-threshold and --use-retroactive-removal,", hint: "add --selection-threshold and --use-retroactive-removal"},
		{args: []string{on, "--attention-threshold=0.1"}, says: "attention_threshold: given (from flag --attention-threshold) without --use-retroactive-removal,", hint: "add --use-retroactive-removal"},
		{args: []string{on, "--removal-window=1"}, says: "without --use-retroactive-removal,", hint: "leave out removal_window"},
		{args: []string{on, "--final-threshold=0.5"}, says: "without --dynamic-threshold,", hint: "add --dynamic-threshold"},
		{args: []string{on, "--use-relu"}, says: "use_relu: given (from flag --use-relu) without --dynamic-threshold,", hint: "add --dynamic-threshold"},
		{args: []string{on, "--dynamic-threshold", "--relu-activation-point=0.5"}, says: "without --use-relu,", hint: "add --use-relu"},
		{args: []string{on, "--dynamic-threshold", "--use-relu", "--bezier-p1=0.2"}, says: "bezier_p1: given (from flag --bezier-p1) beside use_relu (from flag --use-relu), which replaces the Bézier curve", hint: "leave out bezier_p1, or use_relu"},
		{args: []string{"--bezier-p2=0.2"}, file: "selection_threshold: 0.1\ndynamic_threshold: true\nuse_relu: true", says: "beside use_relu (from file ", hint: "leave out bezier_p2, or use_relu"},

		{args: []string{"--max-parallel-tokens=4"}, says: "max_parallel_tokens: given (from flag --max-parallel-tokens) without --selection-threshold", hint: "add --selection-threshold"},
		{args: []string{"--max-cache-tokens=512"}, says: "max_cache_tokens: given (from flag --max-cache-tokens) without --selection-threshold", hint: "add --selection-threshold"},

		{args: []string{on, "--reproducible"}, says: "reproducible: given (from flag --reproducible) beside selection_threshold (from flag --selection-threshold): ", hint: "--default-mode"},
		{args: []string{"--temperature=0"}, file: "selection_threshold: 0.1", says: "beside selection_threshold (from file ", hint: "leave out one of the two"},

		{file: "bezier_points: [0.2]", says: "bezier_points: got [0.2] (from file ", hint: "a list of two numbers"},
		{file: "bezier_points: [a, b]", says: "bezier_points: got [a b] (from file ", hint: "a list of two numbers"},
		{file: "bezier_points: 0.5", says: "bezier_points: got 0.5 (from file ", hint: "a list of two numbers"},
		{env: "TEMPO_BEZIER_POINTS=1,x", says: `bezier_points: got "1,x" (from environment TEMPO_BEZIER_POINTS)`, hint: "a list of two numbers"},
		{file: "bezier_points: [0.2, 7]", says: "bezier_p2: got 7 (from file ", hint: "a number from 0 to 1"},
		{file: "allow_intraset_token_visibility: 1", says: "allow_intraset_token_visibility: got 1 (from file ", hint: "true or false"},
		{file: "bezier_point: [0.2, 0.8]", says: "did you mean bezier_points?", hint: "write bezier_points"},
	} {
		args := append(test.args, "--config="+file(t, "c.yaml", test.file))
		_, err := load(t, args, []string{test.env})
		require.ErrorContains(t, err, test.says)
		require.NotContains(t, err.Error(), "\n", "one fault, one message")
		var hinted interface{ Hint() string }
		require.ErrorAs(t, err, &hinted)
		require.Contains(t, hinted.Hint(), test.hint, test.says)
	}
	made, err := Load(nil, nil)
	require.NoError(t, err)
	made.Parallel.SelectionThreshold, made.Submit.Reproducible = new(0.1), true
	require.EqualError(t, made.Validate(), "reproducible: given beside selection_threshold: what is promised bit for bit has one token at each position")
	_, err = load(t, []string{on}, []string{"TEMPO_BEZIER_POINTS=0.2,0.8"})
	require.ErrorContains(t, err, "bezier_p1: given (from environment TEMPO_BEZIER_POINTS) without --dynamic-threshold")
	require.ErrorContains(t, err, "bezier_p2: given (from environment TEMPO_BEZIER_POINTS) without --dynamic-threshold")
}

// What is not submit's, or has an effect, is no fault.
func TestParallelAccepts(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--isolate=false", "--min-steps=0", "--dynamic-threshold=false", "--use-relu=false", "--use-retroactive-removal=false"},
		{"--max-parallel-tokens=4", "--max-cache-tokens=512", "--local"},
		{"--max-parallel-tokens=4", "--selection-threshold=0.1"},
		{"--max-parallel-tokens=0"},
		{"--selection-threshold=0.1", "--default-mode", "--temperature=0", "--reproducible", "--use-relu", "--bezier-p1=0.1", "--max-cache-tokens=512"},
		{"--selection-threshold=0.1", "--temperature=0.5", "--seed=42", "--dynamic-threshold", "--bezier-p1=0.1"},
	} {
		_, err := load(t, args, nil)
		require.NoError(t, err, args)
	}
	fs := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	WorkerFlags(fs)
	require.NoError(t, fs.Parse([]string{"--max-parallel-tokens=4"}))
	_, err := Load(fs, []string{"TEMPO_MAX_CACHE_TOKENS=512"})
	require.NoError(t, err)
	_, err = load(t, nil, []string{"TEMPO_MAX_PARALLEL_TOKENS=4"})
	require.NoError(t, err, "a worker's variable does submit no harm")
}
