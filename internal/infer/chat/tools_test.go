package chat_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/chat"
)

const tools = `[{"type":"function","function":{"name":"weather","description":"<now> & \"then\"","parameters":{"type":"object",` +
	`"properties":{"days":{"type":"integer","maximum":7.0},"city":{}},"required":[]}}}]`

// conversation has a question, the call, its result.
func conversation(arguments string) []api.Message {
	return []api.Message{
		message("user", "Is it warm?"),
		{Role: "assistant", ToolCalls: json.RawMessage(`[{"id":"abcdefghi","type":"function","function":{"name":"weather","arguments":` + arguments + `}}]`)},
		{Role: "tool", ToolCallID: "abcdefghi", Content: `{"t": "21°"}`},
	}
}

// given is nil for "".
func given(tools string) json.RawMessage {
	if tools == "" {
		return nil
	}
	return json.RawMessage(tools)
}

func newTemplate(t *testing.T, source string) *chat.Template {
	t.Helper()
	tmpl, err := chat.New(source, "<s>", "</s>")
	require.NoError(t, err)
	return tmpl
}

func TestRenderTools(t *testing.T) {
	t.Parallel()
	const asString = `"{\"days\": 2, \"city\": \"Paris & <Rome>\"}"`
	const qwenCall = "<|im_start|>user\nIs it warm?<|im_end|>\n" +
		"<|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"days\": 2, \"city\": \"Paris & <Rome>\"}}\n</tool_call><|im_end|>\n" +
		"<|im_start|>user\n<tool_response>\n{\"t\": \"21°\"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
	for _, c := range []struct {
		name, template string
		messages       []api.Message
		tools          string
		want           string
	}{
		{
			"Qwen", qwen, conversation(asString), tools,
			"<|im_start|>system\nYou are a helpful assistant.\n\n# Tools\n<tools>\n" +
				`{"type": "function", "function": {"name": "weather", "description": "<now> & \"then\"", "parameters": {"type": "object", ` +
				`"properties": {"days": {"type": "integer", "maximum": 7.0}, "city": {}}, "required": []}}}` +
				"\n</tools><|im_end|>\n" + qwenCall,
		},
		{"Qwen, arguments as an object, no tools", qwen, conversation(`{"days":2,"city":"Paris & <Rome>"}`), "", qwenCall},
		{
			"Qwen, a call with a text", qwen,
			[]api.Message{message("user", "q"), {Role: "assistant", Content: "Wait.", ToolCalls: conversation(`""`)[1].ToolCalls}},
			"",
			"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nWait.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call><|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"Qwen, arguments that are no JSON", qwen, conversation(`"Paris"`)[:2], "",
			"<|im_start|>user\nIs it warm?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \"arguments\": \"Paris\"}\n</tool_call><|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"Llama", llama, conversation(asString), tools,
			"<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n" + `{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "<now> & \"then\"",
        "parameters": {
            "type": "object",
            "properties": {
                "days": {
                    "type": "integer",
                    "maximum": 7.0
                },
                "city": {}
            },
            "required": []
        }
    }
}` + "\n\nIs it warm?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" +
				`{"name": "weather", "parameters": {"days": 2, "city": "Paris & <Rome>"}}` +
				"<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n" + `"{\"t\": \"21°\"}"` +
				"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
		},
		{
			"Llama without tools", llama,
			[]api.Message{message("user", "Hi")},
			"",
			"<s><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>" +
				"<|start_header_id|>assistant<|end_header_id|>\n\n",
		},
		{
			"DeepSeek", deepSeek, conversation(asString), "",
			"[U]Is it warm?[C]function weather\n{\"days\": 2, \"city\": \"Paris & <Rome>\"}\n[R]{\"t\": \"21°\"}",
		},
		{
			"DeepSeek, arguments as an object", deepSeek, conversation(`{"days":2}`)[:2], "",
			"[U]Is it warm?[C]function weather\n{\"days\":2}\n",
		},
		{
			"a content that must be a string", splitting, conversation(`{"city":"Paris"}`), "",
			`user:Is it warm?;assistant:abcdefghiweather city=Paris;tool:{"t": "21°"};`,
		},
		{
			"OpenAI's newer name of the system", chat.ChatML,
			[]api.Message{message("developer", "S"), message("user", "q")},
			"",
			"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := newTemplate(t, c.template).Render(c.messages, given(c.tools))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// What the template would leave out is refused.
func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	silent := `{% for m in messages %}{% if m.role == 'user' or m.role == 'assistant' and m.content %}{{ m.content }}{% endif %}{% endfor %}`
	for _, c := range []struct {
		name, template string
		messages       []api.Message
		tools          string
		param, says    string
	}{
		{"tools", chat.ChatML, []api.Message{message("user", "q")}, tools, "tools", "tools: the model's chat template has no place for tools"},
		{"calls", chat.ChatML, conversation(`"{}"`)[:2], "", "messages[1].tool_calls", "no place for calls of tools"},
		{"results", silent, append(conversation(`"{}"`)[:1:1], conversation(`"{}"`)[2]), "", "messages[1].role", "no place for results of tools"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := newTemplate(t, c.template).Render(c.messages, given(c.tools))
			var refused *infer.RequestError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, c.param, refused.Param)
			require.Contains(t, refused.Message, c.says)
			require.Contains(t, refused.Hint(), "leave them out")
		})
	}
}

func TestRenderRaisesOverTools(t *testing.T) {
	t.Parallel()
	messages := conversation(`"{}"`)[:2]
	messages[1].ToolCalls = json.RawMessage(`[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}},` +
		`{"id":"2","type":"function","function":{"name":"f","arguments":"{}"}}]`)
	_, err := newTemplate(t, llama).Render(messages, json.RawMessage(tools))
	require.ErrorContains(t, err, "only supports single tool-calls at once")
}

func TestRenderFilters(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		`{{ tools[0].function.parameters | tojson(separators=(',', ':')) }}`: `{"type":"object","properties":{"days":{"type":"integer","maximum":7.0},"city":{}},"required":[]}`,
		`{{ [1, -2.5, true, none, 'a/b'] | tojson }}`:                        `[1, -2.5, true, null, "a/b"]`,
		`{{ [1, [], {'a': []}]|tojson(indent=2) }}`:                          "[\n  1,\n  [],\n  {\n    \"a\": []\n  }\n]",
		`{{ messages[0].content | tojson(ensure_ascii=False) }}`:             `"\t\"\\\n\r\b\f\u0001 é<"`,
		`{{ [100000.0, 0.00001, 10000000000000000.0] | tojson }}`:            `[100000.0, 1e-05, 1e+16]`,
		`{{ (tools | tojson | length) > 10 }}`:                               `True`,
	} {
		got, err := newTemplate(t, template+`{{ tools | length }}`).Render([]api.Message{message("user", "\t\"\\\n\r\b\f\x01\u2028é<")}, json.RawMessage(tools))
		require.NoError(t, err, template)
		require.Equal(t, want+"1", got, template)
	}
	_, err := newTemplate(t, `{{ 'a' | tojson(separators=[1]) }}`).Render(nil, nil)
	require.ErrorContains(t, err, "separators")
}

func TestRenderDate(t *testing.T) {
	t.Parallel()
	tmpl := newTemplate(t, `{{ strftime_now("%d %b %Y") }}`)
	const layout = "02 Jan 2006"
	before := time.Now().Format(layout)
	got, err := tmpl.Render(nil, nil)
	require.NoError(t, err)
	require.Contains(t, []string{before, time.Now().Format(layout)}, got)
}

// A template that breaks the interpreter is an error of the job, not the engine's end.
func TestRenderPanics(t *testing.T) {
	t.Parallel()
	_, err := newTemplate(t, `{{ 'a' * -1 }}`).Render(nil, nil)
	require.ErrorContains(t, err, "apply the model's chat template: strings: negative Repeat count")
}

func TestRenderBrokenTools(t *testing.T) {
	t.Parallel()
	tmpl := newTemplate(t, qwen)
	_, err := tmpl.Render([]api.Message{message("user", "q")}, json.RawMessage(`[`))
	require.ErrorContains(t, err, "read tools")
	_, err = tmpl.Render([]api.Message{{Role: "assistant", ToolCalls: json.RawMessage(`{}`)}}, nil)
	require.ErrorContains(t, err, "read messages[0].tool_calls")
}
