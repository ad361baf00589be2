package plain

import (
	"slices"

	"tempo/api"
)

// Result is what a job came to.
type Result struct {
	// Steps has one for each position, and one without members at the end if a token that
	// ends the text ended it.
	Steps []Step
	// Path has the most probable member left of each set.
	Path     []int32
	Cut      int       // candidates that the width kept out
	Removals []Removal // in their order
	// Finish is "stop" or "length".
	Finish string
}

// Removal says that a member of a set was removed after the decode of a later one.
type Removal struct {
	After        int // the step whose set was decoded
	Step, Member int
}

// passes has the last of the steps go through a model, after all others.
type passes interface {
	// pass returns the logits behind each member of the last step; without steps those
	// behind the prompt.
	pass(steps []Step) ([][]float32, error)
	// remove returns what is removed after the last pass.
	remove(steps []Step) []Removal
}

// run generates by the rules. prompt is the number of the prompt's tokens.
func run(p passes, prompt int, ends func(token int32) bool, job *api.Request, limits Limits) (Result, error) {
	var r Result
	for s := 0; ; s++ {
		logits, err := p.pass(r.Steps)
		if err != nil {
			return r, err
		}
		var before []Member
		if s > 0 {
			before = r.Steps[s-1].Members
			for _, gone := range p.remove(r.Steps) {
				r.Steps[gone.Step].Members[gone.Member].Removed = gone.After
				r.Removals = append(r.Removals, gone)
			}
		}
		step, cut := choose(mix(logits, before, ends, job, s), ends, job, limits, s, used(prompt, r.Steps))
		r.Steps = append(r.Steps, step)
		r.Cut += cut
		switch {
		case len(step.Members) == 0:
			r.Finish = "stop"
		case s+1 == job.MaxTokens, used(prompt, r.Steps) >= cells(job, limits):
			r.Finish = "length"
		default:
			continue
		}
		r.Path = path(r.Steps)
		return r, nil
	}
}

// used is how many cells the prompt and the members that are left take.
func used(prompt int, steps []Step) int {
	for _, s := range steps {
		prompt += s.left()
	}
	return prompt
}

func path(steps []Step) []int32 {
	var tokens []int32
	for _, s := range steps {
		if i := slices.IndexFunc(s.Members, Member.stays); i >= 0 {
			tokens = append(tokens, s.Members[i].Token)
		}
	}
	return tokens
}

// Generate runs a parallel job, by m's own arithmetic. ends says which tokens end a text.
// The job must have been checked: it has Parallel, and a temperature over 0.
func Generate(m *Model, prompt []int32, ends func(token int32) bool, job *api.Request, limits Limits) Result {
	r, _ := run(&scribe{model: m, prompt: prompt, job: job.Parallel}, len(prompt), ends, job, limits) // it has no errors
	return r
}

// scribe has all tokens that there ever were go through a Model, at each step anew.
type scribe struct {
	model  *Model
	prompt []int32
	job    *api.Parallel
	// weight is the attention that the last set gave to member m of step u, averaged.
	weight func(u, m int) float64
}

// place is where a row stands: as a member of a step's set, or in the prompt (step -1).
type place struct{ step, member int }

func (p *scribe) pass(steps []Step) ([][]float32, error) {
	var rows []Row
	var places []place
	for i, token := range p.prompt {
		rows = append(rows, Row{token, i})
		places = append(places, place{-1, i})
	}
	last := len(rows) - 1 // the first row whose logits are wanted
	for s, step := range steps {
		last = len(rows)
		for m, member := range step.Members {
			rows = append(rows, Row{member.Token, len(p.prompt) + s})
			places = append(places, place{s, m})
		}
	}
	logits, attention := p.model.Forward(rows, func(i, j int) bool {
		at, other := places[i], places[j]
		switch {
		case at.step < 0:
			return j <= i
		case other.step < 0:
			return true
		case other.step == at.step:
			return i == j || !p.job.Isolate
		default:
			return other.step < at.step && steps[other.step].Members[other.member].thereAt(at.step)
		}
	})
	p.weight = func(u, m int) float64 {
		j := slices.Index(places, place{u, m})
		var sum float64
		for i := last; i < len(rows); i++ {
			sum += attention[i][j]
		}
		return sum / float64(len(rows)-last)
	}
	return logits[last:], nil
}

func (p *scribe) remove(steps []Step) []Removal {
	if p.job.Removal == nil {
		return nil
	}
	return removals(steps, p.job.Removal, p.weight)
}
