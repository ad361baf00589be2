// Package prefix knows which sequences begin alike: a radix tree over their tokens.
package prefix

import (
	"iter"
	"math/bits"
	"slices"
)

// Token is an index into the vocabulary.
type Token = int32

// MaxSequences is how many sequences a tree can have.
const MaxSequences = 256

// Tree has the tokens of sequences, numbered from 0 to MaxSequences-1. The zero value
// has none. It is not safe for concurrent use.
type Tree struct {
	root  node
	known [MaxSequences][]Token
}

// node is a piece of text that some sequences have after the same beginning.
type node struct {
	tokens   []Token
	has      set // sequences that have all of tokens
	children map[Token]*node
}

// Put notes that sequence seq has exactly these tokens, which must not be changed
// afterwards.
func (t *Tree) Put(seq int, tokens []Token) {
	t.Drop(seq)
	t.known[seq] = tokens
	n := &t.root
	for len(tokens) > 0 {
		child := n.children[tokens[0]]
		if child == nil {
			child = &node{tokens: tokens}
			n.add(child)
		}
		if common := commonLength(child.tokens, tokens); common < len(child.tokens) {
			child.split(common)
		}
		child.has.add(seq)
		tokens = tokens[len(child.tokens):]
		n = child
	}
}

// Drop forgets a sequence.
func (t *Tree) Drop(seq int) {
	tokens := t.known[seq]
	t.known[seq] = nil
	n := &t.root
	for len(tokens) > 0 {
		child := n.children[tokens[0]]
		child.has.remove(seq)
		if child.has.empty() { // and so have all below it
			delete(n.children, tokens[0])
			return
		}
		tokens = tokens[len(child.tokens):]
		n = child
	}
}

// Matches gives the sequences that begin as tokens do, with how many tokens they have
// in common, at least 1; the longest first, and of equal ones the lowest sequence.
func (t *Tree) Matches(tokens []Token) iter.Seq2[int, int] {
	type level struct {
		common int
		has    set
	}
	var way []level
	n, depth := &t.root, 0
	for depth < len(tokens) {
		child := n.children[tokens[depth]]
		if child == nil {
			break
		}
		common := commonLength(child.tokens, tokens[depth:])
		depth += common
		way = append(way, level{depth, child.has})
		if common < len(child.tokens) {
			break
		}
		n = child
	}
	return func(yield func(seq, common int) bool) {
		var seen set
		for _, l := range slices.Backward(way) {
			for seq := range l.has.minus(seen).all() {
				if !yield(seq, l.common) {
					return
				}
			}
			seen = l.has // which has those of the levels below it
		}
	}
}

func (n *node) add(child *node) {
	if n.children == nil {
		n.children = make(map[Token]*node)
	}
	n.children[child.tokens[0]] = child
}

// split cuts a node in two, the first with n of its tokens.
func (n *node) split(at int) {
	rest := &node{tokens: n.tokens[at:], has: n.has, children: n.children}
	n.tokens, n.children = n.tokens[:at:at], nil
	n.add(rest)
}

// commonLength is how many tokens a and b begin with alike.
func commonLength(a, b []Token) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// set is a set of sequences.
type set [MaxSequences / 64]uint64

func (s *set) add(seq int)    { s[seq/64] |= 1 << (seq % 64) }
func (s *set) remove(seq int) { s[seq/64] &^= 1 << (seq % 64) }
func (s *set) empty() bool    { return *s == set{} }

func (s set) minus(o set) set {
	for i := range s {
		s[i] &^= o[i]
	}
	return s
}

// all gives the sequences in ascending order.
func (s set) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(i*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
