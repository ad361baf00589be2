package show

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"tempo/api"
)

// parse reads a result. The error says where in the line it is none: field, value, and what is
// allowed.
func parse(line []byte) (api.Result, error) {
	var r api.Result
	err := json.Unmarshal(line, &r)
	syntax, isSyntax := errors.AsType[*json.SyntaxError](err)
	wrong, isWrong := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case len(line) == 0:
		return r, errors.New("the line is empty")
	case isSyntax:
		return r, fmt.Errorf("byte %d of the line: not valid JSON: %w", syntax.Offset, err)
	case isWrong:
		return r, &api.FieldError{Field: fieldOf(wrong), Problem: "wrong type", Value: valueOf(line, wrong), Allowed: allowed(wrong.Type)}
	case err != nil:
		return r, fmt.Errorf("read the line: %w", err)
	}
	return r, isResult(line)
}

// isResult returns an error if an object is something else, which has none of a result's members.
func isResult(line []byte) error {
	members, err := api.Members(line)
	if err != nil && members == nil {
		return fmt.Errorf("read the line: %w", err)
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(members, func(m api.Member) bool { return slices.Contains(names, m.Name) })
	}
	switch {
	case has("response", "error"):
		return nil
	case has("prompt", "body", "messages"):
		return errors.New("it is a request, not its result")
	}
	return errors.New(`it has neither "response" nor "error", one of which each result has`)
}

func fieldOf(e *json.UnmarshalTypeError) string {
	if e.Field == "" {
		return "the line"
	}
	return e.Field
}

// longestValue is how many characters of a value are said.
const longestValue = 40

// valueOf is the value at fault as it stands in the line. Where a list is on the way to it, the
// path does not say of which member: then it is what JSON calls its kind.
func valueOf(line []byte, e *json.UnmarshalTypeError) string {
	value := json.RawMessage(line)
	if e.Field != "" {
		for name := range strings.SplitSeq(e.Field, ".") {
			members, _ := api.Members(value) // nil if it is no object
			at := slices.IndexFunc(members, func(m api.Member) bool { return m.Name == name })
			if at < 0 {
				return "a JSON " + e.Value
			}
			value = members[at].Value
		}
	}
	return shorten(string(value), longestValue)
}

// allowed says in words what JSON a type is read from.
func allowed(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return allowed(t.Elem())
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return "an integer"
}
