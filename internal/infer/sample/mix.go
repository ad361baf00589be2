package sample

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// MixOptions say how the sets of one job are chosen. Whoever makes them has checked the
// ranges.
type MixOptions struct {
	// Temperature is what the logits are divided by, over 0, up to 1e30.
	Temperature float64
	// Bias is as in Options.
	Bias map[int32]float64
	// Ends are tokens that are in no set and count in none, unless one is the most probable of all
	// that may come: then the set is that one.
	Ends []int32
}

// Mixture chooses the sets of one job. It must be used from one goroutine at a time, but for
// Measure.
type Mixture struct {
	vocab   int
	scale   float64 // of the temperature, for powers of two
	inverse float64 // 1 / temperature
	level   level

	ends    []int32
	bias    int     // so many of the changes are always the same; the others are bans
	changes changes // of the rows' logits
	before  []float32

	parts  []part
	rows   int // of the step, the first of parts
	found  []Candidate
	tokens []int32   // that are looked at
	sums   []float64 // what the mixture has of them
	marks  []uint64  // a bit for each token of whole blocks
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
		ends: o.Ends, bias: len(c), changes: c, marks: make([]uint64, (vocab+blockSize-1)/blockSize*blockSize/64),
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
// if none is, the most probable one; but see MixOptions.Ends. It returns the `most` (1 or more)
// most probable of them, the most probable first, of equal ones that with the lower id; and how
// many they are in all, 1 or more. The set is the caller's until the next Begin.
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
	m.find(parts, threshold)
	m.end()
	set, all = m.choose(most)
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

// slack is by how much less probable tokens may be that are marked, relatively: more than
// rounding does.
const slack = 1e-5

// reaching marks the tokens that have the probability in this row.
func (p *part) reaching(probability, inverse float64, marks []uint64) {
	least := float64(p.max) + (math.Log(probability*p.mass)-slack)/inverse
	down := math.Nextafter32(float32(least), float32(math.Inf(-1)))
	p.level.mark(p.logits, p.tops, max(down, -math.MaxFloat32), marks)
}

// find finds the tokens that the mixture has with at least this probability, or if there is none,
// the most probable one.
//
// Whatever has a probability in the mixture has it in some row. So it looks at those only that
// have in a row what is asked for, or if nothing has, what the likeliest token of some row has in
// the mixture: the most probable one has that too.
func (m *Mixture) find(parts []part, threshold float64) {
	m.tokens = m.tokens[:0]
	for i := range parts {
		m.tokens = append(m.tokens, parts[i].likeliest())
	}
	slices.Sort(m.tokens)
	m.tokens = slices.Compact(m.tokens)
	m.mix(parts)
	m.mark(parts, min(threshold, m.best().Probability))
	m.mix(parts)
	m.found = m.found[:0]
	for i, p := range m.sums {
		if p >= threshold {
			m.found = append(m.found, Candidate{m.tokens[i], p})
		}
	}
	if len(m.found) == 0 {
		m.found = append(m.found, m.best())
	}
}

// mark looks at the tokens that have this probability in some row.
func (m *Mixture) mark(parts []part, probability float64) {
	clear(m.marks)
	for i := range parts {
		parts[i].reaching(probability, m.inverse, m.marks)
	}
	m.tokens = m.tokens[:0]
	for i, word := range m.marks {
		for ; word != 0; word &= word - 1 {
			m.tokens = append(m.tokens, int32(i*64+bits.TrailingZeros64(word)))
		}
	}
}

// mix calculates what the mixture has of the tokens that are looked at.
func (m *Mixture) mix(parts []part) {
	n := len(m.tokens)
	m.sums = slices.Grow(m.sums[:0], n)[:n]
	clear(m.sums)
	for i := range parts {
		p := &parts[i]
		p.level.mix(p.logits, m.tokens, p.max, m.scale, p.share, m.sums)
	}
	for i, p := range m.sums {
		m.sums[i] = min(p, 1) // the shares are rounded
	}
}

// best is the most probable of the tokens that are looked at, which are in their order.
func (m *Mixture) best() Candidate {
	at := 0
	for i, p := range m.sums {
		if p > m.sums[at] {
			at = i
		}
	}
	return Candidate{m.tokens[at], m.sums[at]}
}

// end leaves of what was found what ends, if that is the most probable, or what does not.
func (m *Mixture) end() {
	ends := func(c Candidate) bool { return slices.Contains(m.ends, c.Token) }
	if best := m.best(); ends(best) {
		m.found = append(m.found[:0], best)
		return
	}
	m.found = slices.DeleteFunc(m.found, ends)
}

// choose makes the set of what was found.
func (m *Mixture) choose(most int) (set []Candidate, all int) {
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
