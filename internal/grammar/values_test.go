package grammar_test

import "strings"

// valueCases are those of texts, numbers, lists of values, and of schemas put
// together.
func valueCases() []schemaCase {
	cases := []schemaCase{
		{
			"enum", `{"enum":["red","green","re",1,2.5,null,true,{"a":[1,"b"]}]}`,
			[]string{`"red"`, `"green"`, `"re"`, `1`, `2.5`, `null`, `true`, `{"a":[1,"b"]}`},
			[]string{`"r"`, `"reds"`, `red`, `2`, `false`, `"redgreen"`},
		},
		{"enum of a type", `{"type":["string","boolean"],"enum":["a",1,null,false]}`, []string{`"a"`, `false`}, []string{`1`, `null`}},
		{"enum with quotes", `{"enum":["a\"b","a\\c","tab\t","üß🙂","<&>","\u2028","\u0001"]}`, []string{`"a\"b"`, `"a\\c"`, `"tab\t"`, `"üß🙂"`, `"<&>"`, "\"\u2028\"", `"\u0001"`}, []string{`"a"`, `"a\"c"`}},
		{"enum of one beginning", `{"enum":["a","ab","abc","abd"]}`, []string{`"a"`, `"ab"`, `"abc"`, `"abd"`}, []string{`"abcd"`, `""`, `"b"`}},
		{"const", `{"const":"x y"}`, []string{`"x y"`}, []string{`"x"`, `"x  y"`}},
		{"const object", `{"const":{"a":1}}`, []string{`{"a":1}`}, []string{`{"a":2}`, `{}`}},
		{"minLength", `{"type":"string","minLength":2}`, []string{`"ab"`, `"üß"`, `"🙂🙂"`, `"\n\u00e9"`, `"abcdefgh"`}, []string{`""`, `"a"`, `"🙂"`, `"\n"`, `"\ud83d\ude00"`}},
		{"maxLength", `{"maxLength":3}`, []string{`""`, `"abc"`, `"🙂🙂🙂"`, `"\n\n\n"`}, []string{`"abcd"`, `1`}},
		{"both lengths", `{"type":"string","minLength":2,"maxLength":2}`, []string{`"ab"`}, []string{`"a"`, `"abc"`}},
		{"no length", `{"type":"string","maxLength":0}`, []string{`""`}, []string{`"a"`}},
		{
			"long lengths", `{"type":"string","minLength":1000,"maxLength":3000}`,
			[]string{letters(1000), letters(1001), letters(2024), letters(2999), letters(3000)},
			[]string{letters(999), letters(3001)},
		},
		{"choice", `{"anyOf":[{"type":"integer"},{"type":"string","maxLength":1},{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]}]}`, []string{`1`, `"a"`, `{"a":null}`}, []string{`"ab"`, `{}`, `true`}},
		{"oneOf", `{"oneOf":[{"const":1},{"const":2}]}`, []string{`1`, `2`}, []string{`3`}},
		{"choice with what holds of all", `{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"anyOf":[{"required":["a"]},{"required":["b"]}]}`, []string{`{"a":1}`, `{"b":1}`, `{"a":1,"b":2}`}, []string{`{}`}},
		{"two choices", `{"anyOf":[{"minLength":1},{"type":"null"}],"oneOf":[{"maxLength":2},{"type":"null"}]}`, []string{`null`, `"a"`, `"ab"`}, []string{`""`, `"abc"`, `1`}},
		{"choice that cannot be", `{"type":"integer","anyOf":[{"type":"string"},{"minimum":3},false]}`, []string{`3`, `44`}, []string{`2`, `"a"`}},
		{"choices of choices", `{"$ref":"#/$defs/A","$defs":{"A":{"anyOf":[{"$ref":"#/$defs/B"},{"const":1}]},"B":{"anyOf":[{"$ref":"#/$defs/A"},{"const":2}]}}}`, []string{`1`, `2`}, []string{`3`}},
		{
			"allOf", `{"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"$ref":"#/$defs/more"}],"properties":{"c":{"type":"null"}},"$defs":{"more":{"properties":{"b":{"type":"string"},"a":{"minimum":5}},"required":["b"]}}}`,
			[]string{`{"a":5,"b":"x"}`, `{"a":12,"b":"x","c":null}`},
			[]string{`{"a":4,"b":"x"}`, `{"a":5}`, `{"b":"x"}`, `{"a":5,"b":1}`},
		},
		{"allOf of values", `{"allOf":[{"enum":[1,2,3]},{"enum":[3,2,5]},{"type":"integer"}]}`, []string{`2`, `3`}, []string{`1`, `5`}},
		{"allOf with no others", `{"allOf":[{"properties":{"a":{"type":"null"}},"additionalProperties":false},{"properties":{"b":{"type":"null"}}}]}`, []string{`{}`, `{"a":null}`}, []string{`{"b":null}`}},
		{"allOf with others", `{"allOf":[{"properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"integer"}},{"properties":{"b":{"minimum":7}}}]}`, []string{`{"a":1}`, `{"a":1,"b":7,"c":2}`}, []string{`{"b":6}`, `{"b":"x"}`, `{"c":"x"}`}},
		{"allOf of items", `{"allOf":[{"type":"array","items":{"type":"integer"}},{"prefixItems":[{"minimum":3}],"minItems":1}]}`, []string{`[3]`, `[4,1,1]`}, []string{`[]`, `[2]`, `[3,"a"]`}},
		{"allOf of lengths", `{"allOf":[{"type":"string","minLength":1},{"minLength":2,"maxLength":9},{"maxLength":3}]}`, []string{`"ab"`, `"abc"`}, []string{`"a"`, `"abcd"`}},
		{"ref beside others", `{"$ref":"#/$defs/s","maxLength":2,"description":"d","$defs":{"s":{"type":"string","minLength":1}}}`, []string{`"a"`, `"ab"`}, []string{`""`, `"abc"`}},
		{
			"recursion at the root", `{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}`,
			[]string{`{"v":1,"next":null}`, `{"v":1,"next":{"v":2,"next":{"v":3,"next":null}}}`},
			[]string{`{"v":1,"next":{}}`, `{"v":1}`},
		},
		{
			"recursion in definitions", `{"$ref":"#/definitions/tree","definitions":{"tree":{"type":"array","items":{"$ref":"#/definitions/tree"},"maxItems":2}}}`,
			[]string{`[]`, `[[],[[]]]`},
			[]string{`[1]`, `[[],[],[]]`},
		},
		{"refs to any place", `{"properties":{"a b/c":{"type":"integer"},"d":{"$ref":"#/properties/a%20b~1c"},"e":{"$ref":"#/properties/f/anyOf/1"},"f":{"anyOf":[{"type":"null"},{"const":7}]}}}`, []string{`{"d":1,"e":7}`}, []string{`{"d":"x"}`, `{"e":null}`}},
		{"integers at least 0", `{"type":"integer","minimum":0}`, []string{`0`, `7`, `123456789`}, []string{`-1`, `-0`, `01`}},
		{"integers above 0", `{"type":"integer","exclusiveMinimum":0}`, []string{`1`, `10`}, []string{`0`, `-1`}},
		{"integers beyond the usual", `{"type":"integer","minimum":12345678901234567890,"maximum":12345678901234567899}`, []string{`12345678901234567890`, `12345678901234567895`}, []string{`12345678901234567889`, `12345678901234567900`}},
		{"integers between fractions", `{"type":"integer","minimum":0.5,"exclusiveMaximum":3}`, []string{`1`, `2`}, []string{`0`, `3`}},
		{"integers between negative fractions", `{"type":"integer","minimum":-2.5,"maximum":-0.5}`, []string{`-1`, `-2`}, []string{`0`, `-3`}},
		{"bounds with exponents", `{"type":"integer","minimum":1e2,"maximum":1.05e2}`, []string{`100`, `105`}, []string{`99`, `106`}},
		{"numbers from 0 to 1", `{"type":"number","minimum":0,"maximum":1}`, []string{`0`, `1`, `0.5`, `0.0`, `1.0`, `1.000`, `0.9999`, `0.05`}, []string{`1.1`, `-0.1`, `2`, `1.0001`, `1e0`, `10`}},
		{"numbers within", `{"type":"number","exclusiveMinimum":-1.25,"exclusiveMaximum":20.5}`, []string{`-1.2499`, `-1.2`, `-1`, `-0.0`, `0`, `9`, `19.99`, `20`, `20.4999`, `20.49`}, []string{`-1.25`, `-1.250`, `-1.3`, `-2`, `20.5`, `20.50`, `21`, `20.6`, `100`}},
		{"numbers above", `{"type":"number","exclusiveMinimum":0}`, []string{`0.1`, `0.00001`, `5`, `1234.5`}, []string{`0`, `0.0`, `0.000`, `-1`}},
		{"numbers below", `{"type":"number","maximum":-2.5}`, []string{`-2.5`, `-2.50`, `-3`, `-100.1`, `-2.75`}, []string{`-2.4`, `-2`, `0`, `3`}},
		{"numbers, no integers", `{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1}`, []string{`0.5`, `0.01`}, []string{`0`, `1`, `0.0`, `1.0`}},
	}
	return append(cases, patternCases()...)
}

func letters(n int) string { return `"` + strings.Repeat("ab", n/2) + strings.Repeat("c", n%2) + `"` }

func patternCases() []schemaCase {
	pattern := func(p string) string { return `{"type":"string","pattern":` + quoted(p) + `}` }
	return []schemaCase{
		{"literal", pattern(`^abc$`), []string{`"abc"`}, []string{`"ab"`, `"abcd"`, `""`}},
		{"empty pattern", pattern(`^$`), []string{`""`}, []string{`"a"`}},
		{"classes", pattern(`^[a-c][^a-c]\d\w\s.$`), []string{`"az1_ x"`, `"c\"9A\t🙂"`, `"b\\0b\n世"`}, []string{`"dz1_ x"`, `"aa1_ x"`, `"azx_ x"`, `"az1- x"`, `"az1_xx"`, `"az1_ \n"`}},
		{"alternatives", pattern(`^(cat|dog|do|)s?$`), []string{`"cat"`, `"dogs"`, `"do"`, `"s"`, `""`}, []string{`"catdog"`, `"ss"`}},
		{"alternatives with anchors", pattern(`^a$|^bc$`), []string{`"a"`, `"bc"`}, []string{`"b"`, `"abc"`}},
		{"quantifiers", pattern(`^a*b+c?d{2}e{1,3}f{2,}$`), []string{`"bddeff"`, `"aaabbcddeeefff"`}, []string{`"ddeff"`, `"bccddeff"`, `"bdddeff"`, `"bddeeeeff"`, `"bddef"`}},
		{"groups", pattern(`^(?:ab)+(x(?<n>y)?)*$`), []string{`"ab"`, `"abab"`, `"abxxyx"`}, []string{`"aba"`, `"aby"`}},
		{"repeated nothing", pattern(`^(a*|b?)*c$`), []string{`"c"`, `"abac"`}, []string{`"d"`}},
		{"repetition in repetition", pattern(`^((a{0,9}b){1,9}c){1,9}$`), []string{`"bc"`, `"aabbcaabc"`}, []string{`"c"`, `"aab"`}},
		{"escapes", pattern(`^\/\.\-\\\"\n\u00e9\ud83d\ude00\x41$`), []string{`"/.-\\\"\né😀A"`}, []string{`"/a-\\\"\né😀A"`}},
		{"a control character", pattern(`^[\x01\x02]$`), []string{`"\u0001"`, `"\u0002"`}, []string{`"\u0003"`}},
		{"not a blank", pattern(`^[^\s@]+@\S+$`), []string{`"a@b"`, `"ü@世"`}, []string{`"a b@c"`, "\"a\u00a0@c\"", "\"a@\u3000\""}},
		{"both cases", pattern(`^[aA][bB]c$`), []string{`"aBc"`, `"Abc"`}, []string{`"abC"`}},
		{"case aside", pattern(`^(?i)kelvin$`), []string{`"KeLvin"`}, []string{"\"\u212aelvin\""}},
		{"pattern and lengths", `{"pattern":"^[a-z]+$","minLength":2,"maxLength":3}`, []string{`"ab"`, `"abc"`}, []string{`"a"`, `"abcd"`, `"A"`}},
		{"pattern of such a length", `{"pattern":"^(ab|cde)$","minLength":2,"maxLength":3}`, []string{`"ab"`, `"cde"`}, []string{`"abc"`}},
		{
			"date", `{"format":"date"}`,
			[]string{`"2024-02-29"`, `"2000-02-29"`, `"1999-12-31"`, `"2023-04-30"`},
			[]string{`"2023-02-29"`, `"1900-02-29"`, `"2023-04-31"`, `"2023-13-01"`, `"2023-1-1"`, `"2023-00-10"`},
		},
		{"time", `{"format":"time"}`, []string{`"23:59:59Z"`, `"00:00:00.123+05:30"`}, []string{`"24:00:00Z"`, `"12:00Z"`, `"12:00:00"`}},
		{"date-time", `{"format":"date-time"}`, []string{`"2024-02-29T12:30:00Z"`, `"2023-01-02T03:04:05.678-08:00"`}, []string{`"2023-02-29T12:30:00Z"`, `"2024-02-29 12:30:00Z"`}},
		{"duration", `{"format":"duration"}`, []string{`"P1Y2M3D"`, `"PT4H5M6S"`, `"P3W"`, `"P1DT1H"`}, []string{`"P"`, `"PT"`, `"1D"`, `"P1Y3D"`}},
		{"uuid", `{"format":"uuid"}`, []string{`"123e4567-e89b-12d3-A456-426614174000"`}, []string{`"123e4567e89b12d3a456426614174000"`, `"g23e4567-e89b-12d3-a456-426614174000"`}},
		{"email", `{"format":"email"}`, []string{`"ann.lee+x@mail.example.org"`}, []string{`"ann"`, `"@b.c"`, `"a@-b.c"`, `"a@b..c"`}},
		{"hostname", `{"format":"hostname"}`, []string{`"a"`, `"www.example-site.org"`}, []string{`"-a"`, `"a-"`, `"a..b"`, `"a b"`}},
		{"ipv4", `{"format":"ipv4"}`, []string{`"127.0.0.1"`, `"255.255.255.255"`}, []string{`"256.0.0.1"`, `"1.2.3"`, `"01.2.3.4"`}},
		{"ipv6", `{"format":"ipv6"}`, []string{`"2001:db8:0:0:0:0:0:1"`}, []string{`"2001:db8"`, `"g:0:0:0:0:0:0:1"`}},
		{"uri", `{"format":"uri"}`, []string{`"https://example.org"`, `"ftp://a.b:21/c/d%20e?f=g#h"`}, []string{`"example.org"`, `"https://"`, `"https://a b"`}},
	}
}
