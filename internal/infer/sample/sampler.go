package sample

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampler draws the tokens of one answer. It must be used from one goroutine at a time.
type Sampler struct {
	o      Options
	vocab  int
	random *rand.PCG
	row    row
	masked []float32 // a copy of the logits, for a grammar
	likely []int32   // the likeliest tokens, for a grammar

	fixed  changes   // bias and bans
	seen   []seen    // what was generated, by token; only for penalties
	before []float32 // the logits that fixed and then seen changed
}

// seen is a token that was generated.
type seen struct {
	token, count int32
}

// stream is the other half of a generator's seed, the same for all.
const stream = 0x9e3779b97f4a7c15

// New makes a sampler for a vocabulary of 1 to 2^22 tokens.
func New(o Options, vocab int) *Sampler {
	return &Sampler{
		o: o, vocab: vocab, random: rand.NewPCG(o.Seed, stream), row: row{level: bestLevel()},
		fixed: newChanges(o.Bias, vocab).ban(o.Ban, vocab),
	}
}

// Next chooses a token by its logits, one for each token of the vocabulary (-Inf: it
// cannot come), and counts it for the penalties.
//
// While it runs it changes logits; when it returns, also with an error, they are as
// before. So two samplers cannot choose from the same logits at once.
//
// With a grammar (else nil) it does as llama.cpp: it draws without it, and only if that
// token may not come, it draws again, with the next random number, from a copy of the
// logits that the grammar has masked. Before it has all masked it looks among the
// likeliest for a greedy choice, and where no filter would see the mask it draws a few times
// more. The answer depends on the seed alone here too.
//
// It returns ErrNotNumbers or ErrNoToken, wrapped.
func (s *Sampler) Next(logits []float32, g Grammar) (Picked, error) {
	if len(logits) != s.vocab {
		return Picked{}, fmt.Errorf("choose a token: %d logits for a vocabulary of %d tokens", len(logits), s.vocab)
	}
	var p Picked
	var norm float64 // what logits have beyond log probabilities
	if s.o.Logprobs {
		if err := s.row.read(logits, scaleOf(1)); err != nil {
			return Picked{}, fmt.Errorf("read log probabilities: %w", err)
		}
		norm = float64(s.row.max) + math.Log(float64(s.row.total)) - 40*math.Ln2
		p.Top = s.top(norm)
	}
	var err error
	if p.Token, err = s.choose(logits, g); err != nil {
		return Picked{}, fmt.Errorf("choose a token: %w", err)
	}
	if s.o.Logprobs {
		p.Logprob = logprob(logits[p.Token], norm)
	}
	s.count(p.Token)
	return p, nil
}

// logprob is never -Inf, which JSON has no number for.
func logprob(logit float32, norm float64) float32 {
	return float32(max(float64(logit)-norm, -math.MaxFloat32))
}

// top is the likeliest tokens of the row.
func (s *Sampler) top(norm float64) []Likely {
	n := min(s.o.Top, s.vocab)
	if n <= 0 {
		return nil
	}
	s.row.listLargest(n)
	keys := s.row.keys
	n = min(n, len(keys))
	front(keys, n)
	slices.Sort(keys[:n])
	top := make([]Likely, n)
	for i, k := range keys[:n] {
		top[i] = Likely{keyToken(k), logprob(keyLogit(k), norm)}
	}
	return top
}

// choose chooses a token and leaves the logits as they are.
func (s *Sampler) choose(logits []float32, g Grammar) (int32, error) {
	s.change(logits)
	defer s.restore(logits)
	if !s.o.Logprobs || len(s.before) > 0 { // else the row is known
		if err := s.row.read(logits, s.firstScale()); err != nil {
			return 0, err
		}
	}
	if t, ok := s.drawAllowed(g); ok {
		return t, nil
	}
	s.masked = append(s.masked[:0], logits...)
	g.Mask(s.masked)
	if err := s.row.read(s.masked, s.firstScale()); err != nil {
		return 0, err
	}
	return s.draw(), nil
}

// redraws is how often a token is drawn before the grammar masks the row, where that would give
// the same distribution.
const redraws = 4

// drawAllowed chooses from the row that was read; false if the grammar must mask it.
func (s *Sampler) drawAllowed(g Grammar) (t int32, ok bool) {
	draws := 1
	if s.o.unfiltered() {
		draws = redraws
	}
	for range draws {
		if t = s.draw(); g == nil || g.Allows(t) {
			return t, true
		}
	}
	if s.o.Temperature > 0 {
		return 0, false
	}
	s.likely = s.row.likely(s.likely[:0], guess)
	if allowed := g.Filter(s.likely); len(allowed) > 0 {
		return allowed[0], true
	}
	return 0, false
}

// firstScale is at what scale the whole row will be weighed first; 0 if not at all.
func (s *Sampler) firstScale() float32 {
	switch {
	case s.o.Temperature <= 0 || s.o.TopK > 0:
		return 0
	case s.o.TopP > 0 && s.o.TopP < 1:
		return scaleOf(1)
	case s.o.MinP > 0:
		return 0
	}
	return scaleOf(s.o.Temperature)
}

// tries is how often a token is drawn that top-p may not keep, before it is found out what
// top-p keeps. At a temperature of 1 or less a try fails less often than 1 - p.
const tries = 2

// draw chooses from the row that was read.
func (s *Sampler) draw() int32 {
	if s.o.Temperature <= 0 {
		return s.row.likeliest()
	}
	k, scale := s.row.filter(s.o), scaleOf(s.o.Temperature)
	for range tries {
		t := s.row.draw(k.prefix, scale, s.random.Uint64())
		if k.mass == 0 || s.row.massBefore(t) < k.mass {
			return t
		}
	}
	return s.row.draw(s.row.nucleus(k), scale, s.random.Uint64())
}

// count notes a generated token.
func (s *Sampler) count(t int32) {
	if !s.o.penalised() {
		return
	}
	i, found := slices.BinarySearchFunc(s.seen, t, func(e seen, t int32) int { return cmp.Compare(e.token, t) })
	if !found {
		s.seen = slices.Insert(s.seen, i, seen{token: t})
	}
	s.seen[i].count++
}

// change adds the bias and takes the penalties, in place: it is a matter of a few of the
// vocabulary's logits.
func (s *Sampler) change(logits []float32) {
	s.before = s.fixed.make(logits, s.before[:0])
	repeat := float32(s.o.RepeatPenalty)
	if repeat == 0 {
		repeat = 1
	}
	for _, e := range s.seen {
		l := logits[e.token]
		s.before = append(s.before, l)
		// Each step is rounded on its own: fused operations would make it depend on the CPU.
		if l > 0 {
			l /= repeat
		} else {
			l = float32(l * repeat)
		}
		often := float32(float32(e.count) * float32(s.o.FrequencyPenalty))
		logits[e.token] = l - (often + float32(s.o.PresencePenalty))
	}
}

// restore takes back what change did, the last first: a token may have been changed more
// than once.
func (s *Sampler) restore(logits []float32) {
	for i, e := range slices.Backward(s.seen) {
		logits[e.token] = s.before[len(s.fixed)+i]
	}
	s.fixed.undo(logits, s.before)
}
