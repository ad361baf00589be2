package api

import (
	"strings"
	"testing"
)

// badField is a field that is refused: what stands beside the prompt, and the fault.
type badField struct {
	json, field string
	says        []string
}

func says(texts ...string) []string { return texts }

func TestParseRequestFaultsOfOutput(t *testing.T) {
	t.Parallel()
	const messages, completion = `{` + hello + `,`, `{"prompt":"x",`
	for start, bad := range map[string][]badField{
		messages: {
			{`"n":0`, "n", says("out of range", "1 to 128")},
			{`"n":129`, "n", says("out of range", "129")},
			{`"n":"2"`, "n", says("wrong type")},
			{`"n":2,"best_of":3`, "best_of", says("contradicts n (2)", "3")},
			{`"best_of":2`, "best_of", says("contradicts n (1)")},
			{`"logprobs":2`, "logprobs", says("wrong type", "true or false")},
			{`"logprobs":true,"top_logprobs":21`, "top_logprobs", says("out of range", "0 to 20")},
			{`"top_logprobs":true`, "top_logprobs", says("wrong type")},
			{`"top_logprobs":2`, "top_logprobs", says("needs logprobs", "2")},
			{`"logprobs":false,"top_logprobs":2`, "top_logprobs", says("needs logprobs")},
			{`"echo":true`, "echo", says("not supported", "false")},
			{`"ignore_eos":1`, "ignore_eos", says("wrong type")},
			{`"reproducible":"yes"`, "reproducible", says("wrong type", "true or false")},
			{`"timeout":0`, "timeout", says("out of range", "604800")},
			{`"timeout":-1`, "timeout", says("out of range")},
			{`"timeout":604801`, "timeout", says("out of range")},
			{`"timeout":"10s"`, "timeout", says("wrong type", "seconds")},
			{`"n_probs":5`, "n_probs", says(`did you mean "top_logprobs"?`)},

			{`"logit_bias":5`, "logit_bias", says("wrong type", "50256")},
			{`"logit_bias":{"5":101}`, "logit_bias.5", says("out of range", "101", "100")},
			{`"logit_bias":{"5":"1"}`, "logit_bias.5", says("wrong type")},
			{`"logit_bias":{"5":1,"5":1}`, "logit_bias.5", says("given twice")},
			{`"logit_bias":{"05":1}`, "logit_bias.05", says("not a token id")},
			{`"logit_bias":{"-1":1}`, "logit_bias.-1", says("not a token id")},
			{`"logit_bias":{"cat":1}`, "logit_bias.cat", says("not a token id")},
			{`"logit_bias":{"2147483648":1}`, "logit_bias.2147483648", says("not a token id", "2147483647")},
			{`"logit_bias":[5]`, "logit_bias[0]", says("wrong type", "pair")},
			{`"logit_bias":[[5,1],["cat",1]]`, "logit_bias[1]", says("wrong type", "token id")},
			{`"logit_bias":[[5,1],[5,2]]`, "logit_bias[1]", says("given twice")},
			{`"logit_bias":[[5,true]]`, "logit_bias.5", says("wrong type")},
			{`"logit_bias":[[1.5,1]]`, "logit_bias.1.5", says("not a token id")},

			{`"grammar":{}`, "grammar", says("wrong type", "GBNF")},
			{`"response_format":"json"`, "response_format", says("wrong type", "json_object")},
			{`"response_format":{}`, "response_format.type", says("missing", "json_schema")},
			{`"response_format":{"type":"xml"}`, "response_format.type", says("not supported", `"xml"`)},
			{`"response_format":{"type":1}`, "response_format.type", says("wrong type")},
			{`"response_format":{"type":"json_object","schema":{}}`, "response_format.schema", says("unknown field", `did you mean "response_format.json_schema"?`)},
			{`"response_format":{"type":"json_schema"}`, "response_format.json_schema", says("missing")},
			{`"response_format":{"type":"json_schema","json_schema":[]}`, "response_format.json_schema", says("wrong type")},
			{`"response_format":{"type":"text","json_schema":{}}`, "response_format.json_schema", says(`cannot stand beside type ("text")`)},
			{`"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`, "response_format.json_schema.name", says("missing")},
			{`"response_format":{"type":"json_schema","json_schema":{"name":"a b","schema":{}}}`, "response_format.json_schema.name", says("not a name", `"a b"`)},
			{`"response_format":{"type":"json_schema","json_schema":{"name":"x"}}`, "response_format.json_schema.schema", says("missing")},
			{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":true}}`, "response_format.json_schema.schema", says("wrong type")},
			{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{},"strict":1}}`, "response_format.json_schema.strict", says("wrong type")},
			{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{},"description":1}}`, "response_format.json_schema.description", says("wrong type")},
			{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{},"x":1}}`, "response_format.json_schema.x", says("unknown field")},
			{`"json_schema":{}`, "json_schema", says(`did you mean "response_format"?`)},

			{`"grammar":"root ::= \"a\"","response_format":{"type":"json_object"}`, "grammar", says(`cannot stand beside response_format ({"type":"json_object"})`)},
			{`"ignore_eos":true,"grammar":"root ::= \"a\""`, "ignore_eos", says("cannot stand beside grammar")},
			{`"ignore_eos":true,"response_format":{"type":"json_object"}`, "ignore_eos", says("cannot stand beside response_format")},
			{`"tools":` + weather + `,"response_format":{"type":"json_object"}`, "tools", says("cannot stand beside response_format")},
		},
		completion: {
			{`"logprobs":true`, "logprobs", says("wrong type", "0 to 20")},
			{`"logprobs":21`, "logprobs", says("out of range")},
			{`"top_logprobs":3`, "top_logprobs", says("not supported")},
			{`"echo":1`, "echo", says("wrong type")},
			{`"echo":true,"logprobs":0`, "echo", says("cannot stand beside logprobs (0)")},
			{`"tools":` + weather, "tools", says("not supported")},
			{`"input":"x"`, "input", says(`did you mean "prompt"?`)},
		},
	} {
		for _, b := range bad {
			url := ChatCompletions
			if start == completion {
				url = Completions
			}
			requireFault(t, url, start+b.json+`}`, b.field, b.says...)
		}
	}
}

func TestParseRequestFaultsOfTools(t *testing.T) {
	t.Parallel()
	tool := func(function string) string { return `"tools":[{"type":"function","function":` + function + `}]` }
	for _, b := range []badField{
		{`"tools":{}`, "tools", says("wrong type", "a list")},
		{`"tools":[5]`, "tools[0]", says("wrong type")},
		{`"tools":[` + strings.Repeat(`{},`, 128) + `{}]`, "tools", says("129 tools", "up to 128")},
		{`"tools":[{"function":{"name":"f"}}]`, "tools[0].type", says("missing", `"function"`)},
		{`"tools":[{"type":"web_search"}]`, "tools[0].type", says("not supported", `"web_search"`)},
		{`"tools":[{"type":7}]`, "tools[0].type", says("wrong type")},
		{`"tools":[{"type":"function"}]`, "tools[0].function", says("missing")},
		{`"tools":[{"type":"function","function":{"name":"f"},"name":"f"}]`, "tools[0].name", says("unknown field")},
		{tool(`"f"`), "tools[0].function", says("wrong type")},
		{tool(`{}`), "tools[0].function.name", says("missing")},
		{tool(`{"name":5}`), "tools[0].function.name", says("wrong type")},
		{tool(`{"name":"get weather"}`), "tools[0].function.name", says("not a name", "letters")},
		{tool(`{"name":"` + strings.Repeat("f", 65) + `"}`), "tools[0].function.name", says("not a name", "64")},
		{tool(`{"name":"f","parameters":"none"}`), "tools[0].function.parameters", says("wrong type", "JSON Schema")},
		{tool(`{"name":"f","description":5}`), "tools[0].function.description", says("wrong type")},
		{tool(`{"name":"f","strict":true}`), "tools[0].function.strict", says("not supported", "false")},
		{tool(`{"name":"f","params":{}}`), "tools[0].function.params", says("unknown field")},
		{`"tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}]`, "tools[1].function.name", says("given twice", `"f"`)},
		{`"tools":` + weather + `,"tool_choice":"required"`, "tool_choice", says("not supported", `"required"`, `"auto", "none"`)},
		{`"tools":` + weather + `,"tool_choice":{"type":"function","function":{"name":"get_weather"}}`, "tool_choice", says("not supported")},
		{`"tools":` + weather + `,"parallel_tool_calls":false`, "parallel_tool_calls", says("cannot stand beside tools")},
		{`"parallel_tool_calls":1`, "parallel_tool_calls", says("wrong type")},
		{`"functions":[{"name":"f"}]`, "functions", says("not supported")},
		{`"function_call":"auto"`, "function_call", says("not supported")},
	} {
		requireFault(t, ChatCompletions, `{`+hello+`,`+b.json+`}`, b.field, b.says...)
	}
}

func TestParseRequestFaultsOfToolMessages(t *testing.T) {
	t.Parallel()
	calls := func(call string) string { return `{"role":"assistant","tool_calls":[` + call + `]}` }
	for _, b := range []badField{
		{`{"role":"function","content":"x"}`, "messages[0].role", says("not supported", "tool")},
		{`{"role":"tool","content":"x"}`, "messages[0].tool_call_id", says("missing")},
		{`{"role":"tool","tool_call_id":"1"}`, "messages[0].content", says("missing")},
		{`{"role":"tool","content":"x","tool_call_id":""}`, "messages[0].tool_call_id", says("empty")},
		{`{"role":"user","content":"x","tool_call_id":"1"}`, "messages[0].tool_call_id", says(`role ("user")`, "tool")},
		{`{"role":"user","content":"x","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}`, "messages[0].tool_calls", says(`role ("user")`, "assistant")},
		{`{"role":"assistant","content":null,"tool_calls":[]}`, "messages[0].content", says("missing")},
		{`{"role":"assistant","content":"x","refusal":"no"}`, "messages[0].refusal", says("not supported")},
		{`{"role":"assistant","content":"x","function_call":{}}`, "messages[0].function_call", says("not supported")},
		{`{"role":"assistant","tool_calls":{}}`, "messages[0].tool_calls", says("wrong type")},
		{calls(`5`), "messages[0].tool_calls[0]", says("wrong type")},
		{calls(`{"type":"function","function":{"name":"f","arguments":"{}"}}`), "messages[0].tool_calls[0].id", says("missing")},
		{calls(`{"id":5,"type":"function","function":{"name":"f","arguments":"{}"}}`), "messages[0].tool_calls[0].id", says("wrong type")},
		{calls(`{"id":"1","function":{"name":"f","arguments":"{}"}}`), "messages[0].tool_calls[0].type", says("missing")},
		{calls(`{"id":"1","type":"custom"}`), "messages[0].tool_calls[0].type", says("not supported")},
		{calls(`{"id":"1","type":"function"}`), "messages[0].tool_calls[0].function", says("missing")},
		{calls(`{"id":"1","type":"function","function":{"arguments":"{}"}}`), "messages[0].tool_calls[0].function.name", says("missing")},
		{calls(`{"id":"1","type":"function","function":{"name":"f"}}`), "messages[0].tool_calls[0].function.arguments", says("missing")},
		{calls(`{"id":"1","type":"function","function":{"name":"f","arguments":[]}}`), "messages[0].tool_calls[0].function.arguments", says("wrong type", "object")},
		{calls(`{"id":"1","type":"function","function":{"name":"f","arguments":"","x":1}}`), "messages[0].tool_calls[0].function.x", says("unknown field")},
		{calls(`{"id":"1","type":"function","index":0,"function":{"name":"f","arguments":""}}`), "messages[0].tool_calls[0].index", says("unknown field")},
	} {
		requireFault(t, ChatCompletions, `{"messages":[`+b.json+`]}`, b.field, b.says...)
	}
}

func TestParseRequestFaultsOfEmbeddings(t *testing.T) {
	t.Parallel()
	for _, b := range []badField{
		{``, "input", says("missing")},
		{`"input":null`, "input", says("missing")},
		{`"input":""`, "input", says("empty")},
		{`"input":[]`, "input", says("0 texts", "1 to 2048")},
		{`"input":["x"` + strings.Repeat(`,"x"`, 2048) + `]`, "input", says("2049 texts")},
		{`"input":["a",""]`, "input[1]", says("empty")},
		{`"input":["a",true]`, "input[1]", says("wrong type")},
		{`"input":[1,2]`, "input[0]", says("token ids are not supported", "a string")},
		{`"input":[[1,2]]`, "input[0]", says("token ids are not supported")},
		{`"input":5`, "input", says("wrong type")},
		{`"input":"x","encoding_format":"hex"`, "encoding_format", says("not supported", `"float", "base64"`)},
		{`"input":"x","encoding_format":1`, "encoding_format", says("wrong type")},
		{`"input":"x","dimensions":256`, "dimensions", says("not supported", "256")},
		{`"input":"x","user":1`, "user", says("wrong type")},
		{`"input":"x","temperature":1`, "temperature", says("unknown field")},
		{`"prompt":"x"`, "prompt", says(`did you mean "input"?`)},
		{`"messages":[]`, "messages", says(`did you mean "input"?`)},
	} {
		requireFault(t, Embeddings, `{`+b.json+`}`, b.field, b.says...)
	}
}
