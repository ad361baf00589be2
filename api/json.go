package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Member is one name and value of a JSON object.
type Member struct {
	Name  string
	Value json.RawMessage
}

// Null reports whether the value is JSON's null, which counts as not given.
func (m Member) Null() bool { return string(m.Value) == "null" }

// Members returns the members of a JSON object in their order, with names
// compared exactly. If raw is not a valid object it returns none, and a
// *json.SyntaxError or a *FieldError for the field "body". If a name is given
// twice it returns the first of each name, and a *FieldError for every other.
func Members(raw []byte) ([]Member, error) {
	if !utf8.Valid(raw) {
		return nil, &FieldError{Field: "body", Problem: "not valid UTF-8", Allowed: "text in UTF-8"}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	if kind(whole) != "object" {
		return nil, &FieldError{Field: "body", Problem: problemType, Value: show(raw), Allowed: "a JSON object"}
	}
	return members("", whole)
}

// members is Members for raw that is known to be a valid object; path stands
// before the names in errors.
func members(path string, raw []byte) ([]Member, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil { // the opening brace
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	all := []Member{}
	seen := map[string]bool{} // a line can have a million names
	var twice []error
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("parse JSON: %w", err)
		}
		m := Member{Name: name.(string)} // what stands before a value in an object is a string
		if err := dec.Decode(&m.Value); err != nil {
			return nil, fmt.Errorf("parse JSON: %w", err)
		}
		if seen[m.Name] {
			twice = append(twice, &FieldError{Field: path + m.Name, Problem: problemTwice, Allowed: "once"})
			continue
		}
		seen[m.Name] = true
		all = append(all, m)
	}
	return all, errors.Join(twice...)
}

// kind is the JSON type of a valid value, told by its first byte.
func kind(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	default:
		return "number"
	}
}

// show shortens a value for a message.
func show(raw []byte) string {
	const limit = 60
	s := strings.Join(strings.Fields(string(raw)), " ")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
