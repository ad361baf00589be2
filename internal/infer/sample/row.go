package sample

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// row is what is known of the logits that are being chosen from. Its buffers stay for the
// next.
type row struct {
	level  level
	logits []float32
	max    float32
	tops   []float32 // the largest logit of each block

	// weights of the blocks, made of sums, for what is kept and a scale; 0 = for nothing.
	kept          prefix
	scale         float32
	sums, weights []uint64
	total         uint64 // of the weights

	// Some of the tokens in the order of the vocabulary, with their logits. listed: all
	// that is kept is among them.
	listed bool
	tokens []int32
	values []float32

	keys   []uint64  // the list by likelihood, see key
	chosen []float32 // scratch: logits of some blocks or keys
	masses []uint64  // scratch
	before []uint64  // scratch
}

// exponents is what a temperature makes of logits for powers of two.
func exponents(temperature float64) float64 { return min(math.Log2E/temperature, 1e30) }

// scaleOf is exponents as the kernels of the draw take it.
func scaleOf(temperature float64) float32 { return float32(exponents(temperature)) }

// read takes in a row and weighs it at the scale, if that is not 0.
func (r *row) read(logits []float32, scale float32) error {
	if blocks := (len(logits) + blockSize - 1) / blockSize; len(r.tops) != blocks {
		r.tops, r.sums, r.weights = make([]float32, blocks), make([]uint64, blocks), make([]uint64, blocks)
	}
	r.logits, r.listed, r.scale = logits, false, 0
	var numbers bool
	if scale > 0 {
		numbers = r.level.scanSums(logits, scale, r.tops, r.sums)
	} else {
		numbers = r.level.scan(logits, r.tops)
	}
	if err := r.top(numbers); err != nil {
		return err
	}
	if scale > 0 {
		r.kept, r.scale = everything(), scale
		r.total = r.level.weigh(r.tops, r.sums, r.max, scale, r.weights)
	}
	return nil
}

// top finds the largest logit once the tops are known; numbers is what the scan said.
func (r *row) top(numbers bool) error {
	r.max = slices.Max(r.tops)
	switch {
	case !numbers || math.IsInf(float64(r.max), 1):
		return ErrNotNumbers
	case math.IsInf(float64(r.max), -1):
		return ErrNoToken
	}
	return nil
}

// likeliest is the first token with the largest logit.
func (r *row) likeliest() int32 {
	from := slices.Index(r.tops, r.max) * blockSize
	return int32(from + slices.Index(r.logits[from:], r.max))
}

// weigh makes the blocks' weights for what is kept, and returns their total. The likeliest
// token alone weighs 2^40.
func (r *row) weigh(kept prefix, scale float32) uint64 {
	if r.scale == scale && r.kept == kept {
		return r.total
	}
	if r.listed {
		r.level.listSums(r.tokens, r.values, len(r.logits), r.tops, scale, kept, r.sums)
	} else {
		r.level.sums(r.logits, r.tops, r.max, scale, kept, r.sums)
	}
	r.kept, r.scale = kept, scale
	r.total = r.level.weigh(r.tops, r.sums, r.max, scale, r.weights)
	return r.total
}

// draw takes one of the kept tokens by a random number of 64 bits, read as a fraction.
func (r *row) draw(kept prefix, scale float32, random uint64) int32 {
	at, rest := bits.Mul64(random, r.weigh(kept, scale)) // rest is the part after the point
	b := 0
	for ; at >= r.weights[b]; b++ {
		at -= r.weights[b]
	}
	// So far into the block's weight is so far into its sum: (at + rest) / weight · sum.
	high, low := bits.Mul64(at, r.sums[b])
	part, _ := bits.Mul64(rest, r.sums[b])
	low, carry := bits.Add64(low, part, 0)
	value, _ := bits.Div64(high+carry, low, r.weights[b])
	return r.level.find(r.logits, b, r.tops[b], scale, kept, value)
}

// massBefore is the weight at temperature 1 of all that is likelier than a token.
func (r *row) massBefore(token int32) uint64 {
	n := len(r.tops)
	r.before = slices.Grow(r.before[:0], 2*n)[:2*n]
	sums, weights := r.before[:n], r.before[n:]
	r.level.sums(r.logits, r.tops, r.max, scaleOf(1), prefix{r.logits[token], token - 1}, sums)
	return r.level.weigh(r.tops, sums, r.max, scaleOf(1), weights)
}

// list lists the tokens whose logit is least or more. If they are more than most, it
// lists nothing and returns false.
func (r *row) list(least float32, most int) bool {
	return r.fill(most, func(tokens []int32, values []float32) int {
		return r.level.collect(r.logits, r.tops, least, tokens, values)
	})
}

// zoom lists the bucket of tokens in which the target is reached (level.zoom), and
// returns the sum before it.
func (r *row) zoom(counting bool, target uint64) (above uint64) {
	r.fill(len(r.logits), func(tokens []int32, values []float32) (n int) {
		above, n = r.level.zoom(r.logits, r.max, scaleOf(1), counting, target, tokens, values)
		return n
	})
	return above
}

// fill makes the list with f, which returns how many tokens there are if there is not
// room for all, and is then called again.
func (r *row) fill(most int, f func([]int32, []float32) int) bool {
	r.tokens, r.values = r.tokens[:cap(r.tokens)], r.values[:cap(r.tokens)]
	n := f(r.tokens, r.values)
	if n > most {
		return false
	}
	if n > len(r.tokens) {
		r.tokens, r.values = make([]int32, n+n/4), make([]float32, n+n/4)
		f(r.tokens, r.values)
	}
	r.tokens, r.values = r.tokens[:n], r.values[:n]
	r.keys = r.keys[:0]
	for i, t := range r.tokens {
		r.keys = append(r.keys, key(r.values[i], t))
	}
	return true
}

// small is a vocabulary that is rather listed whole than searched.
const small = 4096

// listLargest lists the n likeliest tokens, and others; all if there are fewer than n.
func (r *row) listLargest(n int) {
	least := float32(math.Inf(-1))
	if n < len(r.tops) {
		// n blocks have a logit that is no less than the n-th of the tops.
		r.chosen = r.chosen[:0]
		for _, t := range r.tops {
			r.chosen = append(r.chosen, -t)
		}
		front(r.chosen, n)
		least = -slices.Max(r.chosen[:n])
	}
	r.list(least, len(r.logits))
}

// canList reports whether listLargest does not list the whole of a large vocabulary for so
// many tokens.
func (r *row) canList(n int) bool { return n < len(r.tops) || len(r.logits) <= small }

// listLikely is listLargest, for fewer tokens if those would be the whole of a large vocabulary.
func (r *row) listLikely(n int) {
	if !r.canList(n) {
		n = len(r.tops) / 2
	}
	r.listLargest(n)
}

// likely appends the n likeliest tokens to a list, the likeliest first; fewer if that would take
// looking at a whole large vocabulary.
func (r *row) likely(tokens []int32, n int) []int32 {
	r.listLikely(n)
	n = min(n, len(r.keys))
	front(r.keys, n)
	slices.Sort(r.keys[:n])
	for _, k := range r.keys[:n] {
		tokens = append(tokens, keyToken(k))
	}
	return tokens
}

// key makes of a token a number that is the lower the likelier it is. 0 and -0 are one.
func key(logit float32, token int32) uint64 {
	b := math.Float32bits(logit + 0)
	if b>>31 == 0 {
		b = ^b &^ (1 << 31)
	}
	return uint64(b)<<32 | uint64(uint32(token))
}

// keyLogit is the logit of a key, keyToken its token.
func keyLogit(k uint64) float32 {
	b := uint32(k >> 32)
	if b>>31 == 0 {
		b = ^b &^ (1 << 31)
	}
	return math.Float32frombits(b)
}

func keyToken(k uint64) int32 { return int32(uint32(k)) }

// upTo is the prefix that ends with the key's token.
func upTo(k uint64) prefix { return prefix{keyLogit(k), keyToken(k)} }

// front moves the n smallest of a to its front, 0 ≤ n ≤ len(a).
func front[T cmp.Ordered](a []T, n int) {
	for len(a) > 1 && n > 0 && n < len(a) {
		p := median(a[0], a[len(a)/2], a[len(a)-1])
		i, j := 0, len(a)-1
		for i <= j {
			for a[i] < p {
				i++
			}
			for a[j] > p {
				j--
			}
			if i <= j {
				a[i], a[j] = a[j], a[i]
				i++
				j--
			}
		}
		switch { // a[:j+1] ≤ p ≤ a[i:], and what is between is p
		case n <= j+1:
			a = a[:j+1]
		case n >= i:
			a, n = a[i:], n-i
		default:
			return
		}
	}
}

func median[T cmp.Ordered](a, b, c T) T {
	return max(min(a, b), min(max(a, b), c))
}
