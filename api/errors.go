package api

import (
	"fmt"
	"strings"
)

// FieldError is one fault of a request body. ParseRequest joins all that it
// finds; FieldErrors takes them apart again.
type FieldError struct {
	Field      string // path in the body, such as messages[0].role
	Problem    string // what is wrong: "missing", "wrong type", "not supported", …
	Value      string // what was given, as JSON and shortened; "" if it does not matter
	Allowed    string // what would be accepted; "" if nothing would
	Suggestion string // the field that was probably meant; "" if none comes near
	Advice     string // what to change; "" = what follows from the rest
	Beside     string // the other field, where the two cannot stand together; "" = there is none
}

// Error names the field, what is wrong with it, what was given and what is
// allowed.
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString(e.Field + ": " + e.Problem)
	if e.Value != "" {
		b.WriteString(", got " + e.Value)
	}
	if e.Allowed != "" {
		b.WriteString(", allowed: " + e.Allowed)
	}
	if e.Suggestion != "" {
		fmt.Fprintf(&b, "; did you mean %q?", e.Suggestion)
	}
	return b.String()
}

// Hint says what to change.
func (e *FieldError) Hint() string {
	switch {
	case e.Advice != "":
		return e.Advice
	case e.Suggestion != "":
		return fmt.Sprintf("write %s instead of %s", e.Suggestion, e.Field)
	case e.Allowed == "":
		return "leave out " + e.Field
	case e.Problem == problemMissing:
		return fmt.Sprintf("add %s: %s", e.Field, e.Allowed)
	default:
		return fmt.Sprintf("set %s to: %s", e.Field, e.Allowed)
	}
}

// FieldErrors returns the faults in err, in the order of the body: those that
// ParseRequest joined, or the one that err is. It is nil if there are none.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) { //nolint:errorlint // takes the tree of errors apart itself
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, one := range e.Unwrap() {
			all = append(all, FieldErrors(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return FieldErrors(e.Unwrap())
	default:
		return nil
	}
}

// Nearest returns the name in known that name was probably meant to be: the one
// with the fewest edits, if these are at most a third of its letters. It returns
// "" if none comes that near.
func Nearest(name string, known []string) string {
	best, fewest := "", len(name)
	for _, k := range known {
		if d := edits(name, k); d < fewest && d <= max(1, len(k)/3) {
			best, fewest = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
