package grammar_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/grammar"
)

// Each schema with texts that it must take and texts that it must refuse.
func TestFromSchema(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	for _, c := range schemaCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			gbnf, err := grammar.FromSchema(json.RawMessage(c.schema))
			require.NoError(t, err)
			g := j.grammar(t, gbnf)
			for _, text := range c.good {
				require.True(t, json.Valid([]byte(text)), "%s: the test's own text is not JSON", text)
				j.accepts(t, g, text)
			}
			for _, text := range append(c.bad, "", " ", "x") {
				j.refuses(t, g, text)
			}
			again, err := grammar.FromSchema(json.RawMessage(c.schema))
			require.NoError(t, err)
			require.Equal(t, gbnf, again, "the same text")
		})
	}
}

type schemaCase struct {
	name, schema string
	good, bad    []string
}

func schemaCases() []schemaCase {
	cases := []schemaCase{
		{
			"nothing", `{}`,
			[]string{`{}`, `{ }`, `{"a":1}`, `{"a": [1, 2.5, -3e10, true, null], "b": {"c": "d"}}`, "{\n  \"a\": \"b\"\n}", `{"":""}`, `{"a":"\u00e9\n\"\\"}`},
			[]string{`[]`, `"a"`, `1`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1,}`, `{"a":01}`, `{"a":1}}`, ` {}`, `{} `, `{"a":"\x"}`, `{"a":"\ud83d"}`, `{"a":1e999}`},
		},
		{"true", `true`, []string{`{"a":1}`}, []string{`1`}},
		{"notes only", `{"title":"T","description":"d","$schema":"s","$id":"i","default":{},"examples":[1],"$comment":"c","strict":true,"x-mine":1,"deprecated":true,"readOnly":true,"writeOnly":false}`, []string{`{}`}, []string{`1`}},
		{"blanks are bounded", `{}`, []string{"{\n\n" + strings.Repeat(" ", 20) + "}", "{\n\t\t}"}, []string{"{  }", "{\n\n\n}", "{\n" + strings.Repeat(" ", 21) + "}", "{\r\n}"}},
		{"string", `{"type":"string"}`, []string{`""`, `"a"`, `"Grüße, 世界 🙂"`, `"\u00e9"`, `"\b\f\n\r\t\"\\"`}, []string{`a`, `"`, `"a`, "\"\n\"", `"\u00g0"`, `"\ud800"`, `"\/"`, `1`}},
		{"number", `{"type":"number"}`, []string{`0`, `-0.5`, `12`, `1e5`, `1E-7`, `3.25e+10`, `9999999999999999`}, []string{`01`, `.5`, `1.`, `+1`, `1e`, `1e100`, `--1`, `"1"`, `99999999999999999`}},
		{"integer", `{"type":"integer"}`, []string{`0`, `-7`, `1234567890`}, []string{`1.0`, `1e3`, `007`, `-`}},
		{"boolean", `{"type":"boolean"}`, []string{`true`, `false`}, []string{`True`, `null`, `truefalse`}},
		{"null", `{"type":"null"}`, []string{`null`}, []string{`nul`, `0`}},
		{"types", `{"type":["string","null","integer"]}`, []string{`"a"`, `null`, `-3`}, []string{`1.5`, `true`, `[]`, `{}`}},
		{"number and integer", `{"type":["integer","number"]}`, []string{`1`, `1.5`}, nil},
		{
			"required", `{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"}},"required":["a","b"]}`,
			[]string{`{"a":1,"b":true}`, `{"a": 1, "b": false}`, `{ "a" : 1, "b":true }`},
			[]string{`{}`, `{"a":1}`, `{"b":true}`, `{"b":true,"a":1}`, `{"a":1,"b":true,"c":1}`, `{"a":1 "b":true}`, `{"a":"1","b":true}`, `{,"a":1,"b":true}`},
		},
		{
			"all optional", `{"properties":{"a":{"type":"integer"},"b":{"type":"integer"},"c":{"type":"integer"}}}`,
			[]string{`{}`, `{"a":1}`, `{"b":1}`, `{"c":1}`, `{"a":1,"b":2}`, `{"a":1,"c":2}`, `{"b":1,"c":2}`, `{"a":1,"b":2,"c":3}`},
			[]string{`{"b":1,"a":2}`, `{"a":1,"a":2}`, `{"a":1,}`, `{,"a":1}`, `{"a":1,,"c":2}`, `{"d":1}`, `[]`, `1`},
		},
		{
			"optional before and after required", `{"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3},"d":{"const":4},"e":{"const":5}},"required":["c","e"]}`,
			[]string{`{"c":3,"e":5}`, `{"a":1,"c":3,"e":5}`, `{"b":2,"c":3,"e":5}`, `{"a":1,"b":2,"c":3,"d":4,"e":5}`, `{"c":3,"d":4,"e":5}`},
			[]string{`{"a":1,"b":2}`, `{"c":3}`, `{"e":5}`, `{"a":1,"e":5}`, `{"c":3,"e":5,"a":1}`},
		},
		{
			"required and not described", `{"type":"object","properties":{"a":{"type":"null"}},"required":["z","a"]}`,
			[]string{`{"a":null,"z":[1]}`},
			[]string{`{"a":null}`, `{"z":1}`},
		},
		{
			"no others", `{"type":"object","properties":{},"additionalProperties":false}`,
			[]string{`{}`, `{ }`},
			[]string{`{"a":1}`},
		},
		{
			"a map", `{"type":"object","additionalProperties":{"type":"integer"}}`,
			[]string{`{}`, `{"a":1}`, `{"a":1,"b":2,"":3}`},
			[]string{`{"a":"b"}`, `{"a":1,}`},
		},
		{
			"others too", `{"type":"object","properties":{"name":{"type":"string"},"nap":{"type":"null"},"na":{"type":"null"}},"required":["name"],"additionalProperties":{"type":"integer"}}`,
			[]string{`{"name":"x"}`, `{"name":"x","other":1}`, `{"name":"x","nam":1,"names":2,"n":3,"":4,"nax":5,"Grüße":6,"a\n":7}`, `{"name":"x","nap":null,"napp":1}`},
			[]string{`{"name":"x","name":1}`, `{"name":"x","nap":1}`, `{"name":"x","na":1}`, `{"name":"x","n\u0061p":1}`, `{"other":1,"name":"x"}`, `{"name":"x","y":"z"}`},
		},
		{
			"others, the empty name taken", `{"type":"object","properties":{"":{"type":"null"},"a\"b":{"type":"null"}},"additionalProperties":true}`,
			[]string{`{"":null,"x":1}`, `{"a\"b":null}`, `{"x":{},"y":[]}`, `{"a":1}`},
			[]string{`{"":1}`, `{"a\"b":1}`},
		},
		{
			"a member that must not be", `{"type":"object","properties":{"a":false,"b":true},"additionalProperties":true}`,
			[]string{`{}`, `{"b":[]}`, `{"c":1}`},
			[]string{`{"a":1}`},
		},
		{
			"awkward names", `{"type":"object","properties":{"a\"b\\c\n":{"type":"null"},"Grüße 🙂":{"type":"null"},"<tag>":{"type":"null"}},"required":["a\"b\\c\n","Grüße 🙂","<tag>"]}`,
			[]string{`{"a\"b\\c\n":null,"Grüße 🙂":null,"<tag>":null}`},
			[]string{`{"a":null,"Grüße 🙂":null,"<tag>":null}`},
		},
		{"items", `{"type":"array","items":{"type":"integer"}}`, []string{`[]`, `[ ]`, `[1]`, `[1, 2,3]`}, []string{`[1,]`, `[,1]`, `["a"]`, `1`, `[1`}},
		{"any items", `{"type":"array"}`, []string{`[]`, `[1,"a",[null]]`}, []string{`{}`}},
		{"item counts", `{"items":{"type":"integer"},"minItems":2,"maxItems":4}`, []string{`[1,2]`, `[1,2,3]`, `[1,2,3,4]`}, []string{`[]`, `[1]`, `[1,2,3,4,5]`}},
		{"minItems", `{"type":"array","minItems":2,"uniqueItems":false}`, []string{`[1,"a"]`, `[1,2,3,4,5,6,7]`}, []string{`[]`, `[1]`}},
		{"maxItems", `{"items":{"type":"integer"},"maxItems":1}`, []string{`[]`, `[1]`}, []string{`[1,2]`}},
		{"no items", `{"type":"array","maxItems":0}`, []string{`[]`, `[ ]`}, []string{`[1]`}},
		{"items false", `{"type":"array","items":false}`, []string{`[]`}, []string{`[1]`}},
		{
			"many items", `{"items":{"const":0},"minItems":300,"maxItems":700}`,
			[]string{zeros(300), zeros(301), zeros(512), zeros(555), zeros(556), zeros(557), zeros(699), zeros(700)},
			[]string{zeros(0), zeros(299), zeros(701), zeros(1000)},
		},
		{
			"a tuple", `{"prefixItems":[{"type":"integer"},{"type":"string"},{"type":"null"}]}`,
			[]string{`[]`, `[1]`, `[1,"a"]`, `[1,"a",null]`},
			[]string{`["a"]`, `[1,2]`, `[1,"a",null,4]`},
		},
		{
			"a tuple and more", `{"prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"boolean"},"minItems":1,"maxItems":4}`,
			[]string{`[1]`, `[1,"a"]`, `[1,"a",true]`, `[1,"a",true,false]`},
			[]string{`[]`, `[1,true]`, `[1,"a",true,true,true]`},
		},
		{"a tuple, all of it", `{"prefixItems":[{"type":"integer"},{"type":"string"}],"items":false,"minItems":2}`, []string{`[1,"a"]`}, []string{`[1]`, `[]`, `[1,"a",1]`}},
		{"a tuple, longer", `{"prefixItems":[{"type":"integer"}],"minItems":3}`, []string{`[1,{},"a"]`, `[1,2,3,4]`}, []string{`[1,2]`, `["a",1,1]`}},
		{"a tuple, cut", `{"prefixItems":[{"type":"integer"},false,{"type":"null"}]}`, []string{`[]`, `[1]`}, []string{`[1,2]`}},
		{"a tuple of older drafts", `{"items":[{"type":"integer"},{"type":"string"}],"additionalItems":{"type":"null"}}`, []string{`[1,"a",null,null]`, `[1]`}, []string{`[1,"a",1]`}},
	}
	return append(cases, valueCases()...)
}

// zeros is a list of n zeros.
func zeros(n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat("0,", n), ",") + "]"
}
