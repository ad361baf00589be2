package grammar

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"
)

// patternWriter writes a regular expression as GBNF for what stands between the
// quotation marks of a JSON string.
type patternWriter struct {
	c *converter
	s *shape
}

// write returns "" for an expression that matches only the empty text.
func (p patternWriter) write(re *syntax.Regexp) (string, error) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return "", nil
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return p.bothCases(re.Rune)
		}
		return inString(string(re.Rune)), nil
	case syntax.OpCharClass:
		return p.class(re)
	case syntax.OpAnyChar:
		return p.class(&syntax.Regexp{Rune: []rune{0, 0x10FFFF}})
	case syntax.OpAnyCharNotNL: // JavaScript's four ends of a line, not only Go's one
		return p.class(&syntax.Regexp{Rune: []rune{0, '\n' - 1, '\n' + 1, '\r' - 1, '\r' + 1, 0x2027, 0x202A, 0x10FFFF}})
	case syntax.OpCapture:
		return p.write(re.Sub[0])
	case syntax.OpConcat:
		return p.sequence(re.Sub)
	case syntax.OpAlternate:
		return p.alternatives(re.Sub)
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		return p.repeat(re)
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText:
		return "", errors.New("^ and $ are supported only at the two ends")
	case syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return "", errors.New(`\b and \B are not supported`)
	}
	return "", fmt.Errorf("%s matches nothing", re)
}

func (p patternWriter) sequence(subs []*syntax.Regexp) (string, error) {
	var texts []string
	for _, sub := range subs {
		text, err := p.write(sub)
		if err != nil {
			return "", err
		}
		if text != "" {
			texts = append(texts, p.symbol(text, sub))
		}
	}
	return strings.Join(texts, " "), nil
}

// symbol puts alternatives, which bind less than what stands beside them, into a
// rule of their own.
func (p patternWriter) symbol(text string, re *syntax.Regexp) string {
	for re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	if re.Op == syntax.OpAlternate {
		return p.c.named(text, p.s.at)
	}
	return text
}

func (p patternWriter) alternatives(subs []*syntax.Regexp) (string, error) {
	var texts []string
	empty := false
	for _, sub := range subs {
		text, err := p.write(sub)
		if err != nil {
			return "", err
		}
		if text == "" {
			empty = true
			continue
		}
		texts = append(texts, text)
	}
	text := strings.Join(texts, " | ")
	if empty && text != "" {
		// llama.cpp takes the repetition of a rule with an empty alternative for left
		// recursion, but not of one with an optional part.
		text = p.c.named(text, p.s.at) + "?"
	}
	return text, nil
}

func (p patternWriter) repeat(re *syntax.Regexp) (string, error) {
	text, err := p.write(re.Sub[0])
	if err != nil || text == "" {
		return "", err
	}
	least, most := repetition(re)
	// One symbol is repeated, so that a repetition in a repetition does not multiply.
	if !strings.HasPrefix(text, "[") || strings.IndexByte(text, ']') != len(text)-1 || len(text) > 40 {
		text = p.c.named(text, p.s.at)
	}
	return p.c.times(p.s, text, least, most), nil
}

// inString is a text as it stands inside of a JSON string.
func inString(text string) string {
	quoted := quoteJSON(text)
	return literal(quoted[1 : len(quoted)-1])
}

// bothCases writes characters of which the case does not matter, which is also how
// Go reads [aA].
func (p patternWriter) bothCases(runes []rune) (string, error) {
	var texts []string
	for _, r := range runes {
		both := []rune{r, r}
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			if (f < 0x80) == (r < 0x80) { // as in JavaScript, k is not the sign for kelvin
				both = append(both, f, f)
			}
		}
		text, err := p.class(&syntax.Regexp{Rune: both})
		if err != nil {
			return "", err
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " "), nil
}

// class writes a set of characters. The few that JSON writes with an escape are
// written so; control characters that have only the long escape are left out
// unless there is nothing else.
func (p patternWriter) class(re *syntax.Regexp) (string, error) {
	var set runeSet
	for i := 0; i+1 < len(re.Rune); i += 2 {
		set.add(re.Rune[i], re.Rune[i+1])
	}
	set = withoutSpaces(set)
	plain := set.and(plainRunes())
	var escapes runeSet
	for i, r := range shortEscaped {
		if set.has(r) {
			escapes.add(rune(shortEscapes[i]), rune(shortEscapes[i]))
		}
	}
	var alternatives []string
	if len(plain) > 0 {
		alternatives = append(alternatives, class(plain))
	}
	if len(escapes) > 0 {
		alternatives = append(alternatives, `"\\" `+class(escapes))
	}
	if len(alternatives) == 0 {
		for r := range rune(' ') {
			if set.has(r) {
				alternatives = append(alternatives, inString(string(r)))
			}
		}
	}
	switch len(alternatives) {
	case 0:
		return "", fmt.Errorf("%s matches no character", re)
	case 1:
		return alternatives[0], nil
	}
	return p.c.named(strings.Join(alternatives, " | "), p.s.at), nil
}

// withoutSpaces takes the blanks beyond ASCII out of what excludes ASCII's, such
// as \S and [^\s@]: in JavaScript \s means them too, in Go it does not.
func withoutSpaces(set runeSet) runeSet {
	for _, r := range "\t\n\f\r " {
		if set.has(r) {
			return set
		}
	}
	return set.minus(runeSet{
		{'\v', '\v'},
		{0xA0, 0xA0},
		{0x1680, 0x1680},
		{0x2000, 0x200A},
		{0x2028, 0x2029},
		{0x202F, 0x202F},
		{0x205F, 0x205F},
		{0x3000, 0x3000},
		{0xFEFF, 0xFEFF},
	})
}
