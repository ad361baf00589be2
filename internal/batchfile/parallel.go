package batchfile

import (
	"fmt"
	"slices"
	"strings"

	"tempo/api"
)

const (
	tempo     = "tempo"
	threshold = "tempo.selection_threshold"
	minSteps  = "tempo.min_steps"
	dynamic   = "tempo.dynamic_threshold"
	maxTokens = "max_tokens"
)

// addParallel adds to the body's tempo the members that it leaves open. One that is
// there and has none asks for one token at each position, and one that is not right stays
// as it is, to be refused.
func (l *parsed) addParallel(p *api.Parallel) {
	var members []api.Member
	i := slices.IndexFunc(l.body, func(m api.Member) bool { return m.Name == tempo && !m.Null() })
	if i >= 0 {
		var err error
		members, err = api.Members(l.body[i].Value)
		if err != nil || !slices.ContainsFunc(members, func(m api.Member) bool { return !m.Null() }) {
			return
		}
	} else {
		l.added = append(l.added, tempo)
	}
	for _, m := range p.Members() {
		if !given(members, m.Name) {
			members = replace(members, m)
			l.added = append(l.added, tempo+"."+m.Name)
		}
	}
	l.body = replace(l.body, api.Member{Name: tempo, Value: join(members)})
}

// nameFlags has those faults name flags of submit that come from them, not from the line. The
// ranges of their values are checked before, so that these are fields that cannot stand
// together.
func (l *parsed) nameFlags(faults []*api.FieldError, opts Options) {
	for _, f := range faults {
		if opts.ThresholdOff && f.Field == threshold && strings.HasPrefix(f.Problem, "missing") {
			f.Problem += "; --default-mode has that of --selection-threshold not used"
			f.Advice += ", or run without --default-mode"
			continue
		}
		flag, beside := l.flag(f.Field), l.flag(f.Beside)
		if flag == "" && beside == "" {
			continue
		}
		switch {
		case f.Field == minSteps:
			f.Advice = fmt.Sprintf("lower %s, or raise %s", l.source(f.Field), l.source(maxTokens))
		case f.Field == dynamic:
			f.Advice = fmt.Sprintf("add --max-tokens, or leave out %s", l.source(f.Field))
		case f.Beside == tempo && flag != "":
			f.Advice = fmt.Sprintf("leave out %s%s in this line, give it a %[1]s%[3]s that is allowed, or run without %[4]s", l.prefix, tempo, f.Field, flag)
		case f.Beside == tempo:
			f.Problem = "cannot stand beside " + beside
			f.Allowed += `, or "tempo":{} beside it, which has the line generated as usual`
			f.Advice = fmt.Sprintf("leave out %s%s in this line, give it %s: {}, or run without %s", l.prefix, f.Field, tempo, beside)
		}
		if f.Beside == maxTokens && (beside != "" || l.prompt) {
			f.Problem = strings.Replace(f.Problem, maxTokens, flagOf(maxTokens), 1)
		}
		switch {
		case flag != "" && l.prompt:
			f.Field = flag
		case flag != "":
			f.Problem = fmt.Sprintf("from %s, %s", flag, f.Problem)
		}
	}
}

// flag is the flag that a field of the body is from; "" = it is the line's own, or not there.
func (l *parsed) flag(field string) string {
	if !slices.Contains(l.added, field) {
		return ""
	}
	return flagOf(field)
}

// source is where a user changes a field: its flag, or the field in the line.
func (l *parsed) source(field string) string {
	if flag := l.flag(field); flag != "" {
		return flag
	}
	return l.prefix + field + " in this line"
}

// flagOf is the flag that gives lines a field that they leave open.
func flagOf(field string) string {
	switch field {
	case tempo:
		return "--selection-threshold"
	case tempo + ".retroactive_removal":
		return "--use-retroactive-removal"
	}
	return "--" + strings.ReplaceAll(strings.TrimPrefix(field, tempo+"."), "_", "-")
}
