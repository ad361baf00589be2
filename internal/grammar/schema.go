package grammar

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a schema, so that none takes long or much memory.
const (
	maxSchema  = 1 << 20 // bytes
	maxDepth   = 128     // levels of nested JSON
	maxRules   = 20_000  // in the grammar
	maxGrammar = 4 << 20 // bytes of the grammar
	maxWork    = 300_000 // schemas that are looked at, each for every value of which it holds
)

const hintLarge = "make the schema smaller, or split the task into several jobs"

// FromSchema turns a JSON Schema (draft 2020-12, and what is common of older
// drafts) into a grammar in GBNF whose root rule is root. A schema that restricts
// nothing, such as {}, gives any JSON object. The same text gives the same grammar.
//
// Members come in the order of the schema's text, those that are not required may
// be left out. Members that the schema does not name are allowed where
// additionalProperties says so, and where an object names none. Between two tokens
// of JSON there is nothing, a blank, or one or two line breaks and up to 20 blanks.
//
// It returns *SchemaError for what is not a schema, what no value could satisfy,
// and what a grammar cannot bind.
func FromSchema(schema json.RawMessage) (string, error) {
	root, err := readJSON(schema)
	if err != nil {
		return "", err
	}
	c := &converter{
		root:   root,
		shapes: map[string]*shape{},
		names:  map[string]string{},
		bodies: map[string]string{},
		used:   map[string]bool{},
		where:  map[string]*node{},
	}
	if err := c.convert(); err != nil {
		return "", err
	}
	text := c.text()
	return text, c.check(text)
}

// converter makes the rules of one grammar. Rules are made from a queue, not by
// recursion into the schema, so that a schema may refer to itself.
type converter struct {
	root   *node
	shapes map[string]*shape // by conjunction.key
	names  map[string]string // of rules, by the key of their shape's parts
	queue  []pending
	rules  []rule
	bodies map[string]string // rules without a schema of their own, from body to name
	used   map[string]bool   // built-in rules
	where  map[string]*node  // the schema of a rule
	count  int               // rules that have a name
	size   int               // bytes of the rules so far
	work   int               // schemas that were put together
}

// rule is a line of the grammar.
type rule struct{ name, body string }

// pending is a rule that has a name and no body yet.
type pending struct {
	name  string
	shape *shape
}

const rootRule = "root"

func (c *converter) convert() error {
	s, err := c.shapeOf(conjunction{{node: c.root}})
	if err != nil {
		return err
	}
	switch {
	case s.never:
		return &SchemaError{Path: "#", Problem: "false, so that there is no answer to it"}
	case s.anything():
		c.add(rootRule, c.builtin("object"))
		return nil
	}
	c.names[s.parts.key()] = rootRule
	c.where[rootRule] = c.root
	c.queue = append(c.queue, pending{rootRule, s})
	for len(c.queue) > 0 {
		next := c.queue[0]
		c.queue = c.queue[1:]
		body, err := c.body(next.shape)
		if err != nil {
			return err
		}
		c.add(next.name, body)
		if c.size > maxGrammar || c.count > maxRules {
			return &SchemaError{
				Path:    next.shape.at.path(),
				Problem: fmt.Sprintf("the schema's grammar has more than %d rules or %d bytes", maxRules, maxGrammar), hint: hintLarge,
			}
		}
	}
	return nil
}

// add writes a rule.
func (c *converter) add(name, body string) {
	c.rules = append(c.rules, rule{name, body})
	c.size += len(name) + len(body)
}

// fresh is a name for the next rule.
func (c *converter) fresh() string {
	c.count++
	return "r" + strconv.Itoa(c.count)
}

// named puts a body into a rule of its own, and returns its name. The same body
// has one rule.
func (c *converter) named(body string, at *node) string {
	if name, ok := c.bodies[body]; ok {
		return name
	}
	name := c.fresh()
	c.bodies[body] = name
	c.where[name] = at
	c.add(name, body)
	return name
}

// ref is the name of the rule for a value of which all schemas of parts hold; ""
// if there is no such value.
func (c *converter) ref(parts conjunction) (string, error) {
	s, err := c.shapeOf(parts)
	if err != nil || s.never {
		return "", err
	}
	if name := s.plain(); name != "" {
		return c.builtin(name), nil
	}
	key := s.parts.key()
	if name, ok := c.names[key]; ok {
		return name, nil
	}
	name := c.fresh()
	c.names[key] = name
	c.where[name] = s.at
	c.queue = append(c.queue, pending{name, s})
	return name, nil
}

// body is the right side of a shape's rule.
func (c *converter) body(s *shape) (string, error) {
	if len(s.choices) > 0 {
		return c.union(s)
	}
	if s.listed {
		return c.enum(s)
	}
	var alternatives []string
	for _, t := range []struct {
		of   typeSet
		body func(*shape) (string, error)
	}{
		{typeObject, c.object},
		{typeArray, c.array},
		{typeString, c.str},
		{typeNumber, c.number},
		{typeBoolean, func(*shape) (string, error) { return c.builtin("boolean"), nil }},
		{typeNull, func(*shape) (string, error) { return c.builtin("null"), nil }},
	} {
		if s.types&t.of == 0 {
			continue
		}
		body, err := t.body(s)
		if err != nil {
			return "", err
		}
		alternatives = append(alternatives, body)
	}
	return strings.Join(alternatives, " | "), nil
}

// check looks at the finished grammar: whether llama.cpp can use it, and whether
// its rules have texts at all.
func (c *converter) check(text string) error {
	p, err := readSource(text)
	if fault, ok := errors.AsType[*SyntaxError](err); ok {
		at := c.root
		if i := fault.Line - 1; i < len(c.rules) && c.where[c.rules[i].name] != nil {
			at = c.where[c.rules[i].name]
		}
		return &SchemaError{Path: at.path(), Problem: "its grammar cannot be used: " + fault.Problem, hint: "write this part of the schema in a simpler way"}
	}
	if err != nil {
		return err
	}
	values := map[string]bool{}
	for _, name := range c.names {
		values[name] = true
	}
	ends := p.endingRules()
	for _, r := range slices.Backward(c.rules) { // the innermost value first
		if values[r.name] && !ends[p.names[r.name]] {
			return &SchemaError{
				Path: c.where[r.name].path(), Problem: "every value of it contains another one, without end",
				hint: "let the member that refers back be missing (leave it out of required) or be null",
			}
		}
	}
	return nil
}

// text is the grammar: the rules in the order in which they were made, then those
// that are built in.
func (c *converter) text() string {
	var b strings.Builder
	for _, r := range c.rules {
		b.WriteString(r.name + " ::= " + r.body + "\n")
	}
	for _, r := range builtins() {
		if c.used[r.name] {
			b.WriteString(r.name + " ::= " + r.body + "\n")
		}
	}
	return b.String()
}
