package chat_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer/chat"
)

// smolLM2 is the template in SmolLM2-135M-Instruct's model file.
const smolLM2 = `{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}`

func message(role, content string) api.Message { return api.Message{Role: role, Content: content} }

func TestRender(t *testing.T) {
	t.Parallel()
	smol, err := chat.New(gguf.DefaultChatTemplate, "<|im_start|>", "<|im_end|>")
	require.NoError(t, err)
	given, err := chat.New(smolLM2, "<|im_start|>", "<|im_end|>")
	require.NoError(t, err)
	chatML, err := chat.New(chat.ChatML, "", "")
	require.NoError(t, err)
	for _, c := range []struct {
		name     string
		template *chat.Template
		messages []api.Message
		want     string
	}{
		{
			"the template's own system message", smol,
			[]api.Message{message("user", "Hi")},
			"<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"SmolLM2's own system message", given,
			[]api.Message{message("user", "Hi")},
			"<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
				"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"SmolLM2 with a system message", given,
			[]api.Message{message("system", "S"), message("user", "Hi")},
			"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"a system message", smol,
			[]api.Message{message("system", "Be brief."), message("user", "Hi")},
			"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"several turns", smol,
			[]api.Message{message("system", "S"), message("user", "one"), message("assistant", "1"), message("user", "two")},
			"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n" +
				"<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"text that looks like a template", smol,
			[]api.Message{message("system", "{{ 1 + 1 }}"), message("user", "{% if %} \"'\\ <b> ü 🙂\n\n")},
			"<|im_start|>system\n{{ 1 + 1 }}<|im_end|>\n<|im_start|>user\n{% if %} \"'\\ <b> ü 🙂\n\n<|im_end|>\n<|im_start|>assistant\n",
		},
		{
			"ChatML adds nothing", chatML,
			[]api.Message{message("user", "Hi")},
			"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
		},
		{"no messages", chatML, nil, "<|im_start|>assistant\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.template.Render(c.messages, nil)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestRenderVariables(t *testing.T) {
	t.Parallel()
	tmpl, err := chat.New(`{{ bos_token }}{% for m in messages %}{{ m['name'] if m['name'] is defined else '-' }}:{{ m.content | trim }}{% endfor %}{{ eos_token }}`, "<s>", "</s>")
	require.NoError(t, err)
	got, err := tmpl.Render([]api.Message{{Role: "user", Content: " a ", Name: "ann"}, {Role: "user", Content: "b"}}, nil)
	require.NoError(t, err)
	require.Equal(t, "<s>ann:a-:b</s>", got)
}

func TestRenderRaises(t *testing.T) {
	t.Parallel()
	tmpl, err := chat.New(`{% if messages[0]['role'] != 'user' %}{{ raise_exception('the user speaks first') }}{% endif %}ok`, "", "")
	require.NoError(t, err)
	_, err = tmpl.Render([]api.Message{message("assistant", "hello")}, nil)
	require.ErrorContains(t, err, "apply the model's chat template")
	require.ErrorContains(t, err, "the user speaks first")
	got, err := tmpl.Render([]api.Message{message("user", "hello")}, nil)
	require.NoError(t, err, "a refusal leaves no trace")
	require.Equal(t, "ok", got)
}

func TestNewBroken(t *testing.T) {
	t.Parallel()
	for _, source := range []string{"{% for %}", "{{ unclosed", "{% if true %}", "{% endfor %}"} {
		_, err := chat.New(source, "", "")
		require.ErrorContains(t, err, "compile the model's chat template", source)
	}
}

func TestRenderConcurrently(t *testing.T) {
	t.Parallel()
	tmpl, err := chat.New(gguf.DefaultChatTemplate, "", "")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 20 {
		content := strings.Repeat("x", i)
		wg.Go(func() {
			got, err := tmpl.Render([]api.Message{message("user", content)}, nil)
			if err != nil || !strings.Contains(got, "user\n"+content+"<|im_end|>") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
}
