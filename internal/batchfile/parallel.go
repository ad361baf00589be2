package batchfile

import (
	"fmt"
	"slices"
	"strings"

	"tempo/api"
)

const tempo = "tempo"

// addParallel adds to the body's tempo the members that it leaves open. One that is
// there and has none asks for one token at each position, and one that is not right stays
// as it is, to be refused.
func (l *parsed) addParallel(p *api.Parallel) {
	var members []api.Member
	if i := slices.IndexFunc(l.body, func(m api.Member) bool { return m.Name == tempo && !m.Null() }); i >= 0 {
		var err error
		members, err = api.Members(l.body[i].Value)
		if err != nil || !slices.ContainsFunc(members, func(m api.Member) bool { return !m.Null() }) {
			return
		}
	}
	for _, m := range p.Members() {
		if !given(members, m.Name) {
			members = replace(members, m)
		}
	}
	l.own = slices.Clone(l.body)
	l.body = replace(l.body, api.Member{Name: tempo, Value: join(members)})
}

// nameFlags tells the flags in those faults that are not the line's own.
func (l *parsed) nameFlags(faults []*api.FieldError) {
	if l.own == nil {
		return
	}
	_, err := api.ParseRequest(l.line.URL, join(l.own))
	own := api.FieldErrors(err)
	for _, f := range faults {
		if slices.ContainsFunc(own, func(o *api.FieldError) bool { return o.Field == f.Field }) {
			continue
		}
		flag := flagOf(f.Field)
		if strings.HasPrefix(f.Field, tempo+".") {
			f.Advice = fmt.Sprintf("%s, or run without %s", f.Hint(), flag)
			f.Problem = fmt.Sprintf("from %s, %s", flag, f.Problem)
			continue
		}
		f.Advice = fmt.Sprintf("leave out %s%s in this line, give it %s: {}, or run without %s", l.prefix, f.Field, tempo, flag)
		f.Problem += " from " + flag
	}
}

// flagOf is the flag that a fault is from. The values of the others are checked before.
func flagOf(field string) string {
	switch field {
	case "tempo.min_steps":
		return "--min-steps"
	case "tempo.dynamic_threshold":
		return "--dynamic-threshold"
	default:
		return "--selection-threshold"
	}
}
