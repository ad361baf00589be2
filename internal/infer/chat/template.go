// Package chat turns messages into a prompt with the model's own chat template,
// a Jinja program that stands in the model file.
package chat

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sync"

	"github.com/ardanlabs/jinja"

	"tempo/api"
)

// ChatML is the template of models whose file has none.
const ChatML = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}`

// Template renders messages. It is safe for concurrent use.
type Template struct {
	mu       sync.Mutex // the interpreter makes no promise about concurrent use
	compiled *jinja.Template
	bos, eos string
	calls    callForm
}

// jsonFilter is the name of this package's tojson: the interpreter's own sorts the
// names of an object where it indents, and does not let itself be replaced.
const jsonFilter = "tojson_as_python"

// New compiles a template's source. bos and eos are the texts of the model's
// tokens for the beginning and end of a text, which templates may name.
func New(source, bos, eos string) (*Template, error) {
	source = regexp.MustCompile(`\|\s*tojson\b`).ReplaceAllString(source, "|"+jsonFilter)
	compiled, err := jinja.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("compile the model's chat template: %w", err)
	}
	t := &Template{compiled: compiled, bos: bos, eos: eos}
	t.calls = t.probe()
	return t, nil
}

// Render returns the prompt of a chat, up to where the assistant's answer
// begins. tools are the functions that the model may call, in OpenAI's form; nil = none.
//
// An error is the template's: it refused the order of the roles, say. It is
// an *infer.RequestError where the template has no place for the tools, for the calls
// in a message or for their results, and would leave them out.
func (t *Template) Render(messages []api.Message, tools json.RawMessage) (string, error) {
	text, err := t.render(messages, tools, t.calls)
	if err != nil {
		return "", err
	}
	if err := t.leftOut(text, messages, tools); err != nil {
		return "", err
	}
	return text, nil
}

// render runs the template once. As in transformers, from where the templates come,
// tools are none if there are none, not undefined.
func (t *Template) render(messages []api.Message, tools json.RawMessage, form callForm) (text string, err error) {
	list := make([]jinja.Value, len(messages))
	for i, m := range messages {
		if list[i], err = form.message(m); err != nil {
			return "", fmt.Errorf("read messages[%d].tool_calls: %w", i, err)
		}
	}
	functions := jinja.None()
	if tools != nil {
		if functions, err = decode(tools); err != nil {
			return "", fmt.Errorf("read tools: %w", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { // a template can make the interpreter panic, which must not end the engine
		if fault := recover(); fault != nil {
			text, err = "", fmt.Errorf("apply the model's chat template: %v", fault)
		}
	}()
	text, err = t.compiled.RenderValues(map[string]jinja.Value{
		"messages":              jinja.NewList(list),
		"tools":                 functions,
		"add_generation_prompt": jinja.NewBool(true),
		"bos_token":             jinja.NewString(t.bos),
		"eos_token":             jinja.NewString(t.eos),
		jsonFilter:              jinja.NewCallable(jsonFilter, toJSON),
	})
	if err != nil {
		return "", fmt.Errorf("apply the model's chat template: %w", err)
	}
	return text, nil
}
