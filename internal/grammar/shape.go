package grammar

import (
	"strconv"
	"strings"
)

// typeSet is a set of JSON's types; an integer is a number without a fraction.
type typeSet uint8

const (
	typeObject typeSet = 1 << iota
	typeArray
	typeString
	typeInteger
	typeFraction
	typeBoolean
	typeNull

	typeNumber = typeInteger | typeFraction
	typeAny    = typeNull<<1 - 1
)

// part is a schema, or what is left of one of which some keywords are dealt with.
type part struct {
	node *node
	done done
}

// done are the keywords of a part that are dealt with.
type done uint8

const (
	doneRefs done = 1 << iota // $ref and allOf
	doneAnyOf
	doneOneOf
)

// conjunction are schemas of which all hold.
type conjunction []part

// key tells conjunctions apart.
func (c conjunction) key() string {
	var b strings.Builder
	for _, p := range c {
		b.WriteString(strconv.Itoa(p.node.id) + "." + strconv.Itoa(int(p.done)) + " ")
	}
	return b.String()
}

// shape is what a conjunction says of a value.
type shape struct {
	at    *node       // the first schema of the conjunction
	parts conjunction // without $ref and allOf, and without those that say nothing
	never bool        // there is no such value

	types typeSet
	// about are the types that some keyword restricts.
	about typeSet

	// choices are the anyOf and oneOf of the parts.
	choices []choice

	// listed says that values (enum, const) are all that there is.
	listed bool
	values []*node
	// listedBy is the keyword that listed them.
	listedBy keyword

	objects  []objectPart
	required []required

	arrays             []arrayPart
	minItems, maxItems count

	minLength, maxLength count
	pattern, format      keyword

	minimum, maximum bound
}

// keyword is a keyword with its value, or none.
type keyword struct {
	at    *node // the schema that it is in
	name  string
	value *node
}

// choice is a list of schemas of which one holds.
type choice struct {
	place int  // in the shape's parts
	done  done // the keyword
	of    *node
}

// count is a bound of a length, or none.
type count struct {
	set bool
	n   int
	by  keyword
}

// objectPart is what one schema says of an object's members.
type objectPart struct {
	properties *node // nil = none
	additional *node // nil = not said
}

// required is the name of a member that must be there.
type required struct {
	name string
	at   *node
}

// arrayPart is what one schema says of an array's items.
type arrayPart struct {
	prefix []*node
	items  *node // those after prefix; nil = not said
}

// anything reports whether s restricts nothing.
func (s *shape) anything() bool {
	return !s.never && s.types == typeAny && s.about == 0 && len(s.choices) == 0 && !s.listed
}

// plain is the built-in rule that is just s, "" if there is none.
func (s *shape) plain() string {
	if s.about&s.types != 0 || len(s.choices) > 0 || s.listed {
		return ""
	}
	switch s.types {
	case typeAny:
		return "value"
	case typeObject:
		return "object"
	case typeArray:
		return "array"
	case typeString:
		return "string"
	case typeNumber:
		return "number"
	case typeInteger:
		return "integer"
	case typeBoolean:
		return "boolean"
	case typeNull:
		return "null"
	}
	return ""
}

// shapeOf puts what the parts say together. Of parts that contradict each other in
// type or listed values the shape is never.
func (c *converter) shapeOf(parts conjunction) (*shape, error) {
	key := parts.key()
	if s, ok := c.shapes[key]; ok {
		return s, nil
	}
	s := &shape{at: parts[0].node, types: typeAny}
	x := expansion{c: c, shape: s, open: map[*node]bool{}, seen: map[part]bool{}}
	for _, p := range parts {
		if err := x.add(p); err != nil {
			return nil, err
		}
	}
	for i, p := range s.parts {
		if err := s.read(i, p); err != nil {
			return nil, err
		}
	}
	s.settle()
	c.shapes[key] = s
	return s, nil
}

// settle ends the putting together.
func (s *shape) settle() {
	if s.types == typeAny && s.about != 0 && len(s.choices) == 0 && !s.listed {
		// No type is named: it is that of the keywords, as everybody who writes
		// {"properties": …} means. The schema would let all other types be anything.
		s.types = s.about
	}
	if s.listed {
		kept := s.values[:0:0]
		for _, v := range s.values {
			if typeOf(v)&s.types != 0 {
				kept = append(kept, v)
			}
		}
		s.values = kept
	}
	if s.types == 0 || s.listed && len(s.values) == 0 {
		s.never = true
	}
}

// typeOf is the type of a value.
func typeOf(n *node) typeSet {
	switch n.kind {
	case isNull:
		return typeNull
	case isBool:
		return typeBoolean
	case isString:
		return typeString
	case isArray:
		return typeArray
	case isObject:
		return typeObject
	case isNumber:
		if d, ok := parseDecimal(n.text); ok && d.frac != "" {
			return typeFraction
		}
	}
	return typeInteger
}

// expansion follows $ref and allOf, and leaves a shape's parts without them. Parts
// that come to the same are then the same.
type expansion struct {
	c     *converter
	shape *shape
	open  map[*node]bool // those being followed
	seen  map[part]bool
}

func (x *expansion) add(p part) error {
	n := p.node
	if x.c.work++; x.c.work > maxWork {
		return &SchemaError{Path: n.path(), Problem: "too many schemas hold of one value", hint: hintLarge}
	}
	switch n.kind {
	case isBool:
		x.shape.never = x.shape.never || n.text == "false"
		return nil
	case isObject:
	default:
		return &SchemaError{Path: n.path(), Problem: "a schema must be an object or a boolean, not " + n.String()}
	}
	rest := part{n, p.done | doneRefs}
	if p.done&doneRefs == 0 {
		if err := x.follow(n); err != nil {
			return err
		}
	}
	if !x.seen[rest] && says(rest) {
		x.seen[rest] = true
		x.shape.parts = append(x.shape.parts, rest)
	}
	return nil
}

// follow adds what n's $ref and allOf name.
func (x *expansion) follow(n *node) error {
	if n.get("$ref") == nil && n.get("allOf") == nil {
		return nil
	}
	if x.open[n] {
		return &SchemaError{
			Path: n.path(), Problem: "refers to itself with nothing between, so that it says nothing",
			hint: "a schema may refer to itself inside of properties or items",
		}
	}
	x.open[n] = true
	defer delete(x.open, n)
	if ref := n.get("$ref"); ref != nil {
		target, err := x.c.resolve(n, ref)
		if err != nil {
			return err
		}
		if err := x.add(part{node: target}); err != nil {
			return err
		}
	}
	if all := n.get("allOf"); all != nil {
		if err := isSchemas(n, "allOf", all); err != nil {
			return err
		}
		for _, one := range all.items {
			if err := x.add(part{node: one}); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolve finds the schema that a $ref in n names.
func (c *converter) resolve(n, ref *node) (*node, error) {
	fault := func(problem string) error {
		return &SchemaError{Path: n.path(), Keyword: "$ref", Problem: ref.String() + " " + problem, hint: `only places of the same schema can be referred to: "#", "#/$defs/NAME", "#/definitions/NAME"`}
	}
	if ref.kind != isString {
		return nil, fault("is not a string")
	}
	pointer, ok := strings.CutPrefix(ref.text, "#")
	if !ok || pointer != "" && pointer[0] != '/' {
		return nil, fault("is not a place in this schema")
	}
	pointer = unescapePercent(pointer)
	at := c.root
	for _, key := range strings.Split(pointer, "/")[1:] {
		key = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
		next := at.get(key)
		if i, err := strconv.Atoi(key); at.kind == isArray && err == nil && i >= 0 && i < len(at.items) {
			next = at.items[i]
		}
		if next == nil {
			return nil, fault("is not in this schema: " + at.path() + " has no " + strconv.Quote(key))
		}
		at = next
	}
	return at, nil
}
