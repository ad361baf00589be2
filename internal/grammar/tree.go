package grammar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// kind is what a JSON value is.
type kind int

const (
	isNull kind = iota
	isBool
	isNumber
	isString
	isArray
	isObject
)

// node is a JSON value of the schema's text, with the members of objects in the
// order in which they were written.
type node struct {
	id     int // its number in the order of the text, from 0
	kind   kind
	text   string // a string's characters, a number as it was written, "true", "false"
	items  []*node
	names  []string       // of an object's members, in their order
	places map[string]int // from a member's name to its place in items

	parent *node
	key    string // its name or place in parent
}

// get returns an object's member, nil if there is none.
func (n *node) get(name string) *node {
	if i, ok := n.places[name]; ok {
		return n.items[i]
	}
	return nil
}

// path is the JSON pointer to n, from "#".
func (n *node) path() string {
	var keys []string
	for ; n.parent != nil; n = n.parent {
		keys = append(keys, escapePointer(n.key))
	}
	var b strings.Builder
	b.WriteByte('#')
	for _, key := range slices.Backward(keys) {
		b.WriteString("/" + key)
	}
	return b.String()
}

func escapePointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// json writes n as JSON without blanks, numbers as they were written.
func (n *node) json(b *strings.Builder) {
	switch n.kind {
	case isNull:
		b.WriteString("null")
	case isBool, isNumber:
		b.WriteString(n.text)
	case isString:
		b.WriteString(quoteJSON(n.text))
	case isArray:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.json(b)
		}
		b.WriteByte(']')
	case isObject:
		b.WriteByte('{')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quoteJSON(n.names[i]) + ":")
			item.json(b)
		}
		b.WriteByte('}')
	}
}

// String is n as JSON.
func (n *node) String() string {
	var b strings.Builder
	n.json(&b)
	return b.String()
}

// quoteJSON is s as a JSON string, with no more escapes than JSON asks for.
func quoteJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch i := strings.IndexRune(shortEscaped, r); {
		case i >= 0:
			b.WriteByte('\\')
			b.WriteByte(shortEscapes[i])
		case r < ' ':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// shortEscaped are the characters that JSON writes as a backslash and the
// character at the same place of shortEscapes.
const (
	shortEscaped = "\"\\\b\f\n\r\t"
	shortEscapes = `"\bfnrt`
)

// reader makes a tree of a schema's text.
type reader struct {
	dec   *json.Decoder
	nodes int
}

// readJSON makes the tree. It returns *SchemaError if text is too large, too deep,
// not JSON, or has a name twice in an object.
func readJSON(text []byte) (*node, error) {
	if len(text) > maxSchema {
		return nil, &SchemaError{Path: "#", Problem: fmt.Sprintf("%d bytes long, at most %d are allowed", len(text), maxSchema), hint: hintLarge}
	}
	r := &reader{dec: json.NewDecoder(bytes.NewReader(text))}
	r.dec.UseNumber()
	root, err := r.value(nil, "", 0)
	if err != nil {
		return nil, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &SchemaError{Path: "#", Problem: "there is more text after the schema"}
	}
	return root, nil
}

func (r *reader) value(parent *node, key string, depth int) (*node, error) {
	n := &node{id: r.nodes, parent: parent, key: key}
	r.nodes++
	if depth > maxDepth {
		return nil, &SchemaError{Path: n.path(), Problem: fmt.Sprintf("nested more than %d deep", maxDepth), hint: hintLarge}
	}
	token, err := r.dec.Token()
	if err != nil {
		return nil, notJSON(n, err)
	}
	switch t := token.(type) {
	case nil:
		n.kind = isNull
	case bool:
		n.kind, n.text = isBool, strconv.FormatBool(t)
	case json.Number:
		n.kind, n.text = isNumber, t.String()
	case string:
		n.kind, n.text = isString, t
	case json.Delim:
		if t == '[' {
			return n, r.array(n, depth)
		}
		return n, r.object(n, depth)
	}
	return n, nil
}

func (r *reader) array(n *node, depth int) error {
	n.kind = isArray
	for i := 0; r.dec.More(); i++ {
		item, err := r.value(n, strconv.Itoa(i), depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	return r.end(n)
}

func (r *reader) object(n *node, depth int) error {
	n.kind, n.places = isObject, map[string]int{}
	for r.dec.More() {
		token, err := r.dec.Token()
		if err != nil {
			return notJSON(n, err)
		}
		name, ok := token.(string)
		if !ok {
			return &SchemaError{Path: n.path(), Problem: fmt.Sprintf("not JSON: %v where a name should be", token)}
		}
		if _, twice := n.places[name]; twice {
			return &SchemaError{Path: n.path(), Keyword: name, Problem: "given twice in one object"}
		}
		item, err := r.value(n, name, depth+1)
		if err != nil {
			return err
		}
		n.places[name] = len(n.items)
		n.names, n.items = append(n.names, name), append(n.items, item)
	}
	return r.end(n)
}

// end reads the bracket that closes n.
func (r *reader) end(n *node) error {
	if _, err := r.dec.Token(); err != nil {
		return notJSON(n, err)
	}
	return nil
}

func notJSON(n *node, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &SchemaError{Path: n.path(), Problem: fmt.Sprintf("not JSON: %v", err)}
}
