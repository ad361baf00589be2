package schedule

import (
	"tempo/internal/infer/prefix"
)

// In streams a step's attention looks at Σ tokens of the jobs, each cell once. In one
// pool each of n jobs looks at all cells, of which what jobs have in common is there
// once only; but the cells stay in the processor's caches, so that one look costs less.
// On a CPU with 143M parameters one pool was the faster (decode 33 against 37 ms a step
// with 16 jobs, 37 against 41 with 32) where n · cells came to 2.7 to 4.5 times
// Σ tokens, and the slower (29 against 19 ms) from 16 times on.
const (
	alikeBelow = 5 // times; one pool is taken
	alikeUpTo  = 8 // and left again beyond
)

// fewToJudge is how many jobs at least must be there to tell whether they are alike.
const fewToJudge = 4

// lookAlike finds out whether the jobs that are there have so much in common that one
// pool serves them faster than streams.
func (s *Scheduler) lookAlike() {
	if s.arrived == s.judged || len(s.jobs) < fewToJudge {
		return
	}
	s.judged = s.arrived
	var tree prefix.Tree
	tokens, cells := 0, 0
	jobs := s.jobs[:min(len(s.jobs), prefix.MaxSequences)]
	for i, j := range jobs {
		if j.exact() || j.vectors != nil {
			s.alike = false
			return
		}
		prompt := j.tokens[:j.prompt]
		n := j.prompt + min(s.usual.tokens(), j.longest-j.prompt)/2 // in the middle of its answer
		tokens += n
		for _, common := range tree.Matches(prompt) {
			n -= common
			break
		}
		cells += n
		tree.Put(i, prompt)
	}
	// As if every seat were taken: the first jobs of many tell nothing of how many come.
	times := s.opts.Sequences * cells / max(tokens, 1)
	s.alike = times < alikeBelow || s.alike && times <= alikeUpTo
}
