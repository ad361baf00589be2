package grammar

import (
	"fmt"
	"strings"
)

func (s *shape) readRequired(k keyword) error {
	switch k.name {
	case "properties":
		if k.value.kind != isObject {
			return k.fault("must be an object of schemas")
		}
	case "required":
		if k.value.kind != isArray {
			return k.fault("must be a list of names, not %s", k.value)
		}
		for _, v := range k.value.items {
			if v.kind != isString {
				return k.fault("must be a list of names, %s is none", v)
			}
			s.required = append(s.required, required{v.text, k.at})
		}
	}
	return nil
}

// readMembers notes what n says of members.
func (s *shape) readMembers(n *node) {
	p := objectPart{n.get("properties"), n.get("additionalProperties")}
	if p.properties != nil || p.additional != nil {
		s.objects = append(s.objects, p)
	}
}

// member is a member of an object.
type member struct {
	name     string
	value    string // the rule of its value
	required bool
}

// object is the right side for the objects of s.
func (c *converter) object(s *shape) (string, error) {
	if s.about&typeObject == 0 {
		return c.builtin("object"), nil
	}
	members, err := c.members(s)
	if err != nil {
		return "", err
	}
	others, err := c.others(s, members)
	if err != nil {
		return "", err
	}
	inside, optional := c.inside(s, members, others)
	return c.between("{", inside, optional, "}"), nil
}

// between puts brackets around what stands between them, which is nothing if it is
// "", and can be missing if it is optional.
func (c *converter) between(left, inside string, optional bool, right string) string {
	c.builtin("space")
	switch {
	case inside == "":
		return literal(left) + ` space ` + literal(right)
	case optional:
		return literal(left) + ` space (` + inside + ` space)? ` + literal(right)
	}
	return literal(left) + ` space ` + inside + ` space ` + literal(right)
}

// members are those that the schemas name, in the order in which they do.
func (c *converter) members(s *shape) ([]member, error) {
	need := map[string]bool{}
	for _, r := range s.required {
		need[r.name] = true
	}
	var list []member
	have := map[string]bool{}
	add := func(name string, at *node) error {
		if have[name] {
			return nil
		}
		have[name] = true
		value := "" // there is no member of that name
		if parts := s.member(name); len(parts) > 0 {
			var err error
			if value, err = c.ref(parts); err != nil {
				return err
			}
		} else {
			value = c.builtin("value")
		}
		if value == "" && need[name] {
			return &SchemaError{Path: at.path(), Keyword: "required", Problem: "requires " + quoteJSON(name) + ", for which no value is allowed"}
		}
		list = append(list, member{name, value, need[name]})
		return nil
	}
	for _, o := range s.objects {
		if o.properties == nil {
			continue
		}
		for i, name := range o.properties.names {
			if err := add(name, o.properties.items[i].parent.parent); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range s.required {
		if err := add(r.name, r.at); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// member are the schemas of a member of that name; none restricts it if there are
// none.
func (s *shape) member(name string) conjunction {
	var parts conjunction
	for _, o := range s.objects {
		var schema *node
		if o.properties != nil {
			schema = o.properties.get(name)
		}
		if schema == nil {
			schema = o.additional
		}
		if schema != nil {
			parts = append(parts, part{node: schema})
		}
	}
	return parts
}

// others is the rule for a member that no schema names, "" if there is to be none:
// where additionalProperties does not allow it, or does not say so although
// members are named.
func (c *converter) others(s *shape, members []member) (string, error) {
	var parts conjunction
	for _, o := range s.objects {
		if o.additional != nil {
			parts = append(parts, part{node: o.additional})
		}
	}
	named := false
	for _, m := range members {
		named = named || m.value != ""
	}
	if len(parts) == 0 && named {
		return "", nil
	}
	value := "value"
	if len(parts) == 0 {
		c.builtin(value)
	} else {
		var err error
		if value, err = c.ref(parts); err != nil || value == "" {
			return "", err
		}
	}
	name, err := c.otherName(s, members)
	if err != nil {
		return "", err
	}
	return c.named(name+` ":" space `+value, s.at), nil
}

// inside is what stands between an object's braces: members in their order, those
// that are not required can be missing. Whatever is missing, there is one comma
// between two members; so the first member that is there is chosen first, then for
// each of the rest whether it follows. Optional says that all can be missing; "" =
// there are none.
func (c *converter) inside(s *shape, members []member, others string) (text string, optional bool) {
	var pairs []string // what is written for each member
	var must []bool
	for _, m := range members {
		if m.value != "" {
			pairs = append(pairs, literal(quoteJSON(m.name))+` space ":" space `+m.value)
			must = append(must, m.required)
		}
	}
	first := 0 // the first that is required
	for first < len(must) && !must[first] {
		first++
	}
	// What can follow a member, from the last backwards. Those that several
	// alternatives share have rules of their own.
	rest := make([]string, len(pairs)+1)
	if others != "" {
		rest[len(pairs)] = ` ("," space ` + others + `)*`
	}
	for i := len(pairs) - 1; i >= 0; i-- {
		if i < first || i == first && first > 0 {
			pairs[i] = c.named(pairs[i], s.at)
		}
		follows := rest[i+1]
		if i <= first && first > 0 && follows != "" {
			follows = " " + c.named(strings.TrimPrefix(follows, " "), s.at)
			rest[i+1] = follows
		}
		if must[i] {
			rest[i] = ` "," space ` + pairs[i] + follows
		} else {
			rest[i] = ` ("," space ` + pairs[i] + `)?` + follows
		}
	}
	var begins []string
	for i := 0; i <= first && i < len(pairs); i++ {
		begins = append(begins, pairs[i]+rest[i+1])
	}
	if others != "" && first == len(pairs) {
		begins = append(begins, others+rest[len(pairs)])
	}
	text = strings.Join(begins, " | ")
	if len(begins) > 1 {
		text = "(" + text + ")"
	}
	return text, first == len(pairs)
}

// maxName is the longest name of a member from which others are told apart, in bytes.
const maxName = 1000

// otherName is the rule for a name that is none of the members'. In front of where
// it differs from all of them it has no escapes, or one could be written in two
// ways.
func (c *converter) otherName(s *shape, members []member) (string, error) {
	if len(members) == 0 {
		return c.builtin("string"), nil
	}
	for _, m := range members {
		if len(m.name) > maxName {
			return "", &SchemaError{Path: s.at.path(), Problem: fmt.Sprintf("a member's name of %d bytes beside additionalProperties, at most %d are allowed", len(m.name), maxName), hint: hintLarge}
		}
	}
	t := &trie{}
	for _, m := range members {
		t.insert([]rune(m.name))
	}
	body := "(" + c.differs(t, s.at, 0) + ")"
	if !t.end {
		body += "?"
	}
	return `"\"" ` + body + ` "\""`, nil
}

// differs are the texts, not empty, that are none of the trie's.
func (c *converter) differs(t *trie, at *node, depth int) string {
	var alternatives []string
	taken := runeSet{}
	for _, child := range t.children {
		taken.add(child.char, child.char)
		if !isPlain(child.char) {
			continue // its name needs an escape, which other names do not begin with
		}
		then := "char*"
		switch {
		case len(child.trie.children) > 0:
			then = "(" + c.differs(child.trie, at, depth+1) + ")"
			if depth%nestedDepth == nestedDepth-1 {
				then = c.named(then, at)
			}
			if !child.trie.end {
				then += "?"
			}
		case child.trie.end:
			then = "char+"
		}
		alternatives = append(alternatives, class(runeSet{{child.char, child.char}})+" "+then)
	}
	c.builtin("char")
	alternatives = append(alternatives, class(plainRunes().minus(taken))+" char*")
	return strings.Join(alternatives, " | ")
}

// nestedDepth is how deep parentheses are nested before a rule of its own takes
// what is inside.
const nestedDepth = 16
