package sample

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// MixOptions say how the sets of one job are chosen. Whoever makes them has checked the
// ranges.
type MixOptions struct {
	// Temperature is what the logits are divided by, over 0, up to 1e30.
	Temperature float64
	// Bias is as in Options.
	Bias map[int32]float64
}

// Mixture chooses the sets of one job. It must be used from one goroutine at a time, but for
// Measure.
type Mixture struct {
	vocab   int
	scale   float64 // of the temperature, for powers of two
	inverse float64 // 1 / temperature
	level   level

	bias    int     // so many of the changes are always the same; the others are bans
	changes changes // of the rows' logits
	before  []float32

	parts  []part
	rows   int // of the step, the first of parts
	found  []Candidate
	values []float64 // scratch
}

// part is a row of a mixture. After the softmax its tokens have
// e^((logit - max) / temperature) / mass.
type part struct {
	row
	weight float64 // of all
	mass   float64
	share  float64 // weight / mass: what its likeliest token has of the mixture
	err    error   // of measuring it
	least  float32 // the logit from which on its tokens are listed
}

// Candidate is a token of a set, with what probability the mixture has it: over 0, up to 1,
// right within a millionth of it.
type Candidate struct {
	Token       int32
	Probability float64
}

// likelier orders candidates: the most probable first, of equal ones that with the lower id.
func likelier(a, b Candidate) int {
	return cmp.Or(cmp.Compare(b.Probability, a.Probability), cmp.Compare(a.Token, b.Token))
}

// NewMixture makes a mixture for a vocabulary of 1 to 2^22 tokens.
func NewMixture(o MixOptions, vocab int) *Mixture {
	scale := exponents(o.Temperature)
	c := newChanges(o.Bias, vocab)
	return &Mixture{
		vocab: vocab, scale: scale, inverse: scale * math.Ln2, level: bestLevel(),
		bias: len(c), changes: c,
	}
}

// Next does all of a step: Begin, Measure for each row, Choose.
func (m *Mixture) Next(rows [][]float32, weights []float64, threshold float64, most int, ban []int32) (set []Candidate, all int, err error) {
	if err := m.Begin(rows, weights, ban); err != nil {
		return nil, 0, err
	}
	for i := range rows {
		m.Measure(i)
	}
	return m.Choose(threshold, most)
}

// Begin begins to mix the distributions that rows of logits give, by the weights (one for each
// row, over 0; their sum does not matter). After it Measure must be called for each row, and
// then Choose, unless it returns an error.
//
// A row has a logit for each token of the vocabulary (-Inf: it cannot come). Rows are changed
// until Choose returns, also with an error, so that no two may share memory; then they are as
// before. Tokens in ban cannot come this time; those outside the vocabulary do not matter.
func (m *Mixture) Begin(rows [][]float32, weights []float64, ban []int32) error {
	total, err := m.check(rows, weights)
	if err != nil {
		return fmt.Errorf("choose a set: %w", err)
	}
	for len(m.parts) < len(rows) {
		m.parts = append(m.parts, part{row: row{level: m.level}})
	}
	m.change(rows, ban)
	m.rows = len(rows)
	for i, logits := range rows {
		p := &m.parts[i]
		p.logits, p.weight = logits, weights[i]/total
	}
	return nil
}

// Measure does what concerns the i-th row alone, and most of the work. It may be called for
// several rows at once.
func (m *Mixture) Measure(i int) { m.parts[i].measure(m.scale) }

// Choose chooses the tokens that are at least as probable as the threshold (over 0, up to 1), or
// if none is, the most probable one. It returns the `most` (1 or more) most probable of
// them, the most probable first, of equal ones that with the lower id; and how many they are
// in all, 1 or more. The set is the caller's until the next Begin.
//
// It returns ErrNotNumbers, or ErrNoToken if there is a row in which no token may come, wrapped.
func (m *Mixture) Choose(threshold float64, most int) (set []Candidate, all int, err error) {
	parts := m.parts[:m.rows]
	defer m.restore(parts)
	if most < 1 {
		return nil, 0, fmt.Errorf("choose a set: at most %d tokens", most)
	}
	for i := range parts {
		if err := parts[i].err; err != nil {
			return nil, 0, fmt.Errorf("choose a set: %w", err)
		}
	}
	best := m.find(parts, threshold)
	set, all = m.choose(best, most)
	return set, all, nil
}

// check returns the sum of the weights.
func (m *Mixture) check(rows [][]float32, weights []float64) (total float64, err error) {
	if len(rows) == 0 || len(weights) != len(rows) {
		return 0, fmt.Errorf("%d weights for %d rows of logits", len(weights), len(rows))
	}
	for i, row := range rows {
		if len(row) != m.vocab {
			return 0, fmt.Errorf("%d logits for a vocabulary of %d tokens", len(row), m.vocab)
		}
		if !(weights[i] > 0) {
			return 0, fmt.Errorf("the weight of row %d is %v", i, weights[i])
		}
		total += weights[i]
	}
	if math.IsInf(total, 1) {
		return 0, fmt.Errorf("the weights are more than %v in all", math.MaxFloat64)
	}
	return total, nil
}

func (m *Mixture) change(rows [][]float32, ban []int32) {
	m.changes = m.changes[:m.bias].ban(ban, m.vocab)
	m.before = m.before[:0]
	for _, logits := range rows {
		m.before = m.changes.make(logits, m.before)
	}
}

func (m *Mixture) restore(parts []part) {
	for i := range parts {
		m.changes.undo(parts[i].logits, m.before[i*len(m.changes):])
	}
}

// measure finds out what the row's softmax divides by.
func (p *part) measure(scale float64) {
	if blocks := (len(p.logits) + blockSize - 1) / blockSize; len(p.tops) != blocks {
		p.tops = make([]float32, blocks)
	}
	var numbers bool
	p.mass, numbers = p.level.scanMass(p.logits, scale, p.tops)
	p.err = p.top(numbers)
	p.share = p.weight / p.mass
}

// slack is by how much less probable tokens may be that are listed, relatively: more than
// rounding does.
const slack = 1e-5

// reaching lists the tokens that have the probability in this row.
func (p *part) reaching(probability, inverse float64) {
	least := float64(p.max) + (math.Log(probability*p.mass)-slack)/inverse
	p.least = max(math.Nextafter32(float32(least), float32(math.Inf(-1))), -math.MaxFloat32)
	p.list(p.least, len(p.logits))
}

// find finds the tokens that the mixture has with at least this probability, and returns the
// most probable one, be it among them or not.
//
// Whatever has a probability in the mixture has it in some row. So it looks at those only that
// have in a row what is asked for, or if nothing has, what the likeliest token of some row has in
// the mixture: the most probable one has that too.
func (m *Mixture) find(parts []part, threshold float64) (best Candidate) {
	for i := range parts {
		t := parts[i].likeliest()
		if c := (Candidate{t, m.probability(parts, t)}); i == 0 || likelier(c, best) < 0 {
			best = c
		}
		if best.Probability >= threshold {
			break
		}
	}
	least := min(threshold, best.Probability)
	m.found = m.found[:0]
	for i := range parts {
		parts[i].reaching(least, m.inverse)
		for _, t := range parts[i].tokens {
			if listed(parts[:i], t) {
				continue
			}
			c := Candidate{t, m.probability(parts, t)}
			if c.Probability >= threshold {
				m.found = append(m.found, c)
			}
			if likelier(c, best) < 0 {
				best = c
			}
		}
	}
	return best
}

// listed reports whether one of the parts has listed the token.
func listed(parts []part, t int32) bool {
	for i := range parts {
		if parts[i].logits[t] >= parts[i].least {
			return true
		}
	}
	return false
}

// probability is what the mixture has of a token.
func (m *Mixture) probability(parts []part, t int32) float64 {
	var sum float64
	for i := range parts {
		p := &parts[i]
		sum += p.share * math.Exp((float64(p.logits[t])-float64(p.max))*m.inverse)
	}
	return min(sum, 1) // the shares are rounded
}

// choose makes the set of what was found, or if that is nothing, of the most probable token.
func (m *Mixture) choose(best Candidate, most int) (set []Candidate, all int) {
	if len(m.found) == 0 {
		m.found = append(m.found, best)
	}
	all = len(m.found)
	if all > most {
		m.values = m.values[:0]
		for _, c := range m.found {
			m.values = append(m.values, -c.Probability)
		}
		front(m.values, most)
		least := -slices.Max(m.values[:most])
		m.found = slices.DeleteFunc(m.found, func(c Candidate) bool { return c.Probability < least })
	}
	slices.SortFunc(m.found, likelier)
	return m.found[:min(all, most)], all
}
