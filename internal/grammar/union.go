package grammar

import (
	"slices"
	"strings"
)

// union is the right side of a shape with choices: the alternatives that can be,
// and of those that are choices again, theirs. So no rule begins with itself,
// however alternatives refer to each other.
func (c *converter) union(s *shape) (string, error) {
	var names []string
	seen := map[string]bool{}
	var add func(*shape) error
	add = func(of *shape) error {
		for _, parts := range of.alternatives() {
			if c.work += len(parts); c.work > maxWork {
				return &SchemaError{Path: s.at.path(), Problem: "too many alternatives", hint: hintLarge}
			}
			inner, err := c.shapeOf(parts)
			if err != nil {
				return err
			}
			key := inner.parts.key()
			if inner.never || seen[key] {
				continue
			}
			seen[key] = true
			if len(inner.choices) > 0 {
				if err := add(inner); err != nil {
					return err
				}
				continue
			}
			name, err := c.ref(parts)
			if err != nil {
				return err
			}
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return nil
	}
	if err := add(s); err != nil {
		return "", err
	}
	if len(names) == 0 {
		choice := s.choices[0]
		k := keyword{s.parts[choice.place].node, "anyOf", choice.of}
		if choice.done == doneOneOf {
			k.name = "oneOf"
		}
		return "", k.fault("none of its schemas can hold together with the rest")
	}
	return strings.Join(names, " | "), nil
}

// alternatives are the shape's parts with each schema of the first choice.
func (s *shape) alternatives() []conjunction {
	choice := s.choices[0]
	var list []conjunction
	for _, schema := range choice.of.items {
		var parts conjunction
		for i, p := range s.parts {
			if i == choice.place {
				p.done |= choice.done
			}
			if says(p) {
				parts = append(parts, p)
			}
		}
		list = append(list, append(parts, part{node: schema}))
	}
	return list
}

// says reports whether a part still says anything. One that does not is left out,
// so that an alternative is the same wherever it comes from.
func says(p part) bool {
	for _, name := range p.node.names {
		switch name {
		case "$ref", "allOf":
			if p.done&doneRefs != 0 {
				continue
			}
		case "anyOf":
			if p.done&doneAnyOf != 0 {
				continue
			}
		case "oneOf":
			if p.done&doneOneOf != 0 {
				continue
			}
		}
		if !isNote(name) {
			return true
		}
	}
	return false
}

// enum is the right side for listed values. Values of one type that other keywords
// restrict further are not looked at one by one.
func (c *converter) enum(s *shape) (string, error) {
	t := &trie{}
	for _, v := range s.values {
		if typeOf(v)&s.about != 0 {
			return "", s.listedBy.fault("not supported beside keywords that restrict %s further", v)
		}
		t.insert([]rune(v.String()))
	}
	return c.oneOf(t, s.at), nil
}

// oneOf is the right side for the texts of a trie. Their common beginnings are
// written once, so that llama.cpp follows few readings at a time.
func (c *converter) oneOf(t *trie, at *node) string {
	var alternatives []string
	for _, b := range t.children {
		text := []rune{b.char}
		next := b.trie
		for len(next.children) == 1 && !next.end {
			text = append(text, next.children[0].char)
			next = next.children[0].trie
		}
		body := literal(string(text))
		if len(next.children) > 0 {
			body += " " + c.named(c.oneOf(next, at), at)
			if next.end {
				body += "?"
			}
		}
		alternatives = append(alternatives, body)
	}
	return strings.Join(alternatives, " | ")
}
