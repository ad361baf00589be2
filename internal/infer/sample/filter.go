package sample

import (
	"math"
	"slices"
)

// filtered is what top-k, top-p and min-p keep of the row, each of what the one before kept.
// Each keeps a prefix.
type filtered struct {
	prefix
	// mass is 0, or top-p's prefix is not known: a token of it has less than this weight
	// at temperature 1 before it.
	mass uint64
}

func (r *row) filter(o Options) filtered {
	k := filtered{prefix: everything()}
	if o.TopK > 0 && o.TopK < len(r.logits) {
		k.prefix = r.topK(o.TopK)
	}
	if o.TopP > 0 && o.TopP < 1 {
		k = r.topP(k.prefix, o.TopP)
	}
	if o.MinP > 0 {
		k.prefix = r.minP(k.prefix, o.MinP)
	}
	return k
}

// topK keeps the k likeliest tokens.
func (r *row) topK(k int) prefix {
	var above uint64
	if r.canList(k) {
		r.listLargest(k)
		r.listed = true
	} else {
		above = r.zoom(true, uint64(k))
	}
	n := k - int(above)
	if n > len(r.keys) {
		return everything() // all others are banned
	}
	front(r.keys, n)
	return upTo(slices.Max(r.keys[:n]))
}

// guess is how many of the likeliest tokens top-p looks at.
const guess = 128

// topP keeps the fewest likeliest tokens that have the part p of the probability of
// those that were kept, at temperature 1.
func (r *row) topP(from prefix, p float64) filtered {
	mass := r.weigh(from, scaleOf(1))
	target := min(max(uint64(math.Ceil(p*float64(mass))), 1), mass)
	if r.listed {
		end, ok := r.reach(target, 0)
		if !ok {
			return filtered{prefix: from}
		}
		return filtered{prefix: end.within(from)}
	}
	r.listLikely(guess)
	if end, ok := r.reach(target, 0); ok {
		r.listed = true
		return filtered{prefix: end.within(from)}
	}
	return filtered{from, target}
}

// nucleus finds out what top-p keeps, the long way.
func (r *row) nucleus(k filtered) prefix {
	r.listed = false
	above := r.zoom(false, k.mass)
	if end, ok := r.reach(k.mass, above); ok {
		return end.within(k.prefix)
	}
	return k.prefix
}

// reach returns the prefix of those listed tokens whose weights at temperature 1, added
// to sum, first reach the target; false if all do not.
func (r *row) reach(target, sum uint64) (prefix, bool) {
	if sum+r.weighKeys(len(r.keys)) < target {
		return prefix{}, false
	}
	for n := 64; ; n *= 4 { // mostly the first few do
		n = min(n, len(r.keys))
		front(r.keys, n)
		slices.Sort(r.keys[:n])
		r.weighKeys(n)
		reached := sum
		for i, m := range r.masses {
			if reached += m; reached >= target {
				return upTo(r.keys[i]), true
			}
		}
	}
}

// weighKeys makes masses of the weights at temperature 1 of the first n keys, and returns
// their total.
func (r *row) weighKeys(n int) uint64 {
	r.chosen = r.chosen[:0]
	for _, k := range r.keys[:n] {
		r.chosen = append(r.chosen, keyLogit(k))
	}
	r.masses = slices.Grow(r.masses[:0], n)[:n]
	return r.level.weigh(r.chosen, nil, r.max, scaleOf(1), r.masses)
}

// minP keeps the tokens that are at least p times as likely as the likeliest, at
// temperature 1.
func (r *row) minP(kept prefix, p float64) prefix {
	kept = prefix{float32(float64(r.max) + math.Log(p)), math.MaxInt32}.within(kept)
	if !r.listed {
		r.listed = r.list(kept.least, small)
	}
	return kept
}
