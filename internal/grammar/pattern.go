package grammar

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// parsePattern reads a regular expression that is anchored at both ends, and
// returns what is between the anchors.
func parsePattern(pattern string) (*syntax.Regexp, error) {
	translated, err := translateEscapes(pattern)
	if err != nil {
		return nil, err
	}
	re, err := syntax.Parse(translated, syntax.Perl)
	if err != nil {
		if fault, ok := errors.AsType[*syntax.Error](err); ok {
			return nil, fmt.Errorf("%s: %q", fault.Code, fault.Expr)
		}
		return nil, fmt.Errorf("read it: %w", err)
	}
	re, begins := unanchor(re, true)
	re, ends := unanchor(re, false)
	if !begins || !ends {
		return nil, errors.New("only a pattern that begins with ^ and ends with $ is supported; others look for a part of the text")
	}
	return re, nil
}

// translateEscapes turns the escapes of JavaScript's expressions, which JSON
// Schema uses, into Go's, and refuses those that mean something else in Go.
func translateEscapes(pattern string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '\\' {
			b.WriteByte(pattern[i])
			continue
		}
		i++
		switch {
		case i == len(pattern):
			return "", errors.New(`it ends with a \`)
		case pattern[i] == 'u':
			r, length, err := unicodeEscape(pattern[i-1:])
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, `\x{%X}`, r)
			i += length - 2
		case isAlphanumeric(pattern[i]) && !strings.ContainsRune("dDwWsSnrtfv0xpPbBAz", rune(pattern[i])):
			return "", fmt.Errorf(`the escape \%c is not supported`, pattern[i])
		default:
			b.WriteString(pattern[i-1 : i+1])
		}
	}
	return b.String(), nil
}

func isAlphanumeric(c byte) bool {
	return c < 0x80 && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c)))
}

// unicodeEscape reads \uXXXX, or two of them for one character, at the beginning
// of s, and says how long it is.
func unicodeEscape(s string) (r rune, length int, err error) {
	hex := func(s string) rune {
		if len(s) < 6 || s[:2] != `\u` {
			return -1
		}
		n, err := strconv.ParseUint(s[2:6], 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	r = hex(s)
	switch {
	case r < 0:
		return 0, 0, errors.New(`\u wants four hexadecimal digits`)
	case !utf16.IsSurrogate(r):
		return r, 6, nil
	}
	pair := utf16.DecodeRune(r, hex(s[6:]))
	if pair == unicode.ReplacementChar {
		return 0, 0, fmt.Errorf(`\u%04X is half a character`, r)
	}
	return pair, 12, nil
}

// unanchor takes the anchor off the beginning or the end of an expression. It
// reports false if there is not one in all alternatives.
func unanchor(re *syntax.Regexp, begin bool) (*syntax.Regexp, bool) {
	empty := &syntax.Regexp{Op: syntax.OpEmptyMatch}
	switch re.Op {
	case syntax.OpBeginText:
		return empty, begin
	case syntax.OpEndText:
		return empty, !begin
	case syntax.OpCapture:
		return unanchor(re.Sub[0], begin)
	case syntax.OpAlternate:
		out := &syntax.Regexp{Op: syntax.OpAlternate}
		for _, sub := range re.Sub {
			inner, ok := unanchor(sub, begin)
			if !ok {
				return re, false
			}
			out.Sub = append(out.Sub, inner)
		}
		return out, true
	case syntax.OpConcat:
		place := 0
		if !begin {
			place = len(re.Sub) - 1
		}
		inner, ok := unanchor(re.Sub[place], begin)
		out := &syntax.Regexp{Op: syntax.OpConcat, Sub: append([]*syntax.Regexp(nil), re.Sub...)}
		out.Sub[place] = inner
		return simple(out), ok
	}
	return re, false
}

// simple takes what matches nothing out of a sequence.
func simple(re *syntax.Regexp) *syntax.Regexp {
	var subs []*syntax.Regexp
	for _, sub := range re.Sub {
		if sub.Op != syntax.OpEmptyMatch {
			subs = append(subs, sub)
		}
	}
	switch len(subs) {
	case 0:
		return &syntax.Regexp{Op: syntax.OpEmptyMatch}
	case 1:
		return subs[0]
	}
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: subs}
}

// lengths are the fewest and the most characters that re matches; -1 = no limit.
func lengths(re *syntax.Regexp) (low, high int) {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune), len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1, 1
	case syntax.OpCapture:
		return lengths(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			l, h := lengths(sub)
			low += l
			if high >= 0 {
				high += h
			}
			if h < 0 {
				high = -1
			}
		}
		return low, high
	case syntax.OpAlternate:
		low, high = lengths(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			l, h := lengths(sub)
			low = min(low, l)
			if high >= 0 {
				high = max(high, h)
			}
			if h < 0 {
				high = -1
			}
		}
		return low, high
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		least, most := repetition(re)
		l, h := lengths(re.Sub[0])
		if h == 0 {
			return 0, 0
		}
		if h < 0 || most < 0 {
			return l * least, -1
		}
		return l * least, h * most
	}
	return 0, 0
}

// repetition is how often re's operand comes; -1 = no limit.
func repetition(re *syntax.Regexp) (least, most int) {
	switch re.Op {
	case syntax.OpStar:
		return 0, -1
	case syntax.OpPlus:
		return 1, -1
	case syntax.OpQuest:
		return 0, 1
	}
	return re.Min, re.Max
}
