package grammar

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// read adds what the keywords of a part say.
func (s *shape) read(place int, p part) error {
	n := p.node
	for i, name := range n.names {
		k := keyword{n, name, n.items[i]}
		var err error
		switch name {
		case "$ref", "allOf": // followed before
		case "anyOf", "oneOf":
			err = s.readChoice(place, p, k)
		case "type":
			err = s.readType(k)
		case "enum", "const":
			err = s.readValues(k)
		case "required", "properties", "additionalProperties":
			s.about |= typeObject
			err = s.readRequired(k)
		case "items", "prefixItems", "additionalItems":
			s.about |= typeArray
		case "minItems", "maxItems", "uniqueItems":
			s.about |= typeArray
			err = s.readItemCount(k)
		case "minLength", "maxLength", "pattern", "format":
			s.about |= typeString
			err = s.readString(k)
		case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
			s.about |= typeNumber
			err = s.readBound(k)
		default:
			err = unknown(k)
		}
		if err != nil {
			return err
		}
	}
	s.readMembers(n)
	return s.readItems(n)
}

// fault is an error in a keyword.
func (k keyword) fault(format string, args ...any) *SchemaError {
	return &SchemaError{Path: k.at.path(), Keyword: k.name, Problem: fmt.Sprintf(format, args...)}
}

// isNote reports whether a keyword restricts nothing.
func isNote(name string) bool {
	switch name {
	case "title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "$defs", "definitions",
		"deprecated", "readOnly", "writeOnly", "strict", "discriminator":
		return true
	}
	return strings.HasPrefix(name, "x-")
}

// unknown returns nil for a keyword that restricts nothing, and an error that names
// any other.
func unknown(k keyword) error {
	if isNote(k.name) {
		return nil
	}
	e := k.fault(notSupported)
	switch k.name {
	case "nullable":
		e.hint = `write "type": ["string", "null"], or an anyOf with {"type": "null"}`
	case "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies":
		e.hint = "list what is allowed with anyOf instead"
	case "multipleOf":
		e.hint = `for whole numbers write "type": "integer"; for others check the answers afterwards`
	case "minProperties", "maxProperties", "patternProperties", "propertyNames", "unevaluatedProperties":
		e.hint = "name the members in properties and required, with additionalProperties for others"
	case "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "id":
		e.hint = `refer to schemas by "#/$defs/NAME"`
	case "contains", "minContains", "maxContains", "unevaluatedItems", "contentEncoding", "contentMediaType", "contentSchema":
	default:
		e.Problem = "not a keyword that is known"
		e.hint = "correct its spelling, or leave it out"
	}
	return e
}

func (s *shape) readChoice(place int, p part, k keyword) error {
	d := doneAnyOf
	if k.name == "oneOf" {
		d = doneOneOf
	}
	if p.done&d != 0 {
		return nil
	}
	if err := isSchemas(k.at, k.name, k.value); err != nil {
		return err
	}
	s.choices = append(s.choices, choice{place, d, k.value})
	return nil
}

func isSchemas(at *node, name string, v *node) error {
	if v.kind != isArray || len(v.items) == 0 {
		return keyword{at, name, v}.fault("must be a list of one schema or more")
	}
	return nil
}

func (s *shape) readType(k keyword) error {
	list := []*node{k.value}
	if k.value.kind == isArray {
		list = k.value.items
	}
	var set typeSet
	for _, v := range list {
		t := typeNamed(v)
		if t == 0 {
			return k.fault("%s is not one of object, array, string, number, integer, boolean, null, or a list of them", v)
		}
		set |= t
	}
	if set == 0 {
		return k.fault("an empty list allows nothing")
	}
	s.types &= set
	return nil
}

func typeNamed(v *node) typeSet {
	if v.kind != isString {
		return 0
	}
	switch v.text {
	case "object":
		return typeObject
	case "array":
		return typeArray
	case "string":
		return typeString
	case "number":
		return typeNumber
	case "integer":
		return typeInteger
	case "boolean":
		return typeBoolean
	case "null":
		return typeNull
	}
	return 0
}

func (s *shape) readValues(k keyword) error {
	list := []*node{k.value}
	if k.name == "enum" {
		if k.value.kind != isArray || len(k.value.items) == 0 {
			return k.fault("must be a list of one value or more")
		}
		list = k.value.items
	}
	before := map[string]bool{}
	for _, v := range s.values {
		before[v.String()] = true
	}
	var values []*node
	here := map[string]bool{}
	for _, v := range list {
		text := v.String()
		if !here[text] && (!s.listed || before[text]) {
			values = append(values, v)
		}
		here[text] = true
	}
	s.listed, s.values, s.listedBy = true, values, k
	return nil
}

// count reads a length.
func (k keyword) count() (int, error) {
	n, err := strconv.Atoi(k.value.text)
	if d, ok := parseDecimal(k.value.text); ok && d.frac == "" && !d.neg { // 1e3 and 2.0 are whole numbers too
		n, err = strconv.Atoi(d.whole)
	}
	if k.value.kind != isNumber || err != nil || n < 0 || n > maxCount {
		return 0, k.fault("%s is not a whole number from 0 to %d", k.value, maxCount)
	}
	return n, nil
}

// maxCount is the largest length that a grammar counts.
const maxCount = 1_000_000

// tighten makes *c the closer of two bounds.
func tighten(c *count, k keyword, closer func(a, b int) bool) error {
	n, err := k.count()
	if err != nil {
		return err
	}
	if !c.set || closer(n, c.n) {
		*c = count{true, n, k}
	}
	return nil
}

func larger(a, b int) bool  { return a > b }
func smaller(a, b int) bool { return a < b }

func unescapePercent(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}
