package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReportedError(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.Equal(t, ExitFailed, Report(&out, "worker", errReported))
	require.Empty(t, out.String(), "the report says it")
}

// TestQuietLog is not parallel: it sets the environment.
func TestQuietLog(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		env   string
		level string
	}{
		"by itself":   {nil, "", "warn"},
		"flag":        {[]string{"--log-level", "info"}, "", "info"},
		"environment": {nil, "info", "info"},
		"debug":       {[]string{"--debug-mode"}, "", "debug"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.env != "" {
				t.Setenv("TEMPO_LOG_LEVEL", test.env)
			}
			cmd := doctorCommand()
			require.NoError(t, cmd.ParseFlags(test.args))
			c, _, _, err := beginQuietly(cmd)
			require.NoError(t, err)
			require.Equal(t, test.level, c.Log.Level)
		})
	}
}

func TestSource(t *testing.T) {
	cmd := doctorCommand()
	require.Equal(t, fromFile, source(cmd, "model", "TEMPO_MODEL"))
	t.Setenv("TEMPO_MODEL", "/a.gguf")
	require.Equal(t, "environment TEMPO_MODEL", source(cmd, "model", "TEMPO_MODEL"))
	require.NoError(t, cmd.ParseFlags([]string{"--model", "/b.gguf"}))
	require.Equal(t, "flag --model", source(cmd, "model", "TEMPO_MODEL"))
}

func TestPrintJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, printJSON(&out, map[string]string{"limit": "a < b"}))
	require.Contains(t, out.String(), "\n  \"limit\": \"a < b\"\n")
	require.ErrorContains(t, printJSON(&out, func() {}), "print the report")
}

// TestCommands runs both where no model can be found.
func TestCommands(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for _, args := range [][]string{
		{"doctor", "--local"},
		{"doctor", "--local", "--json"},
		{"memory-test"},
		{"memory-test", "--json"},
	} {
		var out bytes.Buffer
		command := Worker()
		command.SetOut(&out)
		command.SetArgs(append(args, "--device", "cpu"))
		require.ErrorIs(t, execute(t.Context(), command), errReported)
		require.Contains(t, out.String(), "make setup", args)
	}
}
