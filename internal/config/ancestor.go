package config

import (
	"fmt"
	"os"
	"strings"
)

// ancestorDefaults has the keys of TEMPO's config.yaml that have no effect
// here, with their values in its complete example. What TEMPO and this program
// share stands in keys.
func ancestorDefaults() map[string]any {
	return map[string]any{
		"selection_threshold":             0.1,
		"min_steps":                       0,
		"output_dir":                      "./output",
		"output_json":                     false,
		"json_output_file":                "",
		"isolate":                         false,
		"use_retroactive_removal":         false,
		"attention_threshold":             0.01,
		"use_relative_attention":          false,
		"no_relative_attention":           false,
		"relative_threshold":              0.5,
		"use_multi_scale_attention":       false,
		"no_multi_scale_attention":        false,
		"num_layers_to_use":               nil,
		"dynamic_threshold":               false,
		"final_threshold":                 1.0,
		"bezier_p1":                       0.2,
		"bezier_p2":                       0.8,
		"bezier_points":                   []any{0.2, 0.8},
		"use_relu":                        false,
		"relu_activation_point":           0.5,
		"use_lci_dynamic_threshold":       false,
		"no_lci_dynamic_threshold":        false,
		"use_sigmoid_threshold":           false,
		"no_sigmoid_threshold":            false,
		"sigmoid_steepness":               10.0,
		"use_mcts":                        false,
		"mcts_simulations":                10,
		"mcts_c_puct":                     1.0,
		"mcts_depth":                      5,
		"enable_thinking":                 false,
		"default_mode":                    false,
		"show_token_ids":                  false,
		"use_custom_rope":                 true,
		"disable_kv_cache_consistency":    false,
		"disable_kv_cache":                false,
		"allow_intraset_token_visibility": false,
		"no_preserve_isolated_tokens":     false,
		"complete_removal_mode":           "keep_token",
		"profile":                         false,
		"use_cprofile":                    false,
		"profile_output":                  "tempo_profile.prof",
	}
}

// unused describes a key of TEMPO's that was given.
func unused(name string, value, def any) string {
	if fmt.Sprint(value) == fmt.Sprint(def) {
		return name
	}
	return fmt.Sprintf("%s=%v", name, value)
}

// isRepository reports whether a model is named as on Hugging Face (owner/name),
// as TEMPO's files do, and is no file here. TEMPO's have one model, not a list.
func isRepository(value any) bool {
	model, ok := value.(string)
	if !ok {
		return false
	}
	owner, name, ok := strings.Cut(model, "/")
	if !ok || owner == "" || name == "" || strings.HasPrefix(owner, ".") ||
		strings.ContainsAny(owner, "~=") || strings.Contains(name, "/") || strings.HasSuffix(name, ".gguf") {
		return false
	}
	_, err := os.Stat(model)
	return err != nil
}
