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
		"output_dir":                   "./output",
		"output_json":                  false,
		"json_output_file":             "",
		"use_relative_attention":       false,
		"no_relative_attention":        false,
		"relative_threshold":           0.5,
		"use_multi_scale_attention":    false,
		"no_multi_scale_attention":     false,
		"num_layers_to_use":            nil,
		"use_lci_dynamic_threshold":    false,
		"no_lci_dynamic_threshold":     false,
		"use_sigmoid_threshold":        false,
		"no_sigmoid_threshold":         false,
		"sigmoid_steepness":            10.0,
		"use_mcts":                     false,
		"mcts_simulations":             10,
		"mcts_c_puct":                  1.0,
		"mcts_depth":                   5,
		"enable_thinking":              false,
		"show_token_ids":               false,
		"use_custom_rope":              true,
		"disable_kv_cache_consistency": false,
		"disable_kv_cache":             false,
		"no_preserve_isolated_tokens":  false,
		"complete_removal_mode":        "keep_token",
		"profile":                      false,
		"use_cprofile":                 false,
		"profile_output":               "tempo_profile.prof",
	}
}

// ancestorNames are keys of TEMPO's that say in another way what keys say. Those win
// over them, in one file or in the environment.
func ancestorNames() []string {
	return []string{"allow_intraset_token_visibility", "bezier_points"}
}

// translate notes the value of one of ancestorNames under the keys that it is for.
func (l *loader) translate(name string, value any, from source) {
	set := func(key string, value any) {
		if has, ok := l.sources[key]; !ok || has.text != from.text {
			l.given[key], l.sources[key] = value, from
		}
	}
	allowed := "true or false"
	if name == "bezier_points" {
		allowed = "a list of two numbers, bezier_p1 and bezier_p2"
		if pair, ok := points(value); ok {
			set("bezier_p1", pair[0])
			set("bezier_p2", pair[1])
			return
		}
	} else if visible, problem := convert(value, false, from.text); problem == "" {
		set("isolate", visible == false)
		return
	}
	l.faults = append(l.faults, &ValueError{Key: name, Value: show(value), Allowed: allowed, Source: from.name})
}

// points takes two numbers, in a list or, of a variable, in a text with a comma.
func points(value any) (pair [2]float64, ok bool) {
	var list []any
	switch value := value.(type) {
	case []any:
		list = value
	case string:
		for _, text := range splitList(value) {
			list = append(list, parse(text, 0.0))
		}
	}
	if len(list) != len(pair) {
		return pair, false
	}
	for i, one := range list {
		if pair[i], ok = number(one); !ok {
			return pair, false
		}
	}
	return pair, true
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
