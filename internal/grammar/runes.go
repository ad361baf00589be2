package grammar

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// runeRange are the characters from low to high.
type runeRange struct{ low, high rune }

// runeSet is a set of characters: ranges in any order.
type runeSet []runeRange

func (s *runeSet) add(low, high rune) { *s = append(*s, runeRange{low, high}) }

// sorted are the ranges in order, with none that touch.
func (s runeSet) sorted() runeSet {
	in := slices.Clone(s)
	slices.SortFunc(in, func(a, b runeRange) int { return int(a.low - b.low) })
	var out runeSet
	for _, r := range in {
		if n := len(out); n > 0 && r.low <= out[n-1].high+1 {
			out[n-1].high = max(out[n-1].high, r.high)
			continue
		}
		out = append(out, r)
	}
	return out
}

// minus are the characters of s that are not in other.
func (s runeSet) minus(other runeSet) runeSet {
	var out runeSet
	other = other.sorted()
	for _, r := range s.sorted() {
		for _, o := range other {
			if o.high < r.low || o.low > r.high {
				continue
			}
			if o.low > r.low {
				out.add(r.low, o.low-1)
			}
			r.low = o.high + 1
		}
		if r.low <= r.high {
			out = append(out, r)
		}
	}
	return out
}

// and are the characters that are in both.
func (s runeSet) and(other runeSet) runeSet { return s.minus(s.minus(other)) }

func (s runeSet) has(c rune) bool {
	return slices.ContainsFunc(s, func(r runeRange) bool { return r.low <= c && c <= r.high })
}

// plainRunes are the characters that can stand for themselves in a JSON string.
func plainRunes() runeSet {
	return runeSet{{' ', '!'}, {'#', '['}, {']', 0xD7FF}, {0xE000, utf8.MaxRune}}
}

func isPlain(c rune) bool { return plainRunes().has(c) }

// class is a set of characters as GBNF has it, [a-z].
func class(s runeSet) string {
	var b strings.Builder
	b.WriteByte('[')
	for _, r := range s.sorted() {
		classRune(&b, r.low)
		if r.high > r.low {
			if r.high > r.low+1 {
				b.WriteByte('-')
			}
			classRune(&b, r.high)
		}
	}
	b.WriteByte(']')
	return b.String()
}

func classRune(b *strings.Builder, r rune) {
	switch {
	case strings.ContainsRune(`\[]-`, r):
		b.WriteString(`\` + string(r))
	case r == '^' || r <= ' ' || r == 0x7F:
		fmt.Fprintf(b, `\x%02X`, r)
	case r > '~' && r <= 0xFF:
		fmt.Fprintf(b, `\x%02X`, r)
	case r > 0xFF && r <= 0xFFFF:
		fmt.Fprintf(b, `\u%04X`, r)
	case r > 0xFFFF:
		fmt.Fprintf(b, `\U%08X`, r)
	default:
		b.WriteRune(r)
	}
}

// literal is a text as GBNF has it, in quotation marks.
func literal(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r < ' ' || r == 0x7F:
			fmt.Fprintf(&b, `\x%02X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// trie is a set of texts by their beginnings, in the order in which they came.
type trie struct {
	end      bool // a text ends here
	children []branch
}

type branch struct {
	char rune
	trie *trie
}

func (t *trie) insert(text []rune) {
	for _, r := range text {
		i := slices.IndexFunc(t.children, func(b branch) bool { return b.char == r })
		if i < 0 {
			i = len(t.children)
			t.children = append(t.children, branch{r, &trie{}})
		}
		t = t.children[i].trie
	}
	t.end = true
}
