package llama

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/hybridgroup/yzma/pkg/llama"

	"tempo/internal/grammar"
)

// Grammars makes the grammars of a model. It has the vocabulary in an order in
// which most tokens need not be looked at, and is made once for a model: that takes
// milliseconds. It is safe for concurrent use.
type Grammars struct {
	model *Model
	// begin are the tokens that no other token is the beginning of, with the
	// end-of-generation tokens first; follow[t] are those of which t is the longest
	// beginning. Both leave out tokens that begin within a character.
	begin  []Token
	follow [][]Token
	// within are the tokens that begin within a character.
	within []Token

	candidates sync.Pool // of *candidates, for Mask
}

// candidates are tokens that llama.cpp is asked of, in its own form.
type candidates struct {
	data  []llama.TokenData
	array llama.TokenDataArray
	next  []Token
	kept  []keptLogit
}

type keptLogit struct {
	token Token
	logit float32
}

// Grammars arranges the model's vocabulary for grammars.
func (m *Model) Grammars() *Grammars {
	g := &Grammars{model: m, follow: make([][]Token, m.Vocabulary())}
	g.candidates.New = func() any { return &candidates{} }
	var text []Token
	for t := range Token(m.Vocabulary()) {
		piece := m.pieces[t]
		switch {
		case m.ends[t]:
			g.begin = append(g.begin, t)
		case len(piece) == 0: // only for a grammar that names it
		case bytes.IndexByte(piece, 0) >= 0: // llama.cpp would see what is in front only
		case !utf8.RuneStart(piece[0]):
			g.within = append(g.within, t)
		case validUTF8(nil, piece):
			text = append(text, t)
		}
	}
	slices.SortFunc(text, func(a, b Token) int { return bytes.Compare(m.pieces[a], m.pieces[b]) })
	var open []Token // each the beginning of the next
	for _, t := range text {
		for len(open) > 0 && !bytes.HasPrefix(m.pieces[t], m.pieces[open[len(open)-1]]) {
			open = open[:len(open)-1]
		}
		if len(open) == 0 {
			g.begin = append(g.begin, t)
		} else {
			before := open[len(open)-1]
			g.follow[before] = append(g.follow[before], t)
		}
		open = append(open, t)
	}
	return g
}

// validUTF8 reports whether text, after the beginning of a character in before,
// can be part of valid UTF-8. It can end within a character.
func validUTF8(before, text []byte) bool {
	if len(before) > 0 {
		text = append(slices.Clone(before), text...)
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			return !utf8.FullRune(text)
		}
		text = text[size:]
	}
	return true
}

// Grammar bounds one answer to the texts of a grammar. It must be used from one
// goroutine at a time; several grammars can be used at once.
type Grammar struct {
	of       *Grammars
	sampler  llama.Sampler // 0 = closed
	stepwise bool          // see grammar.Facts
	special  []Token       // those without text that the grammar names; no others may come
	// partial are the bytes of a character that is not complete.
	partial []byte
	one     candidates
	// allowed is the token that Allows found to be allowed last, -1 = none.
	allowed Token
}

// NewGrammar makes a grammar of GBNF whose root rule is root. It returns
// *grammar.SyntaxError if it is not one. It must be closed, before the model.
func (g *Grammars) NewGrammar(gbnf string) (*Grammar, error) {
	facts, err := grammar.Inspect(gbnf)
	if err != nil {
		return nil, err
	}
	made := &Grammar{of: g, stepwise: facts.Stepwise, allowed: -1}
	for _, name := range facts.Tokens {
		t, err := g.named(name)
		if err != nil {
			return nil, err
		}
		if len(g.model.Piece(t)) == 0 && !g.model.Ends(t) {
			made.special = append(made.special, t)
		}
	}
	lib := g.model.lib
	lib.allocating.Lock()
	defer lib.allocating.Unlock()
	lib.log.reset()
	made.sampler = llama.SamplerInitGrammar(g.model.vocab, gbnf, "root")
	if made.sampler == 0 {
		_, reason := lib.log.take()
		return nil, fmt.Errorf("read a grammar: %w", preferReason(nil, reason))
	}
	return made, nil
}

// named is the token that a grammar names.
func (g *Grammars) named(name grammar.TokenName) (Token, error) {
	if name.Text == "" {
		return Token(min(name.ID, math.MaxInt32)), nil
	}
	tokens := llama.Tokenize(g.model.vocab, name.Text, false, true)
	if len(tokens) != 1 {
		return 0, &grammar.SyntaxError{Line: name.Line, Column: name.Column, Problem: name.Text + " is not one token of this model"}
	}
	return Token(tokens[0]), nil
}

// Allows reports whether t may come next. An end-of-generation token may where the
// answer may end. It costs some microseconds.
func (g *Grammar) Allows(t Token) bool {
	if !g.possible(t) {
		return false
	}
	if t == g.allowed {
		return true
	}
	g.one.data = append(g.one.data[:0], llama.TokenData{Id: llama.Token(t)})
	g.one.ask(g.sampler)
	if math.IsInf(float64(g.one.data[0].Logit), -1) {
		return false
	}
	g.allowed = t
	return true
}

// possible reports whether t may be asked of llama.cpp: if its text is what
// llama.cpp takes it for, and valid UTF-8 after what came before.
func (g *Grammar) possible(t Token) bool {
	m := g.of.model
	switch {
	case t < 0 || int(t) >= len(m.pieces):
		return false
	case m.ends[t]:
		return len(g.partial) == 0
	case len(m.pieces[t]) == 0:
		return len(g.partial) == 0 && slices.Contains(g.special, t)
	}
	return bytes.IndexByte(m.pieces[t], 0) < 0 && validUTF8(g.partial, m.pieces[t])
}

// Filter keeps those of tokens that may come next, in their order and in the same
// array. It costs little more than Allows for each, and so much less than Mask if
// the likeliest tokens are known.
func (g *Grammar) Filter(tokens []Token) []Token {
	g.one.data = g.one.data[:0]
	for _, t := range tokens {
		if g.possible(t) {
			g.one.data = append(g.one.data, llama.TokenData{Id: llama.Token(t)})
		}
	}
	kept := tokens[:0]
	if len(g.one.data) == 0 {
		return kept
	}
	g.one.ask(g.sampler)
	for _, d := range g.one.data {
		if !math.IsInf(float64(d.Logit), -1) {
			kept = append(kept, Token(d.Id))
		}
	}
	return kept
}

// ask has llama.cpp set the logits of the tokens that may not come to -Inf.
func (c *candidates) ask(s llama.Sampler) {
	c.array = llama.TokenDataArray{Data: &c.data[0], Size: uint64(len(c.data)), Selected: -1}
	llama.SamplerApply(s, &c.array)
}

// Mask sets the logits, one for each token of the vocabulary, of all tokens that
// may not come next to -Inf, and returns how many may. That there are none is possible: some grammars ask for what no
// token can write.
func (g *Grammar) Mask(logits []float32) int {
	c, _ := g.of.candidates.Get().(*candidates)
	defer g.of.candidates.Put(c)
	c.kept = c.kept[:0]
	g.each(c, func(t Token) bool {
		c.kept = append(c.kept, keptLogit{t, logits[t]})
		return true
	})
	none := float32(math.Inf(-1))
	for t := range logits {
		logits[t] = none
	}
	for _, k := range c.kept {
		logits[k.token] = k.logit
	}
	return len(c.kept)
}

// each calls do for all tokens that may come next, until it returns false.
func (g *Grammar) each(c *candidates, do func(Token) bool) {
	c.next = c.next[:0]
	if len(g.partial) > 0 {
		c.next = append(c.next, g.of.within...)
	} else {
		c.next = append(c.next, g.of.begin...)
		c.next = append(c.next, g.special...)
	}
	for from := 0; from < len(c.next); {
		c.data = c.data[:0]
		for ; from < len(c.next); from++ {
			t := c.next[from]
			if !g.stepwise {
				c.next = append(c.next, g.of.follow[t]...)
			}
			if len(g.partial) == 0 || g.possible(t) {
				c.data = append(c.data, llama.TokenData{Id: llama.Token(t)})
			}
		}
		if len(c.data) == 0 {
			return
		}
		c.ask(g.sampler)
		for i := range c.data {
			if math.IsInf(float64(c.data[i].Logit), -1) {
				continue
			}
			if g.stepwise {
				c.next = append(c.next, g.of.follow[c.data[i].Id]...)
			}
			if !do(Token(c.data[i].Id)) {
				return
			}
		}
	}
}

// Accept says that t was taken. It returns an error, and changes nothing, if t may
// not come.
func (g *Grammar) Accept(t Token) error {
	if !g.Allows(t) { // llama.cpp would end the process
		return fmt.Errorf("accept token %d (%q): the grammar does not allow it here", t, g.of.model.Piece(t))
	}
	g.allowed = -1
	llama.SamplerAccept(g.sampler, llama.Token(t))
	if !g.of.model.ends[t] {
		g.partial = incomplete(append(g.partial, g.of.model.pieces[t]...))
	}
	return nil
}

// incomplete are the bytes of the last character of text if it is not complete.
func incomplete(text []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if last := text[len(text)-i:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return nil
			}
			return slices.Clone(last)
		}
	}
	return nil
}

// Clone is a grammar in the same state, to be closed too.
func (g *Grammar) Clone() *Grammar {
	return &Grammar{
		of: g.of, sampler: llama.SamplerClone(g.sampler), stepwise: g.stepwise, special: g.special,
		partial: slices.Clone(g.partial), allowed: g.allowed,
	}
}

// Close frees the grammar. It may be called again.
func (g *Grammar) Close() {
	llama.SamplerFree(g.sampler)
	g.sampler = 0
}
