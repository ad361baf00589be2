package config

import (
	"fmt"
	"slices"
	"strings"

	"tempo/api"
)

// Parallel asks for several tokens at one position, under TEMPO's names. It is for lines
// that do not say; SelectionThreshold is what asks, the others refine it.
type Parallel struct {
	SelectionThreshold  *float64 `mapstructure:"selection_threshold"` // api.MinThreshold to 1; nil = one token at each position
	Isolate             bool     `mapstructure:"isolate"`
	Mix                 string   `mapstructure:"mix"` // weighted or top
	MinSteps            int      `mapstructure:"min_steps"`
	DynamicThreshold    bool     `mapstructure:"dynamic_threshold"`
	FinalThreshold      float64  `mapstructure:"final_threshold"` // api.MinThreshold to 1
	BezierP1            float64  `mapstructure:"bezier_p1"`       // 0 to 1
	BezierP2            float64  `mapstructure:"bezier_p2"`       // 0 to 1
	UseReLU             bool     `mapstructure:"use_relu"`        // instead of the Bézier curve
	ReLUActivationPoint float64  `mapstructure:"relu_activation_point"`
	UseRemoval          bool     `mapstructure:"use_retroactive_removal"`
	AttentionThreshold  float64  `mapstructure:"attention_threshold"` // 0 to 1
	RemovalWindow       int      `mapstructure:"removal_window"`      // positions
	ReturnSets          bool     `mapstructure:"return_parallel_sets"`
	DefaultMode         bool     `mapstructure:"default_mode"` // one token at each position, whatever the others say
}

func (p Parallel) on() bool { return p.SelectionThreshold != nil && !p.DefaultMode }

// ForLines is what lines ask for that do not say; nil = one token at each position.
// Among it are the limits of Memory, which a line can have for itself.
func (c *Config) ForLines() *api.Parallel {
	p := c.Parallel
	if !p.on() {
		return nil
	}
	to := &api.Parallel{
		Threshold: *p.SelectionThreshold, MaxTokens: c.Memory.MaxParallelTokens, Isolate: p.Isolate, Mix: p.Mix,
		MinSteps: p.MinSteps, MaxCacheTokens: c.Memory.MaxCacheTokens, ReturnSets: p.ReturnSets,
	}
	switch {
	case p.DynamicThreshold && p.UseReLU:
		to.Dynamic = &api.DynamicThreshold{Final: p.FinalThreshold, Curve: api.CurveReLU, ActivationPoint: p.ReLUActivationPoint}
	case p.DynamicThreshold:
		to.Dynamic = &api.DynamicThreshold{Final: p.FinalThreshold, Curve: api.CurveBezier, P1: p.BezierP1, P2: p.BezierP2}
	}
	if p.UseRemoval {
		to.Removal = &api.RetroactiveRemoval{AttentionThreshold: p.AttentionThreshold, Window: p.RemovalWindow}
	}
	return to
}

func (c *Config) validateParallel(v *validator) {
	const share = "a number from 0 to 1"
	p := c.Parallel
	if t := p.SelectionThreshold; t != nil {
		v.check("selection_threshold", *t, *t >= api.MinThreshold && *t <= 1, api.AllowedThreshold)
	}
	v.oneOf("mix", p.Mix, api.MixWeighted, api.MixTop)
	v.check("min_steps", p.MinSteps, p.MinSteps >= 0, "0 or more")
	v.check("final_threshold", p.FinalThreshold, p.FinalThreshold >= api.MinThreshold && p.FinalThreshold <= 1, api.AllowedThreshold)
	for _, s := range []struct {
		key   string
		value float64
	}{
		{"bezier_p1", p.BezierP1},
		{"bezier_p2", p.BezierP2},
		{"relu_activation_point", p.ReLUActivationPoint},
		{"attention_threshold", p.AttentionThreshold},
	} {
		v.check(s.key, s.value, s.value >= 0 && s.value <= 1, share)
	}
	v.check("removal_window", p.RemovalWindow, p.RemovalWindow >= 1 && p.RemovalWindow <= api.MaxWindow, fmt.Sprintf("1 to %d", api.MaxWindow))
	if !p.DefaultMode {
		c.validateRefinements(v)
		c.validateBeside(v)
	}
}

// validateRefinements checks that what a flag or a variable gives has an effect. A file may
// have all settings, of which those that are not needed are passed over.
func (c *Config) validateRefinements(v *validator) {
	const threshold, dynamic, relu, removal = "selection_threshold", "dynamic_threshold", "use_relu", "use_retroactive_removal"
	p := c.Parallel
	on := map[string]bool{threshold: p.on(), dynamic: p.DynamicThreshold, relu: p.UseReLU, removal: p.UseRemoval}
	for _, r := range []struct {
		key   string
		asks  bool // false = it is switched off, which is no wrong
		needs []string
	}{
		{"isolate", p.Isolate, []string{threshold}},
		{"mix", true, []string{threshold}},
		{"min_steps", p.MinSteps > 0, []string{threshold}},
		{"return_parallel_sets", p.ReturnSets, []string{threshold}},
		{dynamic, p.DynamicThreshold, []string{threshold}},
		{"final_threshold", true, []string{threshold, dynamic}},
		{"bezier_p1", true, []string{threshold, dynamic}},
		{"bezier_p2", true, []string{threshold, dynamic}},
		{relu, p.UseReLU, []string{threshold, dynamic}},
		{"relu_activation_point", true, []string{threshold, dynamic, relu}},
		{removal, p.UseRemoval, []string{threshold}},
		{"attention_threshold", true, []string{threshold, removal}},
		{"removal_window", true, []string{threshold, removal}},
	} {
		from := v.sources[r.key]
		if !from.text || !r.asks {
			continue
		}
		missing := slices.DeleteFunc(r.needs, func(key string) bool { return on[key] || v.sources[key].unread })
		switch {
		case len(missing) > 0:
			v.faults = append(v.faults, without(r.key, from, missing...))
		case strings.HasPrefix(r.key, "bezier") && p.UseReLU:
			v.faults = append(v.faults, &ClashError{
				Key: r.key, Source: from.name, Fault: "beside use_relu" + v.from(relu) + ", which replaces the Bézier curve",
				Advice: fmt.Sprintf("leave out %s, or use_relu", r.key),
			})
		}
	}
}

// without is the fault of a setting that has no effect without others.
func without(key string, from source, missing ...string) *ClashError {
	flags := make([]string, len(missing))
	for i, m := range missing {
		flags[i] = flagOf(m)
	}
	needs := strings.Join(flags, " and ")
	return &ClashError{
		Key: key, Source: from.name, Fault: "without " + needs + ", which it refines",
		Advice: fmt.Sprintf("add %s, or leave out %s", needs, key),
	}
}

// validateBeside checks what would have every line refused.
func (c *Config) validateBeside(v *validator) {
	if !c.Parallel.on() {
		return
	}
	clash := func(key, why string) {
		v.faults = append(v.faults, &ClashError{
			Key: key, Source: v.sources[key].name, Fault: "beside selection_threshold" + v.from("selection_threshold") + ": " + why,
			Advice: "leave out one of the two; --default-mode has selection_threshold not used",
		})
	}
	if t := c.Submit.Temperature; t != nil && *t == 0 {
		clash("temperature", "one token at each position is what temperature 0 means")
	}
	if c.Submit.Reproducible {
		clash("reproducible", "what is promised bit for bit has one token at each position")
	}
}

// validateLimits checks that the limits that flags of submit give have an effect: without
// a worker of its own they are for the sets of its lines.
func (c *Config) validateLimits(v *validator) {
	if c.Submit.Local || c.Parallel.SelectionThreshold != nil || c.Parallel.DefaultMode {
		return
	}
	check := func(key string, limit int) {
		if from := v.sources[key]; from.isFlag && limit != 0 {
			v.faults = append(v.faults, without(key, from, "selection_threshold"))
		}
	}
	check("max_parallel_tokens", c.Memory.MaxParallelTokens)
	check("max_cache_tokens", c.Memory.MaxCacheTokens)
}
