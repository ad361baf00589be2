package grammar

import (
	"fmt"
	"strings"
)

// notSupported is in the problems of keywords that are right, but bind nothing here.
const notSupported = "not supported"

// SchemaError says which part of a JSON Schema cannot be turned into a grammar.
type SchemaError struct {
	// Path is where in the schema, as a JSON pointer: "#", "#/properties/age".
	Path string
	// Keyword is the keyword at fault, "" if the schema at Path is at fault as a whole.
	Keyword string
	// Problem says what is wrong, with the value and with what is allowed.
	Problem string

	hint string
}

func (e *SchemaError) Error() string {
	if e.Keyword == "" {
		return fmt.Sprintf("JSON schema, %s: %s", e.Path, e.Problem)
	}
	return fmt.Sprintf("JSON schema, %s/%s: %s", e.Path, escapePointer(e.Keyword), e.Problem)
}

// Hint says what to do about it.
func (e *SchemaError) Hint() string {
	switch {
	case e.hint != "":
		return e.hint
	case strings.Contains(e.Problem, notSupported):
		return "an answer is bound only by what a grammar can express: leave the keyword out and check the answers for it afterwards"
	case e.Keyword != "":
		return "correct " + e.Keyword + ", or leave it out"
	}
	return "correct the schema there"
}

// SyntaxError is a fault in a GBNF grammar.
type SyntaxError struct {
	// Line and Column are where it was found, both from 1; columns count characters.
	Line, Column int
	// Problem says what is wrong there.
	Problem string

	hint string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("grammar, line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// Hint says what to do about it.
func (e *SyntaxError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return `correct it there; a grammar is a list of rules, NAME ::= DEFINITION, a line each, that begins at the rule root: root ::= "yes" | "no"`
}
