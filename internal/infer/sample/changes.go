package sample

import (
	"cmp"
	"math"
	"slices"
)

// changes are what is added to logits before all else: bias, and bans.
type changes []fixed

// fixed is what is added to one token's logit.
type fixed struct {
	token int32
	bias  float32 // -Inf: banned
}

// banned is the bias from which on a token cannot come.
const banned = -100

// newChanges makes changes of a bias, in the order of the vocabulary. Tokens outside it are
// left out.
func newChanges(bias map[int32]float64, vocab int) changes {
	var c changes
	for t, b := range bias {
		if b <= banned {
			c = c.ban([]int32{t}, vocab)
		} else if isToken(t, vocab) {
			c = append(c, fixed{t, float32(b)})
		}
	}
	slices.SortFunc(c, func(a, b fixed) int { return cmp.Compare(a.token, b.token) })
	return c
}

// ban appends bans of tokens. Those outside the vocabulary are left out.
func (c changes) ban(tokens []int32, vocab int) changes {
	for _, t := range tokens {
		if isToken(t, vocab) {
			c = append(c, fixed{t, float32(math.Inf(-1))})
		}
	}
	return c
}

func isToken(t int32, vocab int) bool { return t >= 0 && int(t) < vocab }

// make changes logits in place, a few of the vocabulary's, and appends to before what they
// were.
func (c changes) make(logits, before []float32) []float32 {
	for _, f := range c {
		before = append(before, logits[f.token])
		logits[f.token] += f.bias
	}
	return before
}

// undo takes back what make did, the last first: a token may have been changed more than
// once. before begins with what make appended.
func (c changes) undo(logits, before []float32) {
	for i, f := range slices.Backward(c) {
		logits[f.token] = before[i]
	}
}
