package plain

import (
	"cmp"
	"math"
	"slices"

	"tempo/api"
)

// Limits are what the worker, not the job, bounds. All are over 0.
type Limits struct {
	Width   int // most tokens at one position; under pressure, the bound of Engine.Narrow
	Cells   int // tokens in the KV cache
	Context int // tokens of a job
}

// Candidate is a token that may be in a set.
type Candidate struct {
	Token       int32
	Probability float64
}

// Member is a token of a set.
type Member struct {
	Candidate
	// Removed is the step after whose decode it was removed; 0 = it stays, for the first
	// set that one can be removed after is that of step 1.
	Removed int
	// Attention is what the later positions have given to it so far. Shares are its parts of
	// what they gave to its set, at each time that it was decided whether it stays: after
	// the decode of the set behind its own, of the next, …
	Attention float64
	Shares    []float64
}

func (m Member) stays() bool { return m.Removed == 0 }

// thereAt reports whether the set of a later step s sees the member.
func (m Member) thereAt(s int) bool { return m.stays() || m.Removed >= s }

// Step is what was chosen at one position.
type Step struct {
	Threshold    float64
	Distribution []float64 // the probability of each token of the vocabulary
	// Candidates are all tokens over the threshold, or the most probable one if there is
	// none, the most probable first. Those that end the text are among them.
	Candidates []Candidate
	Width      int // how many members there may be
	// Members is the set. It is empty where the text ended.
	Members []Member
}

// left counts the members that are not removed.
func (s Step) left() int {
	n := 0
	for _, m := range s.Members {
		if m.stays() {
			n++
		}
	}
	return n
}

// Borderline reports whether another set, or the same in another order, could have been
// chosen if no probability had been more than epsilon off.
func (s Step) Borderline(epsilon float64) bool {
	near := func(a, b float64) bool { return math.Abs(a-b) <= 2*epsilon }
	ranked := slices.Clone(s.Distribution)
	slices.Sort(ranked)
	slices.Reverse(ranked)
	for i, p := range ranked {
		if math.Abs(p-s.Threshold) <= epsilon || i+1 < len(ranked) && (i == 0 || p >= s.Threshold) && near(p, ranked[i+1]) {
			return true
		}
		if p < s.Threshold {
			break
		}
	}
	return false
}

// distribution turns the logits behind one token into the probabilities of the tokens of
// step s.
func distribution(logits []float32, ends func(token int32) bool, job *api.Request, s int) []float64 {
	changed := make([]float64, len(logits))
	for i, logit := range logits {
		token := int32(i)
		bias := job.Sampling.LogitBias[token]
		switch {
		case bias <= -100, ends(token) && (s < job.Parallel.MinSteps || job.IgnoreEOS):
			changed[i] = math.Inf(-1)
		default:
			changed[i] = (float64(logit) + bias) / job.Sampling.Temperature
		}
	}
	return softmax(changed)
}

// mix is the distribution of step s, from the logits behind each member of the set before
// it; without members, from those behind the prompt.
func mix(logits [][]float32, members []Member, ends func(token int32) bool, job *api.Request, s int) []float64 {
	if len(members) == 0 || job.Parallel.Mix == api.MixTop {
		return distribution(logits[0], ends, job, s)
	}
	mixed := make([]float64, len(logits[0]))
	var sum float64
	for i, m := range members {
		for token, p := range distribution(logits[i], ends, job, s) {
			mixed[token] += m.Probability * p
		}
		sum += m.Probability
	}
	for token := range mixed {
		mixed[token] /= sum
	}
	return mixed
}

// threshold is the threshold of step s.
func threshold(job *api.Request, s int) float64 {
	p := job.Parallel
	if p.Dynamic == nil {
		return p.Threshold
	}
	var x, rise float64
	if job.MaxTokens > 1 {
		x = float64(s) / float64(job.MaxTokens-1)
	}
	switch d := p.Dynamic; d.Curve {
	case api.CurveBezier:
		rise = 3*(1-x)*(1-x)*x*d.P1 + 3*(1-x)*x*x*d.P2 + x*x*x
	case api.CurveReLU:
		if x > d.ActivationPoint {
			rise = (x - d.ActivationPoint) / (1 - d.ActivationPoint)
		}
	default: // CurveLinear
		rise = x
	}
	return p.Threshold + (p.Dynamic.Final-p.Threshold)*rise
}

// candidates are the tokens whose probability is at least threshold, the most probable
// first; if there is none, the most probable one.
func candidates(distribution []float64, threshold float64) []Candidate {
	var all []Candidate
	for token, p := range distribution {
		all = append(all, Candidate{int32(token), p})
	}
	slices.SortStableFunc(all, func(a, b Candidate) int { return cmp.Compare(b.Probability, a.Probability) })
	n := 1
	for n < len(all) && all[n].Probability >= threshold {
		n++
	}
	return all[:n]
}

// cells is how many tokens of the job there can be in the KV cache.
func cells(job *api.Request, limits Limits) int {
	c := min(limits.Cells, limits.Context)
	if n := job.Parallel.MaxCacheTokens; n > 0 {
		c = min(c, n)
	}
	return c
}

// width is how many members the set of step s may have when used cells are taken.
func width(job *api.Request, limits Limits, s, used int) int {
	reserved := 0
	if job.MaxTokens > 0 {
		reserved = job.MaxTokens - s - 1
	}
	w := min(limits.Width, max(1, cells(job, limits)-used-reserved))
	if n := job.Parallel.MaxTokens; n > 0 {
		w = min(w, n)
	}
	return w
}

// choose chooses the members of step s from its distribution. It also returns how many
// candidates the width kept out.
func choose(distribution []float64, ends func(token int32) bool, job *api.Request, limits Limits, s, used int) (step Step, cut int) {
	t := threshold(job, s)
	step = Step{
		Threshold: t, Distribution: distribution,
		Candidates: candidates(distribution, t), Width: width(job, limits, s, used),
	}
	if ends(step.Candidates[0].Token) {
		return step, 0
	}
	for _, c := range step.Candidates {
		switch {
		case ends(c.Token):
		case len(step.Members) == step.Width:
			cut++
		default:
			step.Members = append(step.Members, Member{Candidate: c})
		}
	}
	return step, cut
}

// removals are the members that go when the last of the steps has been decoded. weight is
// the attention from that set to member m of step u, averaged over layers, heads and
// rows. It adds to the members' Attention and Shares.
func removals(steps []Step, r *api.RetroactiveRemoval, weight func(u, m int) float64) []Removal {
	t := len(steps) - 1
	var removed []Removal
	for u := max(0, t-r.Window); u < t; u++ {
		if steps[u].left() < 2 {
			continue
		}
		members := steps[u].Members
		var sum float64
		most := -1
		for m := range members {
			if !members[m].stays() {
				continue
			}
			members[m].Attention += weight(u, m)
			sum += members[m].Attention
			if most < 0 || members[m].Attention > members[most].Attention {
				most = m
			}
		}
		for m := range members {
			if !members[m].stays() {
				continue
			}
			share := members[m].Attention / sum // not a number, and so not below, if all are 0
			members[m].Shares = append(members[m].Shares, share)
			if share < r.AttentionThreshold && m != most {
				removed = append(removed, Removal{After: t, Step: u, Member: m})
			}
		}
	}
	return removed
}
