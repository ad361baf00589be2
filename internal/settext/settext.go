// Package settext writes the sets of parallel generation as text, each set of several
// tokens in brackets: "The [quick/swift] fox". The text is for people; a member can have
// brackets and strokes of its own, so that it cannot be taken apart again.
package settext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Member is a token of a set.
type Member struct {
	Text    string // its bytes; they need not be whole in UTF-8
	Removed bool
}

// Part is a stretch of the text: single tokens, or a bracket.
type Part struct {
	Text string // of single tokens one after the other, whole in UTF-8; "" = a bracket
	// Position is that of the bracket's set, Members are what stands in it.
	Position int
	Members  []Shown
}

// Shown is a member in a bracket.
type Shown struct {
	Text  string // with control characters escaped
	Index int    // in the set
}

// Join writes sets, one for each position, as one text: the members of a set of several
// in brackets, in their order, with "/" between them. A leading space that all of them
// have stands before the bracket. What was removed is left out.
func Join(sets [][]Member) string {
	var b strings.Builder
	for _, p := range Split(sets) {
		b.WriteString(p.Text)
		for i, m := range p.Members {
			b.WriteByte("[/"[min(i, 1)])
			b.WriteString(m.Text)
		}
		if len(p.Members) > 0 {
			b.WriteByte(']')
		}
	}
	return b.String()
}

// Split is the text of [Join] in its parts.
func Split(sets [][]Member) []Part {
	var parts []Part
	var run strings.Builder // bytes of single tokens: together they can be whole in UTF-8
	end := func() {
		if run.Len() > 0 {
			parts = append(parts, Part{Text: Whole(run.String())})
			run.Reset()
		}
	}
	for i, set := range sets {
		var left []Shown
		for j, m := range set {
			if !m.Removed {
				left = append(left, Shown{m.Text, j})
			}
		}
		if len(left) < 2 {
			for _, m := range left {
				run.WriteString(m.Text)
			}
			continue
		}
		if sharesSpace(left) {
			run.WriteByte(' ')
			for j := range left {
				left[j].Text = left[j].Text[1:]
			}
		}
		end()
		for j := range left {
			left[j].Text = Escape(left[j].Text)
		}
		parts = append(parts, Part{Position: i, Members: left})
	}
	end()
	return parts
}

func sharesSpace(members []Shown) bool {
	for _, m := range members {
		if !strings.HasPrefix(m.Text, " ") {
			return false
		}
	}
	return true
}

// Escape writes what does not stand on a line as escapes: control characters, newlines
// and tabs among them, characters that turn the direction of the text, and bytes that
// are not whole in UTF-8 (\n, \x1b, \u202e, \xNN). A backslash is left as it is.
func Escape(text string) string { return escape(text, unprintable) }

// Neutral is text that can be written to a terminal: as [Escape], but newlines and tabs
// stay.
func Neutral(text string) string {
	return escape(text, func(r rune) bool { return r != '\n' && r != '\t' && unprintable(r) })
}

// Whole escapes only the bytes that are not whole in UTF-8.
func Whole(text string) string { return escape(text, func(rune) bool { return false }) }

// unprintable reports whether r can move a terminal's cursor or turn its text around:
// control characters, line separators and directional embeddings, overrides and isolates.
func unprintable(r rune) bool {
	return unicode.IsControl(r) || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func escape(text string, is func(rune) bool) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, is) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case !is(r):
			b.WriteString(text[:size])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// Token is the text of an api.ParallelToken: [Whole], with what would look like a byte of that
// told apart. The backslash of such a text is \x5c, all others stay.
func Token(text string) string {
	if !strings.Contains(text, `\x`) {
		return Whole(text)
	}
	var b strings.Builder
	for i := range len(text) {
		if _, ok := escaped(text[i:]); ok {
			b.WriteString(escapedBackslash)
			continue
		}
		b.WriteByte(text[i])
	}
	return Whole(b.String())
}

// Bytes undoes [Token]. A byte that is not whole in UTF-8 by itself may be so with the tokens
// around it.
func Bytes(text string) string {
	if !strings.Contains(text, `\x`) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		n, size := text[0], 1
		if value, ok := escaped(text); ok {
			n, size = value, len(escapedBackslash)
		}
		b.WriteByte(n)
		text = text[size:]
	}
	return b.String()
}

const escapedBackslash = `\x5c`

// escaped reports whether text begins with an escape that [Token] writes, and of which byte: a
// backslash, or one that is not whole in UTF-8, which none below 0x80 is.
func escaped(text string) (value byte, ok bool) {
	if len(text) < 4 || text[:2] != `\x` {
		return 0, false
	}
	high, low := nibble(text[2]), nibble(text[3])
	if high < 0 || low < 0 {
		return 0, false
	}
	value = byte(high<<4 | low)
	return value, value >= utf8.RuneSelf || value == '\\'
}

// nibble is the value of a small hexadecimal digit, -1 if c is none.
func nibble(c byte) int { return strings.IndexByte("0123456789abcdef", c) }
