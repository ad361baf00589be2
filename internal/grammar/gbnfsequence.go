package grammar

import (
	"strconv"
	"unicode/utf8"
)

// sequence is one alternative of a rule while it is read.
type sequence struct {
	elements []element
	// last is where the last symbol begins, which a quantifier repeats.
	last int
	// weight is how many rules llama.cpp makes for it, times its repetitions.
	weight uint64
}

// sequence reads one alternative.
func (p *source) sequence(nesting int) []element {
	s := &sequence{}
	nested := nesting > 0
	for {
		at := p.pos
		switch c := p.peek(); {
		case c == '"':
			p.push(s, element{-1, p.literal()})
		case c == '[':
			p.push(s, element{-1, p.class()})
		case c == '.':
			p.pos++
			p.push(s, element{-1, 1})
		case c == '<' || c == '!':
			p.token()
			p.push(s, element{-1, 1})
		case isNameByte(c):
			name := p.run(isNameByte)
			p.push(s, element{p.symbol(name, at), 1})
		case c == '(':
			p.group(s, nesting)
		case c == '*' || c == '+' || c == '?':
			p.pos++
			p.space(nested)
			low, high := uint64(0), uint64(unlimited)
			if c == '+' {
				low = 1
			}
			if c == '?' {
				high = 1
			}
			p.repeat(s, at, low, high)
		case c == '{':
			p.pos++
			p.space(nested)
			low, high := p.braces(nested)
			p.repeat(s, at, low, high)
		default:
			return s.elements
		}
		p.space(nested)
	}
}

// push adds a symbol. An empty literal or class is none, and cannot be repeated.
func (p *source) push(s *sequence, e element) {
	s.last, s.weight = len(s.elements), 1
	if e.size > 0 {
		s.elements = append(s.elements, e)
		p.grow(e.size, p.pos)
	}
}

// group reads what is in parentheses into a rule of its own.
func (p *source) group(s *sequence, nesting int) {
	at := p.pos
	if nesting >= maxNesting {
		p.fail(at, "more than %d parentheses in one another", maxNesting)
	}
	p.pos++
	p.space(true)
	before := len(p.rules)
	id := p.fresh(at)
	p.alternates(id, nesting+1)
	if p.peek() != ')' {
		p.fail(p.pos, "a closing parenthesis was expected, but %s", p.found())
	}
	p.pos++
	p.push(s, element{id, 1})
	s.weight = uint64(len(p.rules) - before)
}

// literal reads a text in quotation marks, and returns how many characters it has.
func (p *source) literal() int {
	at, n := p.pos, 0
	p.pos++
	for p.peek() != '"' {
		if p.peek() == 0 {
			p.fail(at, "a text that has no closing quotation mark")
		}
		p.char()
		n++
	}
	p.pos++
	return n
}

// class reads [a-z] or [^a-z], and returns how many elements llama.cpp makes of it.
func (p *source) class() int {
	at, n := p.pos, 0
	p.pos++
	except := p.peek() == '^'
	if except {
		p.pos++
	}
	note := func(r uint32) {
		p.excepts = p.excepts || except && r >= utf8.RuneSelf
	}
	for p.peek() != ']' {
		if p.peek() == 0 {
			p.fail(at, "a class that has no closing bracket")
		}
		note(p.char())
		n++
		if p.peek() == '-' && p.pos+1 < len(p.text) && p.text[p.pos+1] != ']' {
			p.pos++
			note(p.char())
			n++
		}
	}
	p.pos++
	return n
}

// char reads a character of a text or a class.
func (p *source) char() uint32 {
	at := p.pos
	r, size := utf8.DecodeRuneInString(p.text[p.pos:])
	p.pos += size
	if r != '\\' {
		return uint32(r)
	}
	c := p.peek()
	p.pos++
	switch c {
	case 'x':
		return p.hex(at, 2)
	case 'u':
		return p.hex(at, 4)
	case 'U':
		return p.hex(at, 8)
	case 't':
		return '\t'
	case 'r':
		return '\r'
	case 'n':
		return '\n'
	case '\\', '"', '[', ']', '-':
		return uint32(c)
	}
	e := p.fault(at, `an escape that there is not; there are \n \r \t \\ \" \[ \] \- \xXX \uXXXX \UXXXXXXXX`)
	e.hint = "a character that has no meaning of its own stands for itself, without a backslash"
	panic(stop{e})
}

// hex reads hexadecimal digits.
func (p *source) hex(at, digits int) uint32 {
	end := min(p.pos+digits, len(p.text))
	n, err := strconv.ParseUint(p.text[p.pos:end], 16, 32)
	if err != nil || end-p.pos != digits {
		p.fail(at, "%d hexadecimal digits were expected", digits)
	}
	p.pos = end
	return uint32(n)
}

// token reads <text>, <[id]>, or ! and one of them.
func (p *source) token() {
	if p.peek() == '!' {
		p.pos++
	}
	at := p.pos
	if p.peek() != '<' {
		p.fail(at, "< was expected after !, but %s", p.found())
	}
	p.pos++
	line, column := p.place(at)
	if p.peek() == '[' {
		p.pos++
		id, err := strconv.ParseUint(p.run(isDigit), 10, 64)
		if err != nil {
			p.fail(p.pos, "the number of a token was expected, as in <[123]>")
		}
		for _, c := range []byte("]>") {
			if p.peek() != c {
				p.fail(p.pos, "%c was expected, but %s", c, p.found())
			}
			p.pos++
		}
		p.tokens = append(p.tokens, TokenName{ID: id, Line: line, Column: column})
		return
	}
	p.run(func(c byte) bool { return c != 0 && c != '>' })
	if p.peek() != '>' {
		p.fail(at, "a token that has no closing >")
	}
	p.pos++
	p.tokens = append(p.tokens, TokenName{Text: p.text[at:p.pos], Line: line, Column: column})
}

// unlimited is a repetition's upper bound if there is none, as in llama.cpp.
const unlimited = 1<<64 - 1

// braces reads m}, m,} or m,n} after an opening brace.
func (p *source) braces(nested bool) (low, high uint64) {
	at := p.pos
	number := func() uint64 {
		n, err := strconv.ParseUint(p.run(isDigit), 10, 64)
		if err != nil {
			p.fail(at, "a number of repetitions was expected, as in {3} or {1,4}")
		}
		p.space(nested)
		return n
	}
	low = number()
	high = low
	if p.peek() == ',' {
		p.pos++
		p.space(nested)
		high = unlimited
		if isDigit(p.peek()) {
			high = number()
		}
	}
	if p.peek() != '}' {
		p.fail(p.pos, "} was expected after the repetitions, but %s", p.found())
	}
	p.pos++
	p.space(nested)
	switch {
	case low > maxRepetition:
		p.fail(at, "%d repetitions, at most %d are allowed", low, maxRepetition)
	case high < low:
		p.fail(at, "%d repetitions at least but %d at most", low, high)
	}
	if high > maxRepetition {
		high = unlimited // llama.cpp's rule
	}
	return low, high
}

// repeat repeats the last symbol, with the rules that llama.cpp makes for it:
// S{m,n} is S m times and then S', of n-m rules S' ::= S S” | "" , the last
// without S”; without n, S' ::= S S' | "".
func (p *source) repeat(s *sequence, at int, low, high uint64) {
	symbol := s.elements[s.last:]
	if len(symbol) == 0 {
		p.fail(at, "there is nothing in front to repeat")
	}
	symbol = append([]element(nil), symbol...)
	total := uint64(1)
	if high != unlimited && high > 0 {
		total = high
	} else if low > 0 {
		total = low
	}
	if s.weight*total > maxRepetition {
		e := p.fault(at, "repetitions in repetitions, of more than %d rules together", maxRepetition)
		e.hint = "put what is repeated into a rule of its own"
		panic(stop{e})
	}
	size := 0
	for _, e := range symbol {
		size += e.size
	}
	if low == 0 {
		s.elements = s.elements[:s.last]
	}
	for i := uint64(1); i < low; i++ {
		p.grow(size, at)
		s.elements = append(s.elements, symbol...)
	}
	more := high - low
	if high == unlimited {
		more = 1
	}
	previous := -1
	for range more {
		id := p.fresh(at)
		p.grow(size+2, at)
		again := append([]element(nil), symbol...)
		if high == unlimited {
			again = append(again, element{id, 1})
		} else if previous >= 0 {
			again = append(again, element{previous, 1})
		}
		p.rules[id] = production{alternatives: [][]element{again, nil}, defined: true, at: at}
		previous = id
	}
	if previous >= 0 {
		s.elements = append(s.elements, element{previous, 1})
	}
	s.weight *= total
}
