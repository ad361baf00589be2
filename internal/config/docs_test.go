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
keys of TEMPO's ` + "`config.yaml`" + ` are accepted; those that have no effect here are
named in a warning.

A setting that can be given several times (` + "`model`" + `) is a flag that is repeated, a
variable with commas or line breaks between the values (a comma of a value is written
` + "`\\,`" + `), and a list in the file. ` + "[Models](models.md)" + ` says more of it.

The flags of ` + "`worker`" + ` are those of memory, engine, connection and log. ` + "`submit run`" + `
has these and its own, from ` + "`output`" + ` on.

`
