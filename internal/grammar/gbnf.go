package grammar

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of llama.cpp, and of what it can be asked to do.
const (
	maxRepetition = 2000      // llama.cpp's own
	maxNesting    = 2000      // parentheses in parentheses, which its parser follows by recursion
	maxSource     = 4 << 20   // bytes
	maxElements   = 4_000_000 // of all rules with repetitions written out; 8 bytes each
)

// element is a symbol of a rule: another rule, or characters or a token.
type element struct {
	rule int // -1 = not a rule
	size int // how many of llama.cpp's elements it is
}

// production is a rule as llama.cpp has it: its alternatives, with repetitions
// turned into rules.
type production struct {
	alternatives [][]element
	defined      bool
	at           int // where it was defined, or first named, in the source
}

// TokenName is a token that a grammar names, <text> or <[id]>.
type TokenName struct {
	// Text is what is written between < and >, with both, "" for an id.
	Text string
	// ID is the number in an id.
	ID uint64
	// Line and Column are where it is written, both from 1.
	Line, Column int
}

// source reads a grammar as llama.cpp's parser does, and makes the same rules.
// Source: llama.cpp v0.5.0, src/llama-grammar.cpp.
type source struct {
	text    string
	pos     int
	names   map[string]int // of rules that the user named
	rules   []production
	tokens  []TokenName
	excepts bool // a class excludes characters beyond ASCII
	size    int  // elements of all rules
}

// stop carries a fault out of the parser's recursion.
type stop struct{ fault *SyntaxError }

func (p *source) fail(at int, format string, args ...any) {
	panic(stop{p.fault(at, format, args...)})
}

func (p *source) fault(at int, format string, args ...any) *SyntaxError {
	line, column := p.place(at)
	return &SyntaxError{Line: line, Column: column, Problem: fmt.Sprintf(format, args...)}
}

// place is the line and the column of a place in the source.
func (p *source) place(at int) (line, column int) {
	before := p.text[:min(at, len(p.text))]
	line = 1 + strings.Count(before, "\n")
	return line, 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// read reads all rules.
func (p *source) read() (err error) {
	switch i := strings.IndexByte(p.text, 0); {
	case len(p.text) > maxSource:
		return p.fault(0, "%d bytes long, at most %d are allowed", len(p.text), maxSource)
	case i >= 0:
		return p.fault(i, "a NUL character, which llama.cpp takes for the end")
	case !utf8.ValidString(p.text):
		return p.fault(invalidAt(p.text), "a byte that is not UTF-8")
	}
	defer func() {
		if r := recover(); r != nil {
			s, ok := r.(stop)
			if !ok {
				panic(r)
			}
			err = s.fault
		}
	}()
	p.space(true)
	for p.pos < len(p.text) {
		p.rule()
	}
	p.defined()
	return nil
}

func invalidAt(s string) int {
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			return i
		}
	}
	return len(s)
}

// defined checks that there are rules, and that all of them that are named, and
// root, have a definition. One that only a definition names that a later one
// replaced is none of llama.cpp's rules, unless rules came after it.
func (p *source) defined() {
	root, ok := p.names[rootRule]
	if !ok {
		p.fail(0, "there is no rule %s", rootRule)
	}
	used := make([]bool, len(p.rules))
	last := 0
	for i, r := range p.rules {
		if r.defined {
			last = i
		}
		for _, alternative := range r.alternatives {
			for _, e := range alternative {
				if e.rule >= 0 {
					used[e.rule] = true
				}
			}
		}
	}
	for i, r := range p.rules {
		if r.defined || i > last && !used[i] && i != root {
			continue
		}
		e := p.fault(r.at, "the rule %s is not defined", p.name(i))
		e.hint = "define it in a line of its own; a text stands in quotation marks"
		panic(stop{e})
	}
}

// name is the name of a rule, "" for one that was made of a repetition or of
// parentheses.
func (p *source) name(rule int) string {
	for name, id := range p.names {
		if id == rule {
			return name
		}
	}
	return ""
}

// peek is the byte at the place, 0 at the end.
func (p *source) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// space skips blanks and comments, and ends of lines too if they do not matter.
func (p *source) space(newlines bool) {
	for {
		switch c := p.peek(); {
		case c == ' ' || c == '\t' || newlines && (c == '\r' || c == '\n'):
			p.pos++
		case c == '#':
			for c := p.peek(); c != 0 && c != '\r' && c != '\n'; c = p.peek() {
				p.pos++
			}
		default:
			return
		}
	}
}

func isNameByte(c byte) bool { return isAlphanumeric(c) || c == '-' }
func isDigit(c byte) bool    { return c >= '0' && c <= '9' }

// run skips bytes, and returns them.
func (p *source) run(of func(byte) bool) string {
	from := p.pos
	for of(p.peek()) {
		p.pos++
	}
	return p.text[from:p.pos]
}

// found describes what is at the place, for a message.
func (p *source) found() string {
	switch c := p.peek(); c {
	case 0:
		return "the grammar ends"
	case '\r', '\n':
		return "the line ends"
	case '_':
		return "there is _, which names of rules cannot have"
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
	return "there is " + strconv.Quote(string(r))
}

// symbol is the number of the rule of that name.
func (p *source) symbol(name string, at int) int {
	id, ok := p.names[name]
	if !ok {
		id = p.fresh(at)
		p.names[name] = id
	}
	return id
}

// fresh makes room for a rule.
func (p *source) fresh(at int) int {
	p.rules = append(p.rules, production{at: at})
	p.grow(1, at)
	return len(p.rules) - 1
}

// grow counts elements, that a small grammar does not become a huge one.
func (p *source) grow(n, at int) {
	if p.size += n; p.size > maxElements {
		p.fail(at, "with its repetitions written out the grammar has more than %d elements", maxElements)
	}
}

// rule reads NAME ::= DEFINITION and the end of its line.
func (p *source) rule() {
	at := p.pos
	name := p.run(isNameByte)
	if name == "" {
		p.fail(p.pos, "the name of a rule was expected, of letters, digits and -, but %s", p.found())
	}
	p.space(false)
	if !strings.HasPrefix(p.text[p.pos:], "::=") {
		p.fail(p.pos, "::= was expected after the rule's name %s, but %s", name, p.found())
	}
	p.pos += len("::=")
	id := p.symbol(name, at)
	p.rules[id].at = at
	p.space(true)
	p.alternates(id, 0)
	switch p.peek() {
	case 0, '\r', '\n':
	default:
		p.fail(p.pos, "the end of the rule %s was expected, but %s", name, p.found())
	}
	p.space(true)
}

// alternates reads a rule's definition, or what is in parentheses.
func (p *source) alternates(id, nesting int) {
	var list [][]element
	for {
		list = append(list, p.sequence(nesting))
		p.grow(1, p.pos)
		if p.peek() != '|' {
			break
		}
		p.pos++
		p.space(true)
	}
	p.rules[id].alternatives, p.rules[id].defined = list, true
}
