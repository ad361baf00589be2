package grammar

import (
	"fmt"
	"regexp/syntax"
)

func (s *shape) readString(k keyword) error {
	switch k.name {
	case "minLength":
		return tighten(&s.minLength, k, larger)
	case "maxLength":
		return tighten(&s.maxLength, k, smaller)
	}
	if k.value.kind != isString {
		return k.fault("must be a string")
	}
	have := &s.pattern
	if k.name == "format" {
		have = &s.format
	}
	if have.value != nil && have.value.text != k.value.text {
		return k.fault("%s as well as %s is not supported for one value", k.value, have.value)
	}
	*have = k
	return nil
}

// str is the right side for the strings of s.
func (c *converter) str(s *shape) (string, error) {
	least, most := s.minLength.n, -1
	if s.maxLength.set {
		most = s.maxLength.n
	}
	if most >= 0 && least > most {
		return "", s.minLength.by.fault("at least %d characters, but at most %d are allowed", least, most)
	}
	switch {
	case s.pattern.value != nil && s.format.value != nil:
		return "", s.format.fault("not supported beside a pattern")
	case s.pattern.value != nil:
		return c.matching(s, s.pattern, s.pattern.value.text, least, most)
	case s.format.value != nil:
		pattern := formatPattern(s.format.value.text)
		if pattern == "" {
			e := s.format.fault("%s is not supported, only %s", s.format.value, formatNames)
			e.hint = "leave the format out, or describe the text with a pattern"
			return "", e
		}
		return c.matching(s, s.format, pattern, least, most)
	case s.minLength.set || s.maxLength.set:
		text := c.times(s, c.builtin("char"), least, most)
		if text == "" {
			return `"\"\""`, nil
		}
		return `"\"" ` + text + ` "\""`, nil
	}
	return c.builtin("string"), nil
}

// matching is the right side for strings of least to most (-1 = no limit)
// characters that match a pattern, which k gives.
func (c *converter) matching(s *shape, k keyword, pattern string, least, most int) (string, error) {
	re, err := parsePattern(pattern)
	if err != nil {
		e := k.fault("%s: %v", k.value, err)
		e.hint = "a pattern is ^…$ around literals, ., classes such as [a-z0-9] and \\d, groups, | and the quantifiers * + ? {m,n}"
		return "", e
	}
	re, fits := withLength(re, least, most)
	if !fits {
		low, high := lengths(re)
		e := k.fault("not supported beside minLength or maxLength unless all that match have such a length: %s", span(low, high))
		e.hint = "write the lengths into the pattern, as in ^[a-z]{2,10}$"
		return "", e
	}
	p := patternWriter{c: c, s: s}
	text, err := p.write(re)
	if err != nil {
		return "", k.fault("%s: %v", k.value, err)
	}
	if text == "" {
		return `"\"\""`, nil
	}
	return `"\"" ` + p.symbol(text, re) + ` "\""`, nil
}

func span(low, high int) string {
	if high < 0 {
		return fmt.Sprintf("it matches texts of %d characters and more", low)
	}
	return fmt.Sprintf("it matches texts of %d to %d characters", low, high)
}

// withLength makes re match only texts of least to most (-1 = no limit)
// characters, if that is simple: if it does so by itself, or is one repeated
// character.
func withLength(re *syntax.Regexp, least, most int) (*syntax.Regexp, bool) {
	low, high := lengths(re)
	if low >= least && (most < 0 || high >= 0 && high <= most) {
		return re, true
	}
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		l, h := lengths(re.Sub[0])
		if l != 1 || h != 1 {
			return re, false
		}
	default:
		return re, false
	}
	low = max(low, least)
	if high < 0 || most >= 0 && most < high {
		high = most
	}
	if high >= 0 && low > high {
		return re, false
	}
	return &syntax.Regexp{Op: syntax.OpRepeat, Sub: re.Sub, Min: low, Max: high}, true
}

const formatNames = "date-time, date, time, duration, uuid, email, hostname, ipv4, ipv6 and uri"

// formatPattern is the pattern of a format, "" if there is none of that name. What
// matches is valid by the format; the less usual ways to write one are left out.
func formatPattern(name string) string {
	const (
		// All days that there are, those of leap years too.
		date = `(\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))` +
			`|(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)`
		hour  = `([01]\d|2[0-3])`
		clock = hour + `:[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+\-]` + hour + `:[0-5]\d)`
		label = `[A-Za-z0-9]([A-Za-z0-9\-]{0,40}[A-Za-z0-9])?`
		host  = label + `(\.` + label + `){0,4}`
		word  = `[A-Za-z0-9_+\-]{1,20}`
		octet = `(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`
		char  = `([A-Za-z0-9._~!$&'()*+,;=:@/\-]|%[0-9A-F]{2})`
	)
	switch name {
	case "date":
		return "^" + date + "$"
	case "time":
		return "^" + clock + "$"
	case "date-time":
		return "^" + date + "T" + clock + "$"
	case "duration":
		return `^P(\d{1,6}W|(\d{1,6}Y(\d{1,6}M(\d{1,6}D)?)?|\d{1,6}M(\d{1,6}D)?|\d{1,6}D)(T` + period + `)?|T` + period + `)$`
	case "uuid":
		return `^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`
	case "email":
		return `^` + word + `(\.` + word + `){0,2}@` + host + `$`
	case "hostname":
		return `^` + host + `$`
	case "ipv4":
		return `^` + octet + `(\.` + octet + `){3}$`
	case "ipv6":
		return `^[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){7}$`
	case "uri":
		return `^[A-Za-z][A-Za-z0-9+.\-]{0,20}://` + host + `(:\d{1,4})?(/` + char + `*)?(\?` + char + `*)?(#` + char + `*)?$`
	}
	return ""
}

// period is the part of a duration after its T.
const period = `(\d{1,6}H(\d{1,6}M(\d{1,6}S)?)?|\d{1,6}M(\d{1,6}S)?|\d{1,6}S)`
