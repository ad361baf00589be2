package toolcall_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/infer/toolcall"
)

func call(name, arguments string) toolcall.Call {
	return toolcall.Call{Name: name, Arguments: arguments}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text, rest string
		calls            []toolcall.Call
	}{
		{
			"Hermes", "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>", "",
			[]toolcall.Call{call("weather", `{"city": "Paris"}`)},
		},
		{
			"Hermes, several with a text",
			"Let me see.\n<tool_call>{\"name\":\"weather\",\"arguments\":{\"a\":{\"b\":[1]}}}</tool_call>\n<tool_call>{\"name\":\"time\",\"arguments\":{}}</tool_call>\n",
			"Let me see.",
			[]toolcall.Call{call("weather", `{"a":{"b":[1]}}`), call("time", `{}`)},
		},
		{
			"Hermes, the last mark is missing", `<tool_call>{"name":"time","arguments":{}}`, "",
			[]toolcall.Call{call("time", `{}`)},
		},
		{
			"a mark in an argument", `<tool_call>{"name":"time","arguments":{"a":"</tool_call>"}}</tool_call>`, "",
			[]toolcall.Call{call("time", `{"a":"</tool_call>"}`)},
		},
		{
			"arguments in a string", `<tool_call>{"name":"time","arguments":"{\"a\": 1}"}</tool_call>`, "",
			[]toolcall.Call{call("time", `{"a": 1}`)},
		},
		{"no arguments", `<tool_call>{"name":"time","arguments":null}</tool_call>`, "", []toolcall.Call{call("time", `{}`)}},
		{"empty arguments", `<tool_call>{"name":"time","arguments":""}</tool_call>`, "", []toolcall.Call{call("time", `{}`)}},
		{
			"Llama 3", "\n\n{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}", "",
			[]toolcall.Call{call("weather", `{"city": "Paris"}`)},
		},
		{
			"Llama 3, with its mark and a type", `<|python_tag|>{"type": "function", "name": "time", "parameters": {}}`, "",
			[]toolcall.Call{call("time", `{}`)},
		},
		{
			"Llama 3, several", `{"name":"time","parameters":{}}; {"name":"weather","parameters":{"city":"Rome"}}`, "",
			[]toolcall.Call{call("time", `{}`), call("weather", `{"city":"Rome"}`)},
		},
		{
			"Mistral", ` [TOOL_CALLS] [{"name":"weather","arguments":{"city":"Paris"},"id":"abcdefghi"},{"name":"time","arguments":{}}]`, "",
			[]toolcall.Call{call("weather", `{"city":"Paris"}`), call("time", `{}`)},
		},
		{
			"Mistral, a text before", `Wait.[TOOL_CALLS][{"name":"time","arguments":{}}]`, "Wait.",
			[]toolcall.Call{call("time", `{}`)},
		},
		{"Mistral, its mark is not shown", ` [{"name":"time","arguments":{}}]`, "", []toolcall.Call{call("time", `{}`)}},
		{
			"newer Mistral", `[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]time[ARGS]{}`, "",
			[]toolcall.Call{call("weather", `{"city": "Paris"}`), call("time", `{}`)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rest, calls := toolcall.Find(c.text, []string{"weather", "time"})
			require.Equal(t, c.rest, rest)
			require.Equal(t, c.calls, calls)
		})
	}
}

func TestFindLeavesTheText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "It is 12 o'clock.", "{", "[]", "{}", "5", `"time"`, "null", "[null]",
		`{"name":"time"}`, `{"name":"time","arguments":[1]}`, `{"name":"time","arguments":"now"}`, `{"name":"time","arguments":5}`,
		`{"name":5,"arguments":{}}`, `{"name":"","arguments":{}}`, `{"name":"other","arguments":{}}`, `{"arguments":{}}`,
		`The call is {"name":"time","arguments":{}}`, `{"name":"time","arguments":{}} is the call`,
		`{"name":"time","arguments":{}}; {"name":"other","arguments":{}}`,
		`[{"name":"time","arguments":{}},{"name":"other","arguments":{}}]`,
		`<tool_call>{"name":"other","arguments":{}}</tool_call>`,
		`<tool_call>{"name":"time","arguments":{}}</tool_call><tool_call>{"name":"time","argu`,
		`<tool_call>{"name":"time","arguments":{"a":`,
		`<tool_call>{"name":"time","arguments":{}} and so on</tool_call>`,
		`<tool_call></tool_call>`, `<tool_call>`,
		`[TOOL_CALLS]`, `[TOOL_CALLS][]`, `[TOOL_CALLS][{"name":"time"}]`, `[TOOL_CALLS]time`, `[TOOL_CALLS]other[ARGS]{}`,
		`[TOOL_CALLS]time[ARGS]{"a":1`, `[TOOL_CALLS]time[ARGS]{} or so`, `[TOOL_CALLS]time[ARGS]5`,
	} {
		rest, calls := toolcall.Find(text, []string{"weather", "time"})
		require.Equal(t, text, rest)
		require.Nil(t, calls, text)
	}
	rest, calls := toolcall.Find(`{"name":"time","arguments":{}}`, nil)
	require.Equal(t, `{"name":"time","arguments":{}}`, rest) //nolint:testifylint // byte for byte
	require.Nil(t, calls)
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"f", "g"}, toolcall.Names(json.RawMessage(
		`[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g","parameters":{}}}]`)))
	require.Empty(t, toolcall.Names(nil))
}

// Whatever a model writes, a call is of a known tool and has an object for arguments.
func FuzzFind(f *testing.F) {
	f.Add(`<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>`)
	f.Add(`{"name":"f","parameters":{}};{"name":"f","parameters":"{}"}`)
	f.Add(`a[TOOL_CALLS][{"name":"f","arguments":null}]`)
	f.Add(`[TOOL_CALLS]f[ARGS]{}`)
	f.Fuzz(func(t *testing.T, text string) {
		rest, calls := toolcall.Find(text, []string{"f"})
		if len(calls) == 0 {
			require.Equal(t, text, rest)
		}
		for _, c := range calls {
			require.Equal(t, "f", c.Name)
			var arguments map[string]any
			require.NoError(t, json.Unmarshal([]byte(c.Arguments), &arguments))
		}
	})
}

func ExampleFind() {
	text := `I'll look it up. <tool_call>{"name":"weather","arguments":{"city":"Oslo"}}</tool_call>`
	rest, calls := toolcall.Find(text, []string{"weather"})
	fmt.Println(rest)
	fmt.Println(calls[0].Name, calls[0].Arguments)
	// Output:
	// I'll look it up.
	// weather {"city":"Oslo"}
}
