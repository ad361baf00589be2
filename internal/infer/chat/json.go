package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/ardanlabs/jinja"
)

// decode makes a value of JSON, with the names of objects in their order: a prompt has
// them in the order in which the user wrote them.
func decode(raw []byte) (jinja.Value, error) {
	if !json.Valid(raw) { // it bounds the depth, too
		return jinja.None(), errors.New("decode JSON: not valid")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return decodeValue(dec)
}

func decodeValue(dec *json.Decoder) (jinja.Value, error) {
	token, err := dec.Token()
	if err != nil {
		return jinja.None(), fmt.Errorf("decode JSON: %w", err)
	}
	switch token {
	case json.Delim('['):
		list := jinja.NewList(nil)
		for dec.More() {
			item, err := decodeValue(dec)
			if err != nil {
				return item, err
			}
			list.AsList().Append(item)
		}
		return list, end(dec)
	case json.Delim('{'):
		object := jinja.NewDict()
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return object, fmt.Errorf("decode JSON: %w", err)
			}
			item, err := decodeValue(dec)
			if err != nil {
				return item, err
			}
			object.AsDict().Set(name.(string), item) // what stands before a value in an object is a string
		}
		return object, end(dec)
	default:
		return jinja.FromGoValue(token), nil
	}
}

// end reads a closing bracket.
func end(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	return nil
}

// jsonStyle is how JSON is laid out.
type jsonStyle struct {
	item, key string // separators
	indent    int    // -1 = all in one line
}

// toJSON is the filter tojson as transformers has it, which is Python's json.dumps with
// ensure_ascii off. Models were trained on prompts that were written so.
func toJSON(args []jinja.Value, named map[string]jinja.Value) (jinja.Value, error) {
	if len(args) == 0 {
		return jinja.None(), errors.New("tojson: no value")
	}
	style := jsonStyle{item: ", ", key: ": ", indent: -1}
	if indent, ok := named["indent"]; ok && indent.IsInt() {
		style.indent, style.item = int(indent.AsInt()), ","
	}
	if both, ok := named["separators"]; ok && both.IsList() {
		items := both.AsList().Items
		if len(items) != 2 || !items[0].IsString() || !items[1].IsString() {
			return jinja.None(), errors.New("tojson: separators must be two strings")
		}
		style.item, style.key = items[0].AsString(), items[1].AsString()
	}
	var b strings.Builder
	style.write(&b, args[0], 0)
	return jinja.NewString(b.String()), nil
}

// write writes a value that is depth levels deep.
func (s jsonStyle) write(b *strings.Builder, v jinja.Value, depth int) {
	switch {
	case v.IsBool():
		b.WriteString(strconv.FormatBool(v.AsBool()))
	case v.IsInt():
		b.WriteString(strconv.FormatInt(v.AsInt(), 10))
	case v.IsFloat():
		b.WriteString(pythonFloat(v.AsFloat()))
	case v.IsString():
		writeString(b, v.AsString())
	case v.IsList():
		items := v.AsList().Items
		s.list(b, "[]", len(items), depth, func(i int) { s.write(b, items[i], depth+1) })
	case v.IsDict():
		object := v.AsDict()
		s.list(b, "{}", object.Len(), depth, func(i int) {
			writeString(b, object.Keys[i])
			b.WriteString(s.key)
			s.write(b, object.Data[object.Keys[i]], depth+1)
		})
	default:
		b.WriteString("null")
	}
}

// list writes n parts between brackets.
func (s jsonStyle) list(b *strings.Builder, brackets string, n, depth int, part func(int)) {
	if n == 0 {
		b.WriteString(brackets)
		return
	}
	line := func(depth int) {
		if s.indent >= 0 {
			b.WriteString("\n" + strings.Repeat(" ", s.indent*depth))
		}
	}
	b.WriteByte(brackets[0])
	for i := range n {
		if i > 0 {
			b.WriteString(s.item)
		}
		line(depth + 1)
		part(i)
	}
	line(depth)
	b.WriteByte(brackets[1])
}

// writeString escapes what JSON must have escaped, and nothing else.
func writeString(b *strings.Builder, text string) {
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < ' ':
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// pythonFloat writes a number as Python's repr does: always told from an integer.
func pythonFloat(f float64) string {
	if size := math.Abs(f); size != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
