package chat

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ardanlabs/jinja"

	"tempo/api"
	"tempo/internal/infer"
)

// callForm is how a template wants to be given an assistant's calls.
type callForm struct {
	text  bool // the arguments as JSON in a string, not as an object
	empty bool // a missing content as an empty string, not as none
}

// probe finds the form in which the template writes a call's arguments as they are.
// Most take an object and write it as JSON themselves; DeepSeek's takes a string, and
// looks for the calls only where the content is none. A template that writes no calls gets
// the first form.
func (t *Template) probe() callForm {
	const value = "a value"
	messages := []api.Message{{Role: "user", Content: "q"}, {Role: "assistant", ToolCalls: json.RawMessage(
		`[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":{"name":"` + value + `"}}}]`)}}
	tools := json.RawMessage(`[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{}}}}]`)
	for _, form := range []callForm{{}, {empty: true}, {text: true}, {text: true, empty: true}} {
		text, err := t.render(messages, tools, form)
		python := strings.Contains(text, "'"+value) // an object that was put into the text as it is
		quoted := strings.Contains(text, `\"`+value)
		if err == nil && strings.Contains(text, value) && !python && !quoted {
			return form
		}
	}
	return callForm{}
}

// message makes what the template sees of a message. The names are those that
// transformers documents, which are OpenAI's.
func (f callForm) message(m api.Message) (jinja.Value, error) {
	role := m.Role
	if role == "developer" { // OpenAI's newer name, which few templates know
		role = "system"
	}
	value := jinja.NewDict()
	entry := value.AsDict()
	entry.Set("role", jinja.NewString(role))
	entry.Set("content", jinja.NewString(m.Content))
	if m.Name != "" {
		entry.Set("name", jinja.NewString(m.Name))
	}
	if m.ToolCallID != "" {
		entry.Set("tool_call_id", jinja.NewString(m.ToolCallID))
	}
	if m.ToolCalls == nil {
		return value, nil
	}
	if m.Content == "" && !f.empty {
		entry.Set("content", jinja.None())
	}
	calls, err := f.toolCalls(m.ToolCalls)
	entry.Set("tool_calls", calls)
	return value, err
}

// toolCalls makes what the template sees of an assistant's calls.
func (f callForm) toolCalls(raw json.RawMessage) (jinja.Value, error) {
	var calls []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"`
		} `json:"function"`
	}
	if err := json.Unmarshal(raw, &calls); err != nil {
		return jinja.None(), fmt.Errorf("decode the calls: %w", err)
	}
	list := make([]jinja.Value, len(calls))
	for i, c := range calls {
		arguments, err := f.arguments(c.Function.Arguments)
		if err != nil {
			return jinja.None(), err
		}
		function, call := jinja.NewDict(), jinja.NewDict()
		function.AsDict().Set("name", jinja.NewString(c.Function.Name))
		function.AsDict().Set("arguments", arguments)
		call.AsDict().Set("id", jinja.NewString(c.ID))
		call.AsDict().Set("type", jinja.NewString("function"))
		call.AsDict().Set("function", function)
		list[i] = call
	}
	return jinja.NewList(list), nil
}

// arguments makes what the template sees of a call's arguments. OpenAI has them as
// JSON in a string; one that is no JSON object stays a string.
func (f callForm) arguments(raw json.RawMessage) (jinja.Value, error) {
	text := string(raw)
	var inner string
	if json.Unmarshal(raw, &inner) == nil {
		text = inner
	}
	if strings.TrimSpace(text) == "" {
		text = "{}"
	}
	value, err := decode([]byte(text))
	if err == nil && value.IsDict() && !f.text {
		return value, nil
	}
	return jinja.NewString(text), nil
}

// leftOut reports what the template has no place for: what can be changed without a
// change in the prompt.
func (t *Template) leftOut(text string, messages []api.Message, tools json.RawMessage) error {
	same := func(messages []api.Message, tools json.RawMessage) bool {
		other, err := t.render(messages, tools, t.calls)
		return err == nil && other == text
	}
	if tools != nil && same(messages, nil) {
		return refuse("tools", "tools", `leave them out (or "tool_choice":"none"), or take a model that was trained to call tools`)
	}
	const advice = "leave them out, or take a model that was trained to call tools"
	if at, changed := change(messages, func(m *api.Message) bool {
		had := m.ToolCalls != nil
		m.ToolCalls = nil
		return had
	}); at >= 0 && same(changed, tools) {
		return refuse(fmt.Sprintf("messages[%d].tool_calls", at), "calls of tools", advice)
	}
	if at, changed := change(messages, func(m *api.Message) bool {
		m.Content += "."
		return m.Role == "tool"
	}); at >= 0 && same(changed, tools) {
		return refuse(fmt.Sprintf("messages[%d].role", at), "results of tools", advice)
	}
	return nil
}

// change returns a copy of messages with those changed of which edit says so, and
// the first of them; -1 if there is none.
func change(messages []api.Message, edit func(*api.Message) bool) (first int, changed []api.Message) {
	first = -1
	for i, m := range messages {
		if edit(&m) {
			if first < 0 {
				first, changed = i, append([]api.Message(nil), messages...)
			}
			changed[i] = m
		}
	}
	return first, changed
}

func refuse(param, what, advice string) error {
	return &infer.RequestError{
		Param: param, Message: fmt.Sprintf("%s: the model's chat template has no place for %s", param, what), Advice: advice,
	}
}
