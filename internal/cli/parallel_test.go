package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/submit"
)

func TestColoursNeedSets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		parallel *api.Parallel
		output   string
		color    bool
		want     *api.Parallel
	}{
		"colours":      {&api.Parallel{Threshold: 0.1}, "-", true, &api.Parallel{Threshold: 0.1, ReturnSets: true}},
		"no colours":   {&api.Parallel{Threshold: 0.1}, "-", false, &api.Parallel{Threshold: 0.1}},
		"to a file":    {&api.Parallel{Threshold: 0.1}, "out.jsonl", true, &api.Parallel{Threshold: 0.1}},
		"asked for":    {&api.Parallel{Threshold: 0.1, ReturnSets: true}, "-", false, &api.Parallel{Threshold: 0.1, ReturnSets: true}},
		"not parallel": {nil, "-", true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := submit.Options{Output: test.output, Lines: batchfile.Options{Parallel: test.parallel}}
			renderPrompt(&opts, &Screen{}, test.color)
			require.Equal(t, test.want, opts.Lines.Parallel)
			asked := name == "asked for"
			require.Equal(t, asked, opts.Render == nil, "then they are written as JSON")
		})
	}
}

func TestRenderParallel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	screen := &Screen{out: &out, terminal: true}
	screen.Status("0 of 1 done")
	out.Reset()
	render := renderParallel(screen, false)
	for _, r := range []*api.Result{{}, {Tempo: &api.Tempo{}}} {
		done, err := render(&out, r)
		require.NoError(t, err)
		require.False(t, done)
	}
	r := &api.Result{Tempo: &api.Tempo{Parallel: &api.ParallelResult{Text: "The [quick/swift] fox"}}}
	done, err := render(&out, r)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, eraseLine+"The [quick/swift] fox\n", out.String(), "on one terminal")
}

func TestColours(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	require.NoError(t, err)
	defer f.Close()
	require.False(t, colours(f), "it is no terminal")

	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("SKIPPED, the rest needs a terminal: ", err)
	}
	defer terminal.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm-256color")
	require.True(t, colours(terminal))
	t.Setenv("TERM", "dumb")
	require.False(t, colours(terminal))
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	require.False(t, colours(terminal))
}
