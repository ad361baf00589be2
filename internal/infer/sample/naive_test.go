package sample

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// naive chooses by the definition in the package's documentation, token by token, with
// the whole vocabulary sorted.
type naive struct {
	o      Options
	random *rand.PCG
	seen   map[int32]int
}

func newNaive(o Options) *naive {
	return &naive{o: o, random: rand.NewPCG(o.Seed, stream), seen: map[int32]int{}}
}

// naiveChoice is what a naive sampler chose, -1 if no token may come, and from what.
type naiveChoice struct {
	token   int32
	changed []float32 // the logits with bias and penalties
	order   []int32   // byLikelihood of them
	kept    []int32   // of order, by the filters
	from    []int32   // what it was drawn from: kept, or that without top-p
	random  uint64
}

func (n *naive) next(logits []float32) naiveChoice {
	c := naiveChoice{token: -1, changed: n.change(logits)}
	c.order = byLikelihood(c.changed)
	if len(c.order) == 0 {
		return c
	}
	c.token, c.kept = c.order[0], c.order[:1]
	if n.o.Temperature > 0 {
		n.draw(&c)
	}
	n.seen[c.token]++
	return c
}

// draw draws from what is kept; where top-p keeps many, without top-p until it keeps what
// was drawn, at most twice.
func (n *naive) draw(c *naiveChoice) {
	c.kept = n.keep(c.changed, c.order, n.o.TopP)
	all := n.keep(c.changed, c.order, 0)
	many := n.many(c)
	for try := 0; ; try++ {
		c.random, c.from = n.random.Uint64(), c.kept
		if many && try < tries {
			c.from = all
		}
		c.token = drawNaive(c.changed, c.from, scaleOf(n.o.Temperature), c.random)
		if !many || try == tries || n.keeps(c) {
			return
		}
	}
}

// keeps reports whether top-p keeps the token: what is likelier has not all that it keeps.
func (n *naive) keeps(c *naiveChoice) bool {
	order := n.firstK(c.order)
	_, _, mass := blocksOf(c.changed, order, scaleOf(1))
	_, _, before := blocksOf(c.changed, order[:slices.Index(order, c.token)], scaleOf(1))
	return before < n.target(mass)
}

// many reports whether top-p keeps more than what is listed of the likeliest tokens.
func (n *naive) many(c *naiveChoice) bool {
	tops := topsOf(c.changed)
	listed := func(count int) bool { return count < len(tops) || len(c.changed) <= small }
	if n.o.TopP <= 0 || n.o.TopP >= 1 || len(c.changed) <= small || n.o.TopK > 0 && listed(n.o.TopK) {
		return false
	}
	slices.Sort(tops)
	slices.Reverse(tops)
	count := guess
	if !listed(count) {
		count = len(tops) / 2
	}
	order := n.firstK(c.order)
	_, _, mass := blocksOf(c.changed, order, scaleOf(1))
	sum := uint64(0)
	for _, t := range c.order {
		if c.changed[t] >= tops[count-1] {
			sum += weightOf(1<<27, c.changed[t], c.changed[order[0]], scaleOf(1))
		}
	}
	return sum < n.target(mass)
}

func (n *naive) target(mass uint64) uint64 { return uint64(math.Ceil(n.o.TopP * float64(mass))) }

func (n *naive) firstK(order []int32) []int32 {
	if n.o.TopK > 0 {
		return order[:min(n.o.TopK, len(order))]
	}
	return order
}

func (n *naive) change(logits []float32) []float32 {
	l := slices.Clone(logits)
	for t, b := range n.o.Bias {
		if t < 0 || int(t) >= len(l) {
			continue
		}
		l[t] += float32(b)
		if b <= -100 {
			l[t] = float32(math.Inf(-1))
		}
	}
	for _, t := range n.o.Ban {
		if t >= 0 && int(t) < len(l) {
			l[t] = float32(math.Inf(-1))
		}
	}
	if !n.o.penalised() {
		return l
	}
	for t, count := range n.seen {
		if r := float32(n.o.RepeatPenalty); r != 0 {
			if l[t] > 0 {
				l[t] /= r
			} else {
				l[t] = float32(l[t] * r)
			}
		}
		often := float32(float32(count) * float32(n.o.FrequencyPenalty))
		l[t] -= often + float32(n.o.PresencePenalty)
	}
	return l
}

// byLikelihood is all tokens that are not banned, the likeliest first.
func byLikelihood(l []float32) []int32 {
	var order []int32
	for t, v := range l {
		if !math.IsInf(float64(v), -1) {
			order = append(order, int32(t))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch {
		case l[a] > l[b]:
			return -1
		case l[a] < l[b]:
			return 1
		}
		return int(a - b)
	})
	return order
}

// keep is what the filters keep, with this top-p.
func (n *naive) keep(l []float32, order []int32, p float64) []int32 {
	top := l[order[0]]
	order = n.firstK(order)
	if p > 0 && p < 1 {
		_, _, mass := blocksOf(l, order, scaleOf(1))
		target := n.target(mass)
		sum, count := uint64(0), 0
		for _, t := range order {
			count++
			if sum += weightOf(1<<27, l[t], top, scaleOf(1)); sum >= target {
				break
			}
		}
		order = order[:count]
	}
	if n.o.MinP > 0 {
		least := float32(float64(top) + math.Log(n.o.MinP))
		order = slices.DeleteFunc(slices.Clone(order), func(t int32) bool { return l[t] < least })
	}
	return order
}

// blocksOf gives the sums and the weights of the blocks, for the tokens that were kept.
func blocksOf(l []float32, kept []int32, scale float32) (sums, weights []uint64, total uint64) {
	tops := topsOf(l)
	sums, weights = make([]uint64, len(tops)), make([]uint64, len(tops))
	for _, t := range kept {
		sums[t/blockSize] += uint64(valueOf(l[t], tops[t/blockSize], scale))
	}
	for b, s := range sums {
		weights[b] = weightOf(s, tops[b], slices.Max(tops), scale)
		total += weights[b]
	}
	return sums, weights, total
}

func topsOf(l []float32) []float32 {
	var tops []float32
	for block := range slices.Chunk(l, blockSize) {
		tops = append(tops, slices.Max(block))
	}
	return tops
}

func drawNaive(l []float32, kept []int32, scale float32, random uint64) int32 {
	kept = slices.Clone(kept)
	slices.Sort(kept)
	sums, weights, total := blocksOf(l, kept, scale)
	at, rest := bits.Mul64(random, total)
	b := 0
	for ; at >= weights[b]; b++ {
		at -= weights[b]
	}
	// value = (at + rest) / weight · sum, in 128 bits
	high, low := bits.Mul64(at, sums[b])
	part, _ := bits.Mul64(rest, sums[b])
	low, carry := bits.Add64(low, part, 0)
	value, _ := bits.Div64(high+carry, low, weights[b])
	top := topsOf(l)[b]
	for _, t := range kept {
		if int(t)/blockSize != b {
			continue
		}
		v := uint64(valueOf(l[t], top, scale))
		if value < v {
			return t
		}
		value -= v
	}
	return -1
}

// powerOf is 2^y as a fraction from 2^-0.5 to 2^0.5 and an exponent, in single precision.
func powerOf(y float32) (float32, int) {
	n := float32(math.RoundToEven(float64(y)))
	f := y - n
	p := float32(0x1.470b4ap-13)
	for _, c := range []float32{0x1.5f7276p-10, 0x1.3b270ep-7, 0x1.c6ae72p-5, 0x1.ebfbe2p-3, 0x1.62e432p-1, 1} {
		p = fused(p, f, c)
	}
	return p, int(n)
}

// fused is a·b + c, rounded once. The sum is first rounded to double precision, to the
// odd one of the two numbers beside it, so that rounding it again does no harm.
func fused(a, b, c float32) float32 {
	product, add := float64(a)*float64(b), float64(c) // exact
	sum := product + add
	part := sum - product
	missing := (product - (sum - part)) + (add - part)
	if missing != 0 && math.Float64bits(sum)%2 == 0 {
		sum = math.Nextafter(sum, math.Copysign(math.MaxFloat64, missing))
	}
	return float32(sum)
}

// below is (a - b) · scale, and low if it is less or not a number.
func below(a, b, scale, low float32) float32 {
	if y := float32(float32(a-b) * scale); y > low {
		return y
	}
	return low
}

func valueOf(l, top, scale float32) uint32 {
	p, n := powerOf(below(l, top, scale, -31))
	return uint32(math.Ldexp(float64(p), n+27))
}

func weightOf(sum uint64, l, top, scale float32) uint64 {
	p, n := powerOf(below(l, top, scale, -52))
	return sum * uint64(math.Ldexp(float64(p), 24)) >> (11 - n)
}

// ideal reports whether the choice is what double precision gives, with room for a few
// millionths at each border: of top-p, of min-p and of the token.
func (c naiveChoice) ideal(o Options) bool {
	if o.Temperature <= 0 || c.token < 0 {
		return true
	}
	least := keptIdeal(c.changed, c.order, o.TopK, o.TopP*(1-room), o.MinP*(1+room))
	most := keptIdeal(c.changed, c.order, o.TopK, o.TopP*(1+room), o.MinP*(1-room))
	return len(c.kept) >= least && len(c.kept) <= most &&
		drawnIdeal(c.changed, c.from, o.Temperature, c.token, float64(c.random)/(1<<64))
}

const room = 3e-6

// keptIdeal is how many tokens the filters keep.
func keptIdeal(l []float32, order []int32, k int, p, m float64) int {
	top := float64(l[order[0]])
	if k > 0 {
		order = order[:min(k, len(order))]
	}
	if p > 0 && p < 1 {
		var mass, sum float64
		for _, t := range order {
			mass += math.Exp(float64(l[t]) - top)
		}
		for i, t := range order {
			if sum += math.Exp(float64(l[t]) - top); sum >= p*mass {
				order = order[:i+1]
				break
			}
		}
	}
	if i := slices.IndexFunc(order, func(t int32) bool { return float64(l[t]) < top+math.Log(m) }); m > 0 && i >= 0 {
		return max(i, 1) // m over 1 only by the room
	}
	return len(order)
}

// drawnIdeal reports whether the fraction u of the kept tokens' probability, in the
// order of the vocabulary, is at the token.
func drawnIdeal(l []float32, kept []int32, temperature float64, token int32, u float64) bool {
	top := float64(l[kept[0]])
	var before, own, mass float64
	for _, t := range kept {
		w := math.Exp((float64(l[t]) - top) / temperature)
		mass += w
		if t < token {
			before += w
		}
		if t == token {
			own = w
		}
	}
	return own > 0 && u >= before/mass-room && u <= (before+own)/mass+room
}
