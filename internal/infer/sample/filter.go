package sample

import (
	"math"
	"slices"
)

// filter is what top-k, top-p and min-p keep of the row, each of what the one before
// kept. Each keeps a prefix.
func (r *row) filter(o Options) prefix {
	kept := everything()
	if o.TopK > 0 && o.TopK < len(r.logits) {
		kept = r.topK(o.TopK)
	}
	if o.TopP > 0 && o.TopP < 1 {
		kept = r.topP(kept, o.TopP)
	}
	if o.MinP > 0 {
		kept = r.minP(kept, o.MinP)
	}
	return kept
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

// guess is how many of the likeliest tokens are looked at before top-p takes a longer
// way. It makes no difference to what is kept.
const guess = 128

// topP keeps the fewest likeliest tokens that have the part p of the probability of
// those that were kept, at temperature 1.
func (r *row) topP(kept prefix, p float64) prefix {
	mass := r.weigh(kept, scaleOf(1))
	target := min(max(uint64(math.Ceil(p*float64(mass))), 1), mass)
	if r.listed {
		end, ok := r.reach(target, 0)
		if !ok {
			return kept
		}
		return end.within(kept)
	}
	n := guess
	if !r.canList(n) {
		n = len(r.tops) / 2
	}
	r.listLargest(n)
	if end, ok := r.reach(target, 0); ok {
		r.listed = true
		return end.within(kept)
	}
	above := r.zoom(false, target)
	if end, ok := r.reach(target, above); ok {
		return end.within(kept)
	}
	return kept
}

// reach returns the prefix of those listed tokens whose weights at temperature 1, added
// to sum, first reach the target; false if all do not.
func (r *row) reach(target, sum uint64) (prefix, bool) {
	slices.Sort(r.keys)
	r.sorted = r.sorted[:0]
	for _, k := range r.keys {
		r.sorted = append(r.sorted, keyLogit(k))
	}
	r.masses = slices.Grow(r.masses[:0], len(r.keys))[:len(r.keys)]
	r.level.weigh(r.sorted, nil, r.max, scaleOf(1), r.masses)
	for i, m := range r.masses {
		if sum += m; sum >= target {
			return upTo(r.keys[i]), true
		}
	}
	return prefix{}, false
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
