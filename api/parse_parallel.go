package api

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	maxSetTokens   = 256 // llama.cpp's most sequences
	tempoField     = "tempo"
	tempoThreshold = "selection_threshold"
)

// What holds where tempo is silent.
const (
	DefaultFinalThreshold     = 1.0
	DefaultCurve              = CurveBezier
	DefaultP1                 = 0.2
	DefaultP2                 = 0.8
	DefaultActivationPoint    = 0.5
	DefaultAttentionThreshold = 0.01
	DefaultWindow             = 8
)

// tempoMembers are the members of the field tempo.
func tempoMembers() []string {
	return []string{
		tempoThreshold, "max_parallel_tokens", "isolate", "mix", "min_steps", "dynamic_threshold", "max_cache_tokens",
		"retroactive_removal", "return_parallel_sets",
	}
}

// parallel reads the field tempo into Request.Parallel, which stays nil if the field has
// no member.
func (p *parser) parallel(raw json.RawMessage) {
	if kind(raw) != "object" {
		p.fault(tempoField, problemType, raw, "an object with "+tempoThreshold)
		return
	}
	fields := p.known(tempoField+".", raw, tempoMembers()...)
	if len(fields) == 0 { // null counts as not given here too
		return
	}
	to := &Parallel{Mix: MixWeighted}
	for _, m := range fields {
		p.parallelMember(tempoField+"."+m.Name, m, to)
	}
	if !slices.ContainsFunc(fields, func(m Member) bool { return m.Name == tempoThreshold }) {
		const threshold = tempoField + "." + tempoThreshold
		p.faults = append(p.faults, &FieldError{
			Field: threshold, Problem: fmt.Sprintf("missing beside %s.%s, which refines it", tempoField, fields[0].Name),
			Allowed: AllowedThreshold + " (null counts as missing)",
			Advice:  fmt.Sprintf("add %s: %s, or leave out %s", threshold, AllowedThreshold, tempoField),
		})
	}
	p.req.Parallel = to
}

// known returns the members of a valid object that are given, and notes those that are
// none of names; path ends in a dot.
func (p *parser) known(path string, raw json.RawMessage, names ...string) (given []Member) {
	for _, m := range p.object(path, raw) {
		switch {
		case !slices.Contains(names, m.Name):
			p.unknown(path, m.Name, names)
		case !m.Null():
			given = append(given, m)
		}
	}
	return given
}

func (p *parser) parallelMember(at string, m Member, to *Parallel) {
	switch m.Name {
	case tempoThreshold:
		p.number(at, m.Value, MinThreshold, 1, AllowedThreshold, &to.Threshold)
	case "max_parallel_tokens":
		p.count(at, m.Value, 1, maxSetTokens, fmt.Sprintf("an integer from 1 to %d", maxSetTokens), &to.MaxTokens)
	case "isolate":
		p.boolean(at, m.Value, &to.Isolate)
	case "mix":
		p.choice(at, m.Value, &to.Mix, MixWeighted, MixTop)
	case "min_steps":
		p.count(at, m.Value, 0, math.MaxInt32, "an integer from 0 to max_tokens", &to.MinSteps)
	case "dynamic_threshold":
		to.Dynamic = p.dynamicThreshold(at, m.Value)
	case "max_cache_tokens":
		p.count(at, m.Value, 2, math.MaxInt32, "an integer of 2 or more", &to.MaxCacheTokens)
	case "retroactive_removal":
		to.Removal = p.retroactiveRemoval(at, m.Value)
	case "return_parallel_sets":
		p.boolean(at, m.Value, &to.ReturnSets)
	}
}

// dynamicThreshold reads how the threshold changes; an empty object asks for the defaults.
func (p *parser) dynamicThreshold(path string, raw json.RawMessage) *DynamicThreshold {
	d := &DynamicThreshold{Final: DefaultFinalThreshold, Curve: DefaultCurve}
	if kind(raw) != "object" {
		p.fault(path, problemType, raw, "an object; {} asks for the defaults")
		return d
	}
	const unit = "a number from 0 to 1"
	p1, p2, point := DefaultP1, DefaultP2, DefaultActivationPoint
	fields := p.known(path+".", raw, "final", "curve", "p1", "p2", "activation_point")
	for _, f := range fields {
		at := path + "." + f.Name
		switch f.Name {
		case "final":
			p.number(at, f.Value, MinThreshold, 1, AllowedThreshold, &d.Final)
		case "curve":
			p.choice(at, f.Value, &d.Curve, CurveLinear, CurveBezier, CurveReLU)
		case "p1":
			p.number(at, f.Value, 0, 1, unit, &p1)
		case "p2":
			p.number(at, f.Value, 0, 1, unit, &p2)
		case "activation_point":
			p.number(at, f.Value, 0, 1, unit, &point)
		}
	}
	switch d.Curve {
	case CurveBezier:
		d.P1, d.P2 = p1, p2
	case CurveReLU:
		d.ActivationPoint = point
	}
	p.ofCurve(path, d.Curve, fields)
	return d
}

// ofCurve notes what belongs to another curve than the one that is asked for.
func (p *parser) ofCurve(path, curve string, fields []Member) {
	for _, f := range fields {
		var belongs string
		switch f.Name {
		case "p1", "p2":
			belongs = CurveBezier
		case "activation_point":
			belongs = CurveReLU
		}
		if belongs != "" && belongs != curve {
			p.fault(path+"."+f.Name, fmt.Sprintf("cannot stand beside curve (%q)", curve), f.Value, fmt.Sprintf("only with the curve %q", belongs))
		}
	}
}

// retroactiveRemoval reads when tokens are taken back; an empty object asks for the defaults.
func (p *parser) retroactiveRemoval(path string, raw json.RawMessage) *RetroactiveRemoval {
	r := &RetroactiveRemoval{AttentionThreshold: DefaultAttentionThreshold, Window: DefaultWindow}
	if kind(raw) != "object" {
		p.fault(path, problemType, raw, "an object; {} asks for the defaults")
		return r
	}
	for _, f := range p.known(path+".", raw, "attention_threshold", "window") {
		at := path + "." + f.Name
		switch f.Name {
		case "attention_threshold":
			p.number(at, f.Value, 0, 1, "a number from 0 to 1", &r.AttentionThreshold)
		case "window":
			p.count(at, f.Value, 1, MaxWindow, fmt.Sprintf("an integer from 1 to %d", MaxWindow), &r.Window)
		}
	}
	return r
}

// besideParallel checks what cannot stand beside several tokens at one position.
func (p *parser) besideParallel() {
	const noPenalty = "0 (off)"
	r, s, to := &p.req, &p.req.Sampling, p.req.Parallel
	for _, rule := range []struct {
		broken         bool
		field, allowed string
	}{
		{r.N > 1, "n", "1"},
		{p.bestOf != nil && *p.bestOf > 1, "best_of", "1"},
		{r.Logprobs, "logprobs", "none: tempo.return_parallel_sets lists the probabilities"},
		{r.TopLogprobs > 0 && r.URL == ChatCompletions, "top_logprobs", "0: tempo.return_parallel_sets lists the probabilities"},
		{r.Grammar != "", "grammar", "none"},
		{r.Schema != nil, "response_format", `{"type":"text"}`},
		{r.Reproducible, "reproducible", "false"},
		{s.TopP != 1, "top_p", "1 (off): selection_threshold says which tokens are taken"},
		{s.TopK != 0, "top_k", "0 (off): max_parallel_tokens says how many tokens are taken"},
		{s.MinP != 0, "min_p", "0 (off): selection_threshold says which tokens are taken"},
		{s.PresencePenalty != 0, "presence_penalty", noPenalty},
		{s.FrequencyPenalty != 0, "frequency_penalty", noPenalty},
		{s.RepeatPenalty != 1, "repeat_penalty", "1 (off)"},
	} {
		if rule.broken {
			p.besideTempo(rule.field, rule.allowed, fmt.Sprintf("leave out %s, or tempo", rule.field))
		}
	}
	if s.Temperature == 0 {
		const why = "one token at each position is what temperature 0 means"
		p.besideTempo("temperature", "a number over 0, up to 2; "+why, why+": leave out tempo, or the temperature")
	}
	if r.MaxTokens > 0 && to.MinSteps > r.MaxTokens {
		p.faults = append(p.faults, &FieldError{
			Field: "tempo.min_steps", Problem: fmt.Sprintf("over max_tokens (%d)", r.MaxTokens), Value: strconv.Itoa(to.MinSteps),
			Allowed: fmt.Sprintf("an integer from 0 to %d", r.MaxTokens), Advice: "lower tempo.min_steps, or raise max_tokens", Beside: "max_tokens",
		})
	}
	if to.Dynamic != nil && p.given("max_tokens") == nil && p.given("max_completion_tokens") == nil {
		p.faults = append(p.faults, &FieldError{
			Field: "tempo.dynamic_threshold", Problem: "needs max_tokens, at whose last position the threshold is final",
			Advice: "add max_tokens, or leave out tempo.dynamic_threshold", Beside: "max_tokens",
		})
	}
}

// besideTempo is clash for what tempo rules out, with what to change.
func (p *parser) besideTempo(field, allowed, advice string) {
	p.faults = append(p.faults, &FieldError{
		Field: field, Problem: fmt.Sprintf("cannot stand beside tempo (%s)", show(p.given(tempoField))),
		Value: show(p.given(field)), Allowed: allowed, Advice: advice, Beside: tempoField,
	})
}

// count reads an integer into an int.
func (p *parser) count(path string, raw json.RawMessage, low, high int64, allowed string, into *int) {
	if n, ok := p.integer(path, raw, low, high, allowed); ok {
		*into = int(n)
	}
}

// choice reads one of the words allowed.
func (p *parser) choice(path string, raw json.RawMessage, into *string, allowed ...string) {
	quoted := make([]string, len(allowed))
	for i, word := range allowed {
		if quoted[i] = strconv.Quote(word); quoted[i] == string(raw) {
			*into = word
			return
		}
	}
	p.oneOf(path, raw, strings.Join(quoted, ", "))
}

// Members are those of the field tempo that ask for p, in the order of the manual,
// without what is the default anyway.
func (p *Parallel) Members() []Member {
	type dynamic struct {
		Final           float64  `json:"final"`
		Curve           string   `json:"curve"`
		P1              *float64 `json:"p1,omitempty"`
		P2              *float64 `json:"p2,omitempty"`
		ActivationPoint *float64 `json:"activation_point,omitempty"`
	}
	type removal struct {
		AttentionThreshold float64 `json:"attention_threshold"`
		Window             int     `json:"window"`
	}
	body := struct {
		Threshold      float64  `json:"selection_threshold"`
		MaxTokens      int      `json:"max_parallel_tokens,omitempty"`
		Isolate        bool     `json:"isolate,omitempty"`
		Mix            string   `json:"mix,omitempty"`
		MinSteps       int      `json:"min_steps,omitempty"`
		Dynamic        *dynamic `json:"dynamic_threshold,omitempty"`
		MaxCacheTokens int      `json:"max_cache_tokens,omitempty"`
		Removal        *removal `json:"retroactive_removal,omitempty"`
		ReturnSets     bool     `json:"return_parallel_sets,omitempty"`
	}{
		Threshold: p.Threshold, MaxTokens: p.MaxTokens, Isolate: p.Isolate, MinSteps: p.MinSteps,
		MaxCacheTokens: p.MaxCacheTokens, ReturnSets: p.ReturnSets,
	}
	if p.Mix != MixWeighted {
		body.Mix = p.Mix
	}
	if d := p.Dynamic; d != nil {
		body.Dynamic = &dynamic{Final: d.Final, Curve: d.Curve}
		switch d.Curve {
		case CurveBezier:
			body.Dynamic.P1, body.Dynamic.P2 = &d.P1, &d.P2
		case CurveReLU:
			body.Dynamic.ActivationPoint = &d.ActivationPoint
		}
	}
	if r := p.Removal; r != nil {
		body.Removal = &removal{r.AttentionThreshold, r.Window}
	}
	raw, _ := json.Marshal(body) // numbers within their ranges, and words
	all, _ := members("", raw)   // a valid object
	return all
}
