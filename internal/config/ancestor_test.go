package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// TEMPO's complete example, as it is.
const ancestorExample = `
prompt: "The cat sat on the"
max_tokens: 30
selection_threshold: 0.1
min_steps: 0
seed: 42
model: "deepcogito/cogito-v1-preview-llama-3B"
output_dir: "./output"
use_retroactive_removal: false
attention_threshold: 0.01
use_relative_attention: false
no_relative_attention: false
relative_threshold: 0.5
use_multi_scale_attention: false
no_multi_scale_attention: false
num_layers_to_use: null
dynamic_threshold: false
final_threshold: 1.0
bezier_points: [0.2, 0.8]
use_relu: false
relu_activation_point: 0.5
use_lci_dynamic_threshold: false
no_lci_dynamic_threshold: false
use_sigmoid_threshold: false
no_sigmoid_threshold: false
sigmoid_steepness: 10.0
use_mcts: false
mcts_simulations: 10
mcts_c_puct: 1.0
mcts_depth: 5
enable_thinking: false
default_mode: false
show_token_ids: false
use_custom_rope: true
debug_mode: false
disable_kv_cache_consistency: false
disable_kv_cache: false
allow_intraset_token_visibility: false
no_preserve_isolated_tokens: false
complete_removal_mode: "keep_token"
profile: false
use_cprofile: false
profile_output: "tempo_profile.prof"
`

func TestAncestorExample(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--config", file(t, "config.yaml", ancestorExample)}, nil)
	require.NoError(t, err)
	require.Equal(t, "The cat sat on the", c.Submit.Prompt)
	require.Equal(t, 30, c.Submit.MaxTokens)
	require.Equal(t, uint32(42), *c.Submit.Seed)
	require.Equal(t, "info", c.Log.Level)
	require.Empty(t, c.Engine.Model, "a repository is no file")
	require.Contains(t, c.Unused, "model=deepcogito/cogito-v1-preview-llama-3B")
	for _, u := range c.Unused {
		require.True(t, u == "model=deepcogito/cogito-v1-preview-llama-3B" || !strings.Contains(u, "="), u)
	}
	require.Equal(t, &api.Parallel{Threshold: 0.1, Isolate: true, Mix: api.MixWeighted}, c.ForLines())
	const used, null = 15, 1 // prompt, max_tokens, seed, debug_mode and what is about sets; num_layers_to_use
	require.Len(t, c.Unused, strings.Count(ancestorExample, "\n")-1-used-null)
}

func TestAncestorValuesThatDiffer(t *testing.T) {
	t.Parallel()
	path := file(t, "config.json", `{
		"max_memory_gb": 24, "max_parallel_tokens": 10, "max_cache_tokens": 4096, "debug_mode": true, "isolate": false,
		"selection_threshold": 0.25, "sigmoid_steepness": 10, "bezier_points": [0.1, 0.8], "num_layers_to_use": 4, "output_dir": "x"}`)
	c, err := load(t, []string{"--config", path}, []string{"TEMPO_USE_MCTS=true"})
	require.NoError(t, err)
	require.Equal(t, Memory{
		MaxGB: 24, MaxParallelTokens: 10, MaxCacheTokens: 4096, Warn: 0.85, Act: 0.95,
		CacheTypeK: "f16", CacheTypeV: "f16", KVLayout: "auto", SwapGB: 4,
	}, c.Memory)
	require.Equal(t, "debug", c.Log.Level)
	require.Equal(t, []string{
		"num_layers_to_use=4", "output_dir=x", "sigmoid_steepness", "use_mcts=true",
	}, c.Unused)
	require.Equal(t, &api.Parallel{Threshold: 0.25, Mix: api.MixWeighted, MaxTokens: 10, MaxCacheTokens: 4096}, c.ForLines())
	require.InDelta(t, 0.1, c.Parallel.BezierP1, 0)
}

func TestModelOfAFile(t *testing.T) {
	t.Parallel()
	real := file(t, "weights", "x")
	for model, taken := range map[string]bool{
		real: true, "models/m.gguf": true, "./models/m": true, "/models/m": true, "a/b/c": true, "m": true, "m=a/b": true,
		"owner/name": false, "Qwen/Qwen2.5-0.5B-Instruct": false,
	} {
		c, err := load(t, []string{"--config", file(t, "c.yaml", fmt.Sprintf("model: %q", model))}, nil)
		require.NoError(t, err)
		require.Equal(t, taken, slices.Equal(c.Engine.Model, []string{model}), model)
		require.Equal(t, taken, len(c.Unused) == 0, model)
	}
	c, err := load(t, []string{"--model=owner/name"}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"owner/name"}, c.Engine.Model, "a flag always counts")
	c, err = load(t, []string{"--config", file(t, "c.yaml", "model: [owner/name]")}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"owner/name"}, c.Engine.Model, "TEMPO's files have no list")
}
