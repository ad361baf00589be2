package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tempo/internal/config"
)

// hinted is an error with a hint.
type hinted struct{ text, hint string }

func (e *hinted) Error() string { return e.text }
func (e *hinted) Hint() string  { return e.hint }

func TestReport(t *testing.T) {
	t.Parallel()
	a, b := &hinted{"a is wrong", "mend it"}, &hinted{"b is wrong", "mend it"}
	plain := errors.New("c is wrong")
	for name, test := range map[string]struct {
		err  error
		code int
		says string
	}{
		"nothing":         {nil, 0, ""},
		"some failed":     {ErrSomeFailed, 3, ""},
		"failed, wrapped": {fmt.Errorf("run: %w", ErrSomeFailed), 3, ""},
		"plain":           {plain, 1, "submit: c is wrong\n"},
		"hint":            {fmt.Errorf("go: %w", a), 1, "submit: go: a is wrong\nhint: mend it\n"},
		"no hint":         {&hinted{"d", ""}, 1, "submit: d\n"},
		"joined":          {errors.Join(a, errors.Join(plain, b)), 1, "submit: a is wrong\nhint: mend it\nsubmit: c is wrong\nsubmit: b is wrong\n"},
		"two causes":      {fmt.Errorf("try: %w (last: %w)", plain, a), 1, "submit: try: c is wrong (last: a is wrong)\nhint: mend it\n"},
		"usage":           {&UsageError{Err: plain}, 2, "submit: c is wrong\nhint: submit --help\n"},
		"usages":          {&UsageError{Command: "submit run", Err: errors.Join(a, plain)}, 2, "submit: a is wrong\nhint: mend it\nsubmit: c is wrong\nhint: submit run --help\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			require.Equal(t, test.code, Report(&out, "submit", test.err))
			require.Equal(t, test.says, out.String())
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		command *cobra.Command
		args    []string
	}{
		"unknown flag":       {Worker(), []string{"--wrong"}},
		"value of a flag":    {Submit(), []string{"run", "--max-tokens", "many"}},
		"unknown command":    {Submit(), []string{"runn"}},
		"unknown argument":   {Worker(), []string{"run", "now"}},
		"argument of worker": {Worker(), []string{"now"}},
		"argument of setup":  {Worker(), []string{"setup", "now"}},
		"argument of doctor": {Worker(), []string{"doctor", "now"}},
		"no seconds":         {Worker(), []string{"memory-test", "--seconds", "0"}},
		"two files":          {Submit(), []string{"run", "a", "b"}},
		"nothing to send":    {Submit(), []string{"run"}},
		"out of range":       {Submit(), []string{"run", "a", "--priority", "urgent"}},
		"without effect":     {Submit(), []string{"run", "a", "--isolate"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.command.SetArgs(test.args)
			err := execute(t.Context(), test.command)
			var usage *UsageError
			require.ErrorAs(t, err, &usage)
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]*cobra.Command{"submit": Submit(), "worker": Worker()} {
		args := []string{"--help"}
		if name == "submit" {
			args = nil
		}
		var out bytes.Buffer
		command.SetOut(&out)
		command.SetArgs(args)
		require.NoError(t, execute(t.Context(), command))
		require.Contains(t, out.String(), "Usage:")
		require.NotContains(t, out.String(), "\n  "+EngineName, "the hidden command")
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &Screen{out: &out, terminal: true}
	write := func(text string) {
		n, err := s.Write([]byte(text))
		require.NoError(t, err)
		require.Equal(t, len(text), n)
	}
	write("one\n")
	s.Status("")
	require.Equal(t, "one\n", out.String(), "nothing to erase")
	s.Status("1 of 2")
	write("two\n")
	s.Status("2 of 2")
	s.Status("")
	write("three\n")
	require.Equal(t, "one\n"+eraseLine+"1 of 2"+eraseLine+"two\n"+"1 of 2"+eraseLine+"2 of 2"+eraseLine+"three\n", out.String())
	require.NoError(t, s.Sync())

	out.Reset()
	s = &Screen{out: &out}
	s.Status("1 of 2")
	write("one\n")
	require.Equal(t, "one\n", out.String(), "a status line where nobody looks")
}

func TestNewScreen(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	defer f.Close()
	require.False(t, NewScreen(f).Terminal())
}

func TestLogger(t *testing.T) {
	t.Parallel()
	const people, machines = `^\d\d:\d\d:\d\d WARN worker it is hot {"celsius": 80}\n$`,
		`^{"level":"warn","ts":"[^"]+Z?","logger":"worker","msg":"it is hot","celsius":80}\n$`
	for name, test := range map[string]struct {
		format   string
		terminal bool
		want     string
	}{
		"terminal":    {"auto", true, people},
		"no terminal": {"auto", false, machines},
		"console":     {"console", false, people},
		"JSON":        {"json", true, machines},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log, err := Logger(config.Log{Level: "warn", Format: test.format}, &Screen{out: &out, terminal: test.terminal})
			require.NoError(t, err)
			log.Info("not shown")
			log.Named("worker").Warn("it is hot", zap.Int("celsius", 80))
			require.Regexp(t, test.want, out.String())
		})
	}
	_, err := Logger(config.Log{Level: "loud"}, &Screen{})
	require.ErrorContains(t, err, "loud")
}

func TestEngineArgs(t *testing.T) {
	t.Parallel()
	args := func(format string, terminal bool) []string {
		return EngineArgs(config.Log{Level: "debug", Format: format}, &Screen{terminal: terminal})
	}
	require.Equal(t, []string{"engine", "--log-level", "debug", "--log-format", "json"}, args("auto", false))
	require.Equal(t, []string{"engine", "--log-level", "debug", "--log-format", "console"}, args("auto", true))
	require.Equal(t, []string{"engine", "--log-level", "debug", "--log-format", "json"}, args("json", true))
	cmd := EngineCommand()
	require.NoError(t, cmd.ParseFlags(args("console", false)[1:]), "an engine knows its arguments")
}
