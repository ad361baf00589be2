package grammar

// builtins are the rules that schemas share. Their shape, and the blanks between
// tokens, are those of llama.cpp's own converter, so that the same model gives the
// same answer as under llama-server. What differs bounds them further: characters
// are valid Unicode in UTF-8, exponents are such that a float64 has the value, and
// empty brackets have blanks once between them, not twice.
// Source: llama.cpp v0.5.0, common/json-schema-to-grammar.cpp.
func builtins() []rule {
	return []rule{
		{"value", `object | array | string | number | boolean | null`},
		{"object", `"{" space (string ":" space value ("," space string ":" space value)* space)? "}"`},
		{"array", `"[" space (value ("," space value)* space)? "]"`},
		{"string", `"\"" char* "\""`},
		{"number", `"-"? integral ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?`},
		{"integer", `"-"? integral`},
		{"integral", `"0" | [1-9] [0-9]{0,15}`},
		{"boolean", `"true" | "false"`},
		{"null", `"null"`},
		// The escapes leave out the halves of UTF-16 pairs, which are no characters
		// alone and one, not two, together.
		{"char", plainClass + ` | "\\" (["\\bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))`},
		{"space", `| " " | "\n"{1,2} [ \t]{0,20}`},
	}
}

// plainClass are the characters that stand for themselves in a JSON string, less
// U+007F. It is written as what is allowed, not as what is not, since llama.cpp
// then rejects the beginnings of invalid UTF-8.
const plainClass = `[\x20!#-\[\]-~\x80-\uD7FF\uE000-\U0010FFFF]`

// needs are the built-in rules that a built-in rule uses itself.
func needs(name string) []string {
	switch name {
	case "value":
		return []string{"object", "array", "string", "number", "boolean", "null"}
	case "object":
		return []string{"string", "value", "space"}
	case "array":
		return []string{"value", "space"}
	case "string":
		return []string{"char"}
	case "number", "integer":
		return []string{"integral"}
	}
	return nil
}

// builtin returns name, and has the built-in rule of that name written, with those
// that it needs.
func (c *converter) builtin(name string) string {
	if !c.used[name] {
		c.used[name] = true
		for _, n := range needs(name) {
			c.builtin(n)
		}
	}
	return name
}
