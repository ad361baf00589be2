// Package grammar turns what a user says of an answer's form into GBNF, the
// language in which llama.cpp takes grammars, and finds the faults of grammars that
// users wrote themselves. It knows nothing of models and calls no library.
//
// [FromSchema] turns a JSON Schema into a grammar of which every text is valid by
// the schema. Where a schema leaves something open (members that it does not name,
// blanks between them) the grammar may allow less than the schema, but never more;
// only oneOf is read as anyOf. What a grammar cannot bind is refused by name
// ([SchemaError]).
//
// [Check] reads GBNF as llama.cpp v0.5.0 does, and refuses what llama.cpp refuses
// and what it would never come back from ([SyntaxError]).
package grammar
