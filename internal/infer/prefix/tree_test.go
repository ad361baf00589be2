package prefix

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

type match struct{ seq, common int }

func matches(t *Tree, tokens []Token) []match {
	var all []match
	for seq, common := range t.Matches(tokens) {
		all = append(all, match{seq, common})
	}
	return all
}

func text(s string) []Token {
	var tokens []Token
	for _, r := range s {
		tokens = append(tokens, r)
	}
	return tokens
}

func TestMatches(t *testing.T) {
	t.Parallel()
	var tree Tree
	require.Empty(t, matches(&tree, text("abc")))
	tree.Put(3, text("abcdef"))
	tree.Put(200, text("abcxyz"))
	tree.Put(7, text("abc"))
	tree.Put(1, text("b"))
	require.Equal(t, []match{{3, 6}, {7, 3}, {200, 3}}, matches(&tree, text("abcdefgh")))
	require.Equal(t, []match{{200, 5}, {3, 3}, {7, 3}}, matches(&tree, text("abcxy")))
	require.Equal(t, []match{{3, 2}, {7, 2}, {200, 2}}, matches(&tree, text("ab")))
	require.Equal(t, []match{{3, 2}, {7, 2}, {200, 2}}, matches(&tree, text("abq")))
	require.Empty(t, matches(&tree, text("q")))
	require.Empty(t, matches(&tree, nil))
	tree.Put(3, text("b"))
	require.Equal(t, []match{{200, 6}, {7, 3}}, matches(&tree, text("abcxyz")))
	tree.Drop(200)
	tree.Drop(7)
	tree.Drop(7)
	require.Equal(t, []match{{1, 1}, {3, 1}}, matches(&tree, text("bcd")))
	tree.Drop(1)
	tree.Drop(3)
	require.Empty(t, tree.root.children, "nothing is left of what was dropped")
}

// A search can be left early.
func TestMatchesStops(t *testing.T) {
	t.Parallel()
	var tree Tree
	tree.Put(0, text("ab"))
	tree.Put(1, text("a"))
	for seq := range tree.Matches(text("ab")) {
		require.Equal(t, 0, seq)
		break
	}
}

// The tree finds what comparing with every sequence finds.
func FuzzTree(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, 200)
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps int) {
		random := rand.New(rand.NewPCG(seed, 0))
		var tree Tree
		plain := map[int][]Token{}
		for range min(steps, 1000) {
			seq := random.IntN(MaxSequences)
			if random.IntN(3) == 0 {
				tree.Drop(seq)
				delete(plain, seq)
			} else {
				tokens := make([]Token, random.IntN(12))
				for i := range tokens {
					tokens[i] = Token(random.IntN(3))
				}
				tree.Put(seq, tokens)
				plain[seq] = tokens
			}
			asked := make([]Token, random.IntN(12))
			for i := range asked {
				asked[i] = Token(random.IntN(3))
			}
			require.Equal(t, expected(plain, asked), matches(&tree, asked))
		}
	})
}

func expected(plain map[int][]Token, asked []Token) []match {
	var all []match
	for seq, tokens := range plain {
		if n := commonLength(tokens, asked); n > 0 {
			all = append(all, match{seq, n})
		}
	}
	slices.SortFunc(all, func(a, b match) int {
		if a.common != b.common {
			return b.common - a.common
		}
		return a.seq - b.seq
	})
	return all
}

func ExampleTree() {
	var tree Tree
	tree.Put(0, []Token{1, 2, 3, 4})
	tree.Put(1, []Token{1, 2, 9})
	for seq, common := range tree.Matches([]Token{1, 2, 3, 5}) {
		fmt.Println("sequence", seq, "has", common)
	}
	// Output:
	// sequence 0 has 3
	// sequence 1 has 2
}

func BenchmarkMatches(b *testing.B) {
	var tree Tree
	random := rand.New(rand.NewPCG(1, 1))
	common := make([]Token, 512)
	for seq := range MaxSequences {
		tokens := slices.Clone(common)
		for range 32 {
			tokens = append(tokens, Token(random.IntN(32000)))
		}
		tree.Put(seq, tokens)
	}
	for b.Loop() {
		for range tree.Matches(common) {
			break
		}
	}
}
