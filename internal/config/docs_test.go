package config

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The manual's page of settings is this package's table under an introduction.
// TEMPO_UPDATE_DOCS=1 go test ./internal/config -run TestReferencePage writes it.
func TestReferencePage(t *testing.T) {
	t.Parallel()
	const path = "../../docs/configuration.md"
	want := referenceIntroduction + Reference()
	if os.Getenv("TEMPO_UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "the page is not up to date: run TEMPO_UPDATE_DOCS=1 go test ./internal/config -run TestReferencePage")
}

const referenceIntroduction = `# Settings

Each setting can be given as a flag, as an environment variable, and as a key of
the file that ` + "`--config`" + ` or ` + "`TEMPO_CONFIG`" + ` names. The flag wins over
` + "`TEMPO_*`" + `, that over another tool's variable (` + "`NATS_URL`" + `, ` + "`HF_TOKEN`" + `, …), that over the
file, and the file over the default. The file is YAML, TOML or JSON, told by its
ending.

An unknown key, an unknown ` + "`TEMPO_*`" + ` variable, a wrong type and a value out of
range are errors that name the key, the value, where it came from and what is
allowed. All of them are reported at once.

One file serves both commands: a command accepts the keys of the other one. The
keys of TEMPO's ` + "`config.yaml`" + ` are accepted; those that have no effect here (relative
attention, MCTS, …) are named in a warning.

A setting that can be given several times (` + "`model`" + `) is a flag that is repeated, a
variable with commas or line breaks between the values (a comma of a value is written
` + "`\\,`" + `), and a list in the file. ` + "[Models](models.md)" + ` says more of it.

The flags of ` + "`worker`" + ` are those of memory, engine, connection and log. ` + "`submit run`" + `
has these and its own, from ` + "`output`" + ` on.

## Several tokens at one position

` + "`selection_threshold`" + ` asks for TEMPO's way to generate, for all lines that do not say
([Requests](requests.md#several-tokens-at-one-position) has what each setting means in a line):

` + "```sh" + `
bin/submit run prompts.jsonl --local --max-tokens 60 --selection-threshold 0.1 --use-retroactive-removal --attention-threshold 0.3
` + "```" + `

The settings from ` + "`isolate`" + ` on refine it, and so do ` + "`max_parallel_tokens`" + ` and
` + "`max_cache_tokens`" + `, which with ` + "`--local`" + ` are the worker's limits too. What a flag or a variable gives
and would have no effect is an error that names the missing flag: ` + "`--isolate`" + ` without
` + "`--selection-threshold`" + `, ` + "`--final-threshold`" + ` without ` + "`--dynamic-threshold`" + `, ` + "`--attention-threshold`" + `
without ` + "`--use-retroactive-removal`" + `, ` + "`--bezier-p1`" + ` beside ` + "`--use-relu`" + `, and, without
` + "`--local`" + `, ` + "`--max-parallel-tokens`" + ` without ` + "`--selection-threshold`" + `. A file can have all
of them, as TEMPO's has. ` + "`reproducible`" + ` and ` + "`temperature`" + ` 0 stand for one token at each
position: beside ` + "`selection_threshold`" + ` they are errors, wherever they come from.
` + "`--default-mode`" + ` switches all of it off, but for lines that have a ` + "`tempo`" + ` of their own.

Two keys of TEMPO's say in another way what others say, in a file or as a variable; the others
win over them:

- ` + "`bezier_points`" + `, a list (a variable: ` + "`0.2,0.8`" + `), is ` + "`bezier_p1`" + ` and ` + "`bezier_p2`" + `.
- ` + "`allow_intraset_token_visibility: false`" + ` is ` + "`isolate: true`" + `, and ` + "`true`" + ` is ` + "`false`" + `. Without
  either key the tokens of a set see each other, as in TEMPO since it has ` + "`isolate`" + `; before, its
  default was that they do not.

` + "`attention_threshold`" + ` 0.01 is TEMPO's default, and removes next to nothing: a token of a set of
four has a quarter of the attention to it on the average, and hardly one a hundredth. ` + "[Parallel generation](parallel.md#retroactive-removal)" + `
has what other values do. The flags' Bézier curve with ` + "`bezier_p1`" + ` 0.3333 and ` + "`bezier_p2`" + ` 0.6667 is the curve
` + "`linear`" + ` of a line. A large ` + "`max_parallel_tokens`" + ` has the worker make a KV cache for as many jobs:
give ` + "`max_cache_tokens`" + ` beside it.

## All settings

`
