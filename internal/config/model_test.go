package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseModel(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Model{
		"":                             {},
		"/models/Qwen2.5-0.5B.gguf":    {"Qwen2.5-0.5B", "/models/Qwen2.5-0.5B.gguf"},
		"small=/models/m.gguf":         {"small", "/models/m.gguf"},
		"small=m.gguf":                 {"small", "m.gguf"},
		"./a=b.gguf":                   {"a=b", "./a=b.gguf"},
		"/models/a=/b.gguf":            {"b", "/models/a=/b.gguf"},
		"models/a=b.gguf":              {"a=b", "models/a=b.gguf"},
		"Qwen/Qwen2.5=/models/m":       {"Qwen/Qwen2.5", "/models/m"},
		"Qwen/Qwen2.5=hf://o/r/a.gguf": {"Qwen/Qwen2.5", "hf://o/r/a.gguf"},
		"SmolLM2-135M-Instruct":        {"SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"},
		"SmolLM2.Q4_1.gguf":            {"SmolLM2", "SmolLM2.Q4_1.gguf"},
		"hf://org/repo/q4/big-Q4_K_M-00001-of-00003.gguf":         {"big", "hf://org/repo/q4/big-Q4_K_M-00001-of-00003.gguf"},
		"hf://org/repo/small.Q8_0.gguf@refs/pr/1":                 {"small", "hf://org/repo/small.Q8_0.gguf@refs/pr/1"},
		"hf://org/repo/a=b.gguf":                                  {"a=b", "hf://org/repo/a=b.gguf"},
		"x=hf://org/repo/a.gguf@0123456789abcdef0123456789abcdef": {"x", "hf://org/repo/a.gguf@0123456789abcdef0123456789abcdef"},
		"=/models/m.gguf":                                         {"", "/models/m.gguf"},
		"name=":                                                   {"name", ""},
	} {
		require.Equal(t, want, ParseModel(text), text)
	}
}

// Models can be given in every way, one or several.
func TestModels(t *testing.T) {
	t.Parallel()
	several := []Model{{"a", "/m/a.gguf"}, {"b", "/m/b,c.gguf"}, {"big", "hf://org/repo/big.gguf@v1"}}
	one, comma := several[:1], []Model{{"a,b", "/m/a,b.gguf"}}
	yaml := "model:\n  - a=/m/a.gguf\n  - b=/m/b,c.gguf\n  - hf://org/repo/big.gguf@v1\n"
	for name, tt := range map[string]struct {
		args, environ []string
		file, text    string
		want          []Model
	}{
		"nothing":                    {want: []Model{}},
		"one flag":                   {args: []string{"--model=a=/m/a.gguf"}, want: one},
		"flags":                      {args: []string{"--model", "a=/m/a.gguf", "--model=b=/m/b,c.gguf", "--model=hf://org/repo/big.gguf@v1"}, want: several},
		"a flag with a comma":        {args: []string{`--model=/m/a,b.gguf`}, want: comma},
		"a flag with quotes":         {args: []string{`--model=/m/"a",[b].gguf`}, want: []Model{{`"a",[b]`, `/m/"a",[b].gguf`}}},
		"an empty flag":              {args: []string{"--model="}, want: []Model{}},
		"a variable":                 {environ: []string{"TEMPO_MODEL=/m/a.gguf"}, want: one},
		"a variable with commas":     {environ: []string{`TEMPO_MODEL=a=/m/a.gguf, b=/m/b\,c.gguf,hf://org/repo/big.gguf@v1`}, want: several},
		"a variable with lines":      {environ: []string{"TEMPO_MODEL=\na=/m/a.gguf\r\n  b=/m/b\\,c.gguf\nhf://org/repo/big.gguf@v1\n"}, want: several},
		"a variable, one with comma": {environ: []string{`TEMPO_MODEL=/m/a\,b.gguf`}, want: comma},
		"a text in YAML":             {file: "c.yaml", text: "model: /m/a.gguf", want: one},
		"a text with a comma":        {file: "c.yaml", text: `model: "/m/a,b.gguf"`, want: comma},
		"an empty text":              {file: "c.yaml", text: `model: ""`, want: []Model{}},
		"an empty list":              {file: "c.yaml", text: "model: []", want: []Model{}},
		"a list in YAML":             {file: "c.yaml", text: yaml, want: several},
		"a short list in YAML":       {file: "c.yaml", text: "model: [/m/a.gguf, 'b=/m/b,c.gguf', 'hf://org/repo/big.gguf@v1']", want: several},
		"a list in JSON":             {file: "c.json", text: `{"model": ["a=/m/a.gguf", "b=/m/b,c.gguf", "hf://org/repo/big.gguf@v1"]}`, want: several},
		"a list in TOML":             {file: "c.toml", text: `model = ["a=/m/a.gguf", "b=/m/b,c.gguf", "hf://org/repo/big.gguf@v1"]`, want: several},
		"a flag over all":            {args: []string{"--model=/m/a.gguf"}, environ: []string{"TEMPO_MODEL=x,y"}, file: "c.yaml", text: yaml, want: one},
		"a variable over a file":     {environ: []string{"TEMPO_MODEL=/m/a.gguf"}, file: "c.yaml", text: yaml, want: one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := tt.args
			if tt.file != "" {
				args = append(args, "--config", file(t, tt.file, tt.text))
			}
			c, err := load(t, args, tt.environ)
			require.NoError(t, err)
			require.Equal(t, tt.want, c.Engine.Models())
		})
	}
}

func TestModelFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		models []string
		says   string
	}{
		"no source":     {[]string{"name="}, `model: got "name=" (from flag --model), allowed: PATH, NAME=PATH, hf://ORG/REPO/FILE.gguf[@REVISION] or NAME=hf://…`},
		"no name":       {[]string{"=/m/a.gguf"}, `got "=/m/a.gguf" (from flag --model), allowed: PATH,`},
		"long name":     {[]string{strings.Repeat("n", 201) + "=a"}, "has 1 to 200 bytes"},
		"bad name":      {[]string{"a\tb=/m/a.gguf"}, `where NAME (here "a\tb") has`},
		"blank name":    {[]string{" a=/m/a.gguf"}, `no blank at its ends`},
		"no text":       {[]string{"a\xff=/m/a.gguf"}, "all printable"},
		"bad source":    {[]string{"a=/m/a\nb.gguf"}, "without control characters"},
		"no file":       {[]string{"hf://org/repo"}, "NAME=hf://…: it has no file behind ORG/REPO"},
		"no GGUF":       {[]string{"a=hf://org/repo/model.safetensors"}, `FILE is "model.safetensors", which does not end in .gguf`},
		"another part":  {[]string{"hf://org/repo/a-00004-of-00003.gguf"}, "there is no part 4 of 3"},
		"one name":      {[]string{"/m/a.Q4_0.gguf", "/m/a.Q8_0.gguf"}, `model: got "/m/a.Q4_0.gguf" and "/m/a.Q8_0.gguf" (from flag --model), which have one name, "a"; allowed: a name of its own for each`},
		"one name each": {[]string{"a=/m/x", "b=/m/y", "a=hf://o/r/z.gguf"}, `got "a=/m/x" and "a=hf://o/r/z.gguf"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var args []string
			for _, m := range tt.models {
				args = append(args, "--model="+m)
			}
			_, err := load(t, args, nil)
			require.ErrorContains(t, err, tt.says)
			require.NotContains(t, err.Error(), "\n", "one fault, one message")
		})
	}
	_, err := load(t, []string{"--model=a=/m/x", "--model=a=hf://o/r/z.gguf"}, nil)
	var fault *ModelNameError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, "put a name before one of them: NAME=hf://o/r/z.gguf", fault.Hint())
}
