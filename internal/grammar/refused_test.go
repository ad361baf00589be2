package grammar_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/grammar"
)

// What cannot be bound is refused with its place, its name and what is wrong.
func TestFromSchemaRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"items":`, 200) + `{}` + strings.Repeat("}", 200)
	for _, c := range []struct{ schema, path, keyword, problem string }{
		{`{"properties":{"a":{"type":"integer","multipleOf":3}}}`, "#/properties/a", "multipleOf", "not supported"},
		{`{"properties":{"a/b~c":{"items":{"not":{}}}}}`, "#/properties/a~1b~0c/items", "not", "not supported"},
		{`{"type":"array","uniqueItems":true}`, "#", "uniqueItems", "not supported"},
		{`{"type":"array","uniqueItems":1}`, "#", "uniqueItems", "true or false"},
		{`{"type":"array","contains":{}}`, "#", "contains", "not supported"},
		{`{"patternProperties":{"a":{}}}`, "#", "patternProperties", "not supported"},
		{`{"minProperties":1}`, "#", "minProperties", "not supported"},
		{`{"propertyNames":{}}`, "#", "propertyNames", "not supported"},
		{`{"unevaluatedProperties":false}`, "#", "unevaluatedProperties", "not supported"},
		{`{"if":{}}`, "#", "if", "not supported"},
		{`{"dependentRequired":{}}`, "#", "dependentRequired", "not supported"},
		{`{"nullable":true}`, "#", "nullable", "not supported"},
		{`{"$anchor":"a"}`, "#", "$anchor", "not supported"},
		{`{"contentEncoding":"base64"}`, "#", "contentEncoding", "not supported"},
		{`{"requried":["a"]}`, "#", "requried", "not a keyword that is known"},
		{`{"anyOf":[{"type":"null"},{"items":{"wrong":1}}]}`, "#/anyOf/1/items", "wrong", "not a keyword"},
		{`{"type":"text"}`, "#", "type", `"text" is not one of object`},
		{`{"type":3}`, "#", "type", "3 is not one of"},
		{`{"type":[]}`, "#", "type", "empty list"},
		{`{"properties":[]}`, "#", "properties", "an object of schemas"},
		{`{"properties":{"a":3}}`, "#/properties/a", "", "must be an object or a boolean, not 3"},
		{`{"required":"a"}`, "#", "required", "list of names"},
		{`{"required":[1]}`, "#", "required", "1 is none"},
		{`{"properties":{"a":false},"required":["a"]}`, "#", "required", `requires "a", for which no value is allowed`},
		{`{"additionalProperties":false,"required":["a"]}`, "#", "required", `requires "a"`},
		{`{"prefixItems":{}}`, "#", "prefixItems", "list of one schema or more"},
		{`{"prefixItems":[{}],"items":[{}]}`, "#", "items", "must be a schema where there are prefixItems"},
		{`{"additionalItems":false}`, "#", "additionalItems", "only stands beside a list"},
		{`{"minItems":-1}`, "#", "minItems", "-1 is not a whole number"},
		{`{"minItems":1.5}`, "#", "minItems", "1.5 is not a whole number"},
		{`{"minItems":"2"}`, "#", "minItems", `"2" is not a whole number`},
		{`{"maxItems":100000000}`, "#", "maxItems", "from 0 to 1000000"},
		{`{"minItems":3,"maxItems":2}`, "#", "minItems", "at least 3 items, but at most 2"},
		{`{"prefixItems":[{},false],"minItems":2}`, "#", "minItems", "at least 2 items, but at most 1"},
		{`{"minLength":3,"maxLength":2}`, "#", "minLength", "at least 3 characters, but at most 2"},
		{`{"format":"regex"}`, "#", "format", `"regex" is not supported, only date-time`},
		{`{"format":7}`, "#", "format", "must be a string"},
		{`{"format":"date","pattern":"^a$"}`, "#", "format", "beside a pattern"},
		{`{"format":"date","maxLength":5}`, "#", "format", "it matches texts of 10 to 10 characters"},
		{`{"pattern":"abc"}`, "#", "pattern", "begins with ^ and ends with $"},
		{`{"pattern":"^abc"}`, "#", "pattern", "begins with ^ and ends with $"},
		{`{"pattern":"^a|b$"}`, "#", "pattern", "begins with ^ and ends with $"},
		{`{"pattern":"^(a$|b)c$"}`, "#", "pattern", "only at the two ends"},
		{`{"pattern":"^a(?=b)$"}`, "#", "pattern", `(?=`},
		{`{"pattern":"^(a)\\1$"}`, "#", "pattern", `\1`},
		{`{"pattern":"^\\ba$"}`, "#", "pattern", `\b and \B`},
		{`{"pattern":"^\\q$"}`, "#", "pattern", `the escape \q`},
		{`{"pattern":"^\\ud83d$"}`, "#", "pattern", "half a character"},
		{`{"pattern":"^\\u12$"}`, "#", "pattern", "four hexadecimal digits"},
		{`{"pattern":"^a\\"}`, "#", "pattern", "ends with a"},
		{`{"pattern":"^(a$"}`, "#", "pattern", "missing closing )"},
		{`{"pattern":"^[^\\s\\S]$"}`, "#", "pattern", "matches no"},
		{`{"pattern":"^(ab)*$","maxLength":5}`, "#", "pattern", "it matches texts of 0 characters and more"},
		{`{"pattern":"^[a-z]{3}$","maxLength":2}`, "#", "pattern", "it matches texts of 3 to 3"},
		{`{"allOf":[{"pattern":"^a$"},{"pattern":"^b$"}]}`, "#/allOf/1", "pattern", `"^b$" as well as "^a$"`},
		{`{"minimum":"1"}`, "#", "minimum", `"1" is not a number`},
		{`{"exclusiveMinimum":true}`, "#", "exclusiveMinimum", "true is not a number"},
		{`{"minimum":1e400}`, "#", "minimum", "at most 40 digits"},
		{`{"type":"integer","minimum":3,"maximum":2}`, "#", "minimum", "leaves no integer"},
		{`{"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":4}`, "#", "exclusiveMinimum", "leaves no integer"},
		{`{"type":"number","exclusiveMaximum":3,"minimum":3}`, "#", "minimum", "leaves no number"},
		{`{"enum":[]}`, "#", "enum", "one value or more"},
		{`{"enum":["abc"],"maxLength":2}`, "#", "enum", `restrict "abc" further`},
		{`{"anyOf":[]}`, "#", "anyOf", "one schema or more"},
		{`{"anyOf":{}}`, "#", "anyOf", "one schema or more"},
		{`{"allOf":[]}`, "#", "allOf", "one schema or more"},
		{`{"type":"null","oneOf":[{"type":"string"},false]}`, "#", "oneOf", "none of its schemas"},
		{`{"$ref":"https://example.org/x"}`, "#", "$ref", "not a place in this schema"},
		{`{"$ref":3}`, "#", "$ref", "is not a string"},
		{`{"$ref":"#a"}`, "#", "$ref", "not a place in this schema"},
		{`{"items":{"$ref":"#/$defs/a"},"$defs":{"b":{}}}`, "#/items", "$ref", `#/$defs has no "a"`},
		{`{"$ref":"#"}`, "#", "", "refers to itself with nothing between"},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}}}`, "#/$defs/a", "", "refers to itself with nothing between"},
		{`{"properties":{"a":{"$ref":"#"}},"required":["a"]}`, "#", "", "without end"},
		{`{"properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"items":{"$ref":"#/$defs/b"},"minItems":1}}}`, "#/properties/a", "", "without end"},
		{`false`, "#", "", "no answer"},
		{`{"allOf":[{"type":"string"},{"type":"null"}]}`, "#", "", "no answer"},
		{`3`, "#", "", "must be an object or a boolean, not 3"},
		{`{"a"`, "#/a", "", "not JSON"},
		{`{"properties":{"a":{"type":]}}`, "#/properties/a/type", "", "not JSON"},
		{``, "#", "", "not JSON"},
		{`{} {}`, "#", "", "more text after the schema"},
		{`{"type":"string","type":"null"}`, "#", "type", "given twice"},
		{deep, "#" + strings.Repeat("/items", 129), "", "nested more than 128 deep"},
		{`{"title":"` + strings.Repeat("a", 2<<20) + `"}`, "#", "", "at most 1048576 are allowed"},
		{`{"properties":{"` + strings.Repeat("a", 2000) + `":{}},"additionalProperties":true}`, "#", "", "a member's name of 2000 bytes"},
		{lengthy(30_000), "#", "", "more than 20000 rules"},
		{product(20), "#", "", "too many alternatives"},
	} {
		_, err := grammar.FromSchema(json.RawMessage(c.schema))
		var fault *grammar.SchemaError
		require.ErrorAs(t, err, &fault, "%.200s", c.schema)
		require.Contains(t, fault.Problem, c.problem, "%.200s", c.schema)
		require.Equal(t, c.path, fault.Path, "%.200s: %v", c.schema, err)
		require.Equal(t, c.keyword, fault.Keyword, "%.200s: %v", c.schema, err)
		require.NotEmpty(t, fault.Hint())
	}
	_, err := grammar.FromSchema(json.RawMessage(`{"properties":{"a":{"multipleOf":3}}}`))
	require.EqualError(t, err, "JSON schema, #/properties/a/multipleOf: not supported")
}

// lengthy is an object of n members that need not be there.
func lengthy(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"a%d":{"type":"null"},`, i)
	}
	return `{"properties":{` + strings.TrimSuffix(b.String(), ",") + `}}`
}

// product is a schema of n choices of two, of which all hold.
func product(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"anyOf":[{"properties":{"a%d":{"const":1}}},{"properties":{"a%d":{"const":2}}}]},`, i, i)
	}
	return `{"allOf":[` + strings.TrimSuffix(b.String(), ",") + `]}`
}

// A schema at the limits is converted, and llama.cpp takes the grammar.
func TestFromSchemaLarge(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	var enum, defs strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&enum, `"item %d",`, i)
		fmt.Fprintf(&defs, `"d%d":{"properties":{"next":{"$ref":"#/$defs/d%d"}}},`, i, i+1)
	}
	for _, c := range []struct{ name, schema, good string }{
		{"members", lengthy(500), `{"a7":null,"a499":null}`},
		{"values", `{"enum":[` + strings.TrimSuffix(enum.String(), ",") + `]}`, `"item 2999"`},
		{"definitions", `{"$ref":"#/$defs/d0","$defs":{` + defs.String() + `"d3000":{"type":"null"}}}`, `{"next":{"next":{}}}`},
		{"nesting", strings.Repeat(`{"items":`, 120) + `{"const":1}` + strings.Repeat("}", 120), strings.Repeat("[", 120) + "1" + strings.Repeat("]", 120)},
		{"lengths", `{"minLength":999999,"maxLength":1000000}`, `"` + strings.Repeat("a", 999_999) + `"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			gbnf, err := grammar.FromSchema(json.RawMessage(c.schema))
			require.NoError(t, err)
			if len(c.good) < 10_000 { // or it takes minutes
				j.accepts(t, j.grammar(t, gbnf), c.good)
			} else {
				j.refuses(t, j.grammar(t, gbnf), `"a"`)
			}
		})
	}
}

// Whatever the schema, there is an error or a grammar that llama.cpp can use.
func FuzzFromSchema(f *testing.F) {
	for _, c := range schemaCases() {
		f.Add([]byte(c.schema))
	}
	f.Fuzz(func(t *testing.T, schema []byte) {
		gbnf, err := grammar.FromSchema(schema)
		if err == nil {
			require.NoError(t, grammar.Check(gbnf))
		}
	})
}
