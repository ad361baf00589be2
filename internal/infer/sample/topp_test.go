package sample

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// flatLogits are of tokens none of which stands out.
func flatLogits(seed uint64, vocab int) []float32 {
	r := rand.New(rand.NewPCG(seed, 7))
	l := make([]float32, vocab)
	for i := range l {
		l[i] = float32(r.NormFloat64())
	}
	return l
}

// Where top-p keeps thousands of tokens, a token is drawn first and then looked at. All ways
// that it can go are taken: at once, again, and at last from what top-p keeps.
func TestTopPOfFlat(t *testing.T) {
	t.Parallel()
	const vocab = 6000
	for _, o := range []Options{
		{Temperature: 1, TopP: 0.9},
		{Temperature: 2, TopP: 0.5},
		{Temperature: 3, TopP: 0.3, MinP: 0.01},
		{Temperature: 2, TopP: 0.4, MinP: 0.2},
		{Temperature: 5, TopP: 0.5, TopK: 5000},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			t.Parallel()
			o.Seed = 1
			for _, l := range levels() {
				s, n := New(o, vocab), newNaive(o)
				s.row.level = l
				for i := range uint64(40) {
					logits := flatLogits(i, vocab)
					got, err := s.Next(logits, nil)
					require.NoError(t, err)
					want := n.next(logits)
					require.Equal(t, want.token, got.Token, "row %d", i)
					require.True(t, want.ideal(o))
				}
			}
		})
	}
}

// The weight before a token is that of those likelier, without its own.
func TestMassBefore(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		logits := logitsOf(r, 900)
		order := byLikelihood(logits)
		for _, l := range levels() {
			row := row{level: l}
			if row.read(logits, scaleOf(1)) != nil {
				continue
			}
			for range 20 {
				at := r.IntN(len(order))
				_, _, want := blocksOf(logits, slices.Clone(order[:at]), scaleOf(1))
				require.Equal(t, want, row.massBefore(order[at]), "%d of %d", at, len(order))
			}
		}
	}
}
