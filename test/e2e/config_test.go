package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfiguration(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(t, "config.yaml", "max_parallel_tokens: 2\nmax_tokens: 3\n")
	h.write(t, "config.toml", "max_parallel_tokens = 2\n")
	h.write(t, "config.json", `{"max_parallel_tokens": 2}`)
	for name, test := range map[string]struct {
		env  []string
		args []string
		want string
	}{
		"YAML":        {nil, []string{"--config", "config.yaml"}, ", 2 tokens a step"},
		"TOML":        {nil, []string{"--config", "config.toml"}, ", 2 tokens a step"},
		"JSON":        {nil, []string{"--config", "config.json"}, ", 2 tokens a step"},
		"environment": {[]string{"TEMPO_MAX_PARALLEL_TOKENS=3", "TEMPO_CONFIG=config.yaml"}, nil, ", 3 tokens a step"},
		"flag": {
			[]string{"TEMPO_MAX_PARALLEL_TOKENS=3", "TEMPO_CONFIG=config.yaml"}, []string{"--max-parallel-tokens", "4"}, ", 4 tokens a step",
		},
		"cache": {nil, []string{"--max-cache-tokens", "512"}, "at most 512 tokens in the KV cache"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"run", "--prompt", "hello", "--max-tokens", "5", "--local", "--model", tiny, "--store-dir", t.TempDir()}, test.args...)
			p := h.start(t, test.env, "submit", args...)
			require.Equal(t, 0, p.wait(20*time.Second))
			require.Contains(t, p.stderr.String(), test.want)
		})
	}
}

func TestAncestorsConfiguration(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	text, err := os.ReadFile(filepath.Join("testdata", "tempo_config.yaml"))
	require.NoError(t, err)
	h.write(t, "config.yaml", string(text))
	p := h.start(t, nil, "submit", "run", "--config", "config.yaml", "--local", "--model", tiny, "-o", "results.jsonl")
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Empty(t, p.stdout.String())
	results := read(t, h.path("results.jsonl"))
	requireOnce(t, results, 1)
	require.NotNil(t, results[0].Tempo.Parallel, "it has a selection threshold")
	named := 0
	for l := range strings.Lines(p.stderr.String()) {
		if strings.Contains(l, "use_mcts") && strings.Contains(l, "no effect") {
			require.NotContains(t, l, "selection_threshold", "it has one")
			named++
		}
	}
	require.Equal(t, 1, named)
}

// Flags for several tokens at one position reach the lines; a line that cannot stand with
// them is refused, and a flag without effect is wrong usage.
func TestFlagsOfSets(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(t, "prompts.jsonl", `{"prompt":"hello","max_tokens":3}
{"prompt":"hello","max_tokens":3,"n":2}
{"prompt":"hello","max_tokens":3,"n":2,"tempo":{}}
`)
	p := h.start(t, nil, "submit", "run", "prompts.jsonl", "--local", "--model", tiny, "--selection-threshold", "0.1", "--isolate", "--errors", "errors.jsonl")
	require.Equal(t, 3, p.wait(20*time.Second))
	requireOnce(t, parse(t, p.stdout.String()), 2)
	text, err := os.ReadFile(h.path("errors.jsonl"))
	require.NoError(t, err)
	require.Contains(t, string(text), "prompts.jsonl:2: n: cannot stand beside --selection-threshold, got 2, allowed: 1")

	p = h.start(t, nil, "submit", "run", "prompts.jsonl", "--local", "--isolate")
	require.Equal(t, 2, p.wait(20*time.Second))
	require.Contains(t, p.stderr.String(), "isolate: given (from flag --isolate) without --selection-threshold")
	require.Contains(t, p.stderr.String(), "hint: add --selection-threshold, or leave out isolate")
}

// The answer to a prompt of the command line is text for people, and submit show draws the
// sets of a result in a file.
func TestSetsAreShown(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	args := []string{"run", "--prompt", "hello", "--max-tokens", "8", "--local", "--model", tiny, "--selection-threshold", "0.02"}
	p := h.start(t, nil, "submit", args...)
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Regexp(t, `\[.*/.*\]`, p.stdout.String())
	require.NotContains(t, p.stdout.String(), "\x1b", "colours where nobody looks")
	require.NotContains(t, p.stdout.String(), `"custom_id"`)

	p = h.start(t, nil, "submit", append(args, "-o", "results.jsonl")...)
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Empty(t, p.stdout.String())
	p = h.start(t, nil, "submit", "show", "results.jsonl")
	require.Equal(t, 1, p.wait(20*time.Second))
	require.Contains(t, p.stderr.String(), "hint: ask for return_parallel_sets, or --return-parallel-sets")

	p = h.start(t, nil, "submit", append(args, "-o", "results.jsonl", "--return-parallel-sets")...)
	require.Equal(t, 0, p.wait(20*time.Second))
	p = h.start(t, nil, "submit", "show", "results.jsonl:1")
	require.Equal(t, 0, p.wait(20*time.Second))
	require.Equal(t, "results.html\n", p.stdout.String())
	page, err := os.ReadFile(h.path("results.html"))
	require.NoError(t, err)
	require.Equal(t, 8, strings.Count(string(page), `<li class="p`), "a position for each of max_tokens")
}
