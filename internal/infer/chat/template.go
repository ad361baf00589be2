// Package chat turns messages into a prompt with the model's own chat template,
// a Jinja program that stands in the model file.
package chat

import (
	"fmt"
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
}

// New compiles a template's source. bos and eos are the texts of the model's
// tokens for the beginning and end of a text, which templates may name.
func New(source, bos, eos string) (*Template, error) {
	compiled, err := jinja.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("compile the model's chat template: %w", err)
	}
	return &Template{compiled: compiled, bos: bos, eos: eos}, nil
}

// Render returns the prompt of a chat, up to where the assistant's answer
// begins. An error is the template's: it refused the order of the roles, say.
func (t *Template) Render(messages []api.Message) (string, error) {
	list := make([]any, len(messages))
	for i, m := range messages {
		entry := map[string]any{"role": m.Role, "content": m.Content}
		if m.Name != "" {
			entry["name"] = m.Name
		}
		list[i] = entry
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	text, err := t.compiled.Render(map[string]any{
		"messages":              list,
		"add_generation_prompt": true,
		"bos_token":             t.bos,
		"eos_token":             t.eos,
	})
	if err != nil {
		return "", fmt.Errorf("apply the model's chat template: %w", err)
	}
	return text, nil
}
