package batchfile

import (
	"tempo/api"
	"tempo/internal/grammar"
)

// bounds checks the schemas and grammars of requests, as the engine will read them. The
// lines of a file mostly have the same one, so that the last verdict is remembered.
type bounds struct {
	schema, gbnf string
	verdict      *api.FieldError
}

// check returns what is wrong with a request's schema or grammar, nil if nothing is.
func (b *bounds) check(req *api.Request) *api.FieldError {
	schema, gbnf := string(req.Schema), req.Grammar
	if schema == "" && gbnf == "" {
		return nil
	}
	if schema != b.schema || gbnf != b.gbnf {
		b.schema, b.gbnf, b.verdict = schema, gbnf, inspect(req)
	}
	if b.verdict == nil {
		return nil
	}
	f := *b.verdict
	return &f
}

func inspect(req *api.Request) *api.FieldError {
	field, err := "grammar", error(nil)
	if req.Schema != nil {
		field = "response_format.json_schema.schema"
		_, err = grammar.FromSchema(req.Schema)
	} else {
		err = grammar.Check(req.Grammar)
	}
	if err == nil {
		return nil
	}
	f := &api.FieldError{Field: field, Problem: err.Error()}
	if hinted, ok := err.(interface{ Hint() string }); ok {
		f.Advice = hinted.Hint()
	}
	return f
}
