package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"tempo/api"
	"tempo/internal/report"
	"tempo/internal/submit"
)

// renderPrompt has the answer to a prompt of the command line written for people, if it
// has several tokens at a position and goes to standard output, unless the sets are asked for:
// these are in the JSON. Colours need the sets.
func renderPrompt(opts *submit.Options, screen *Screen, color bool) {
	p := opts.Lines.Parallel
	if p != nil && p.ReturnSets {
		return
	}
	opts.Render = renderParallel(screen, color)
	if p != nil && color && opts.Output == "-" {
		p.ReturnSets = true
	}
}

// renderParallel writes answers with several tokens at a position as text, for
// submit.Options.Render; all others are left to JSON. The status line goes before, as the
// text may stand on the same terminal.
func renderParallel(screen *Screen, color bool) func(io.Writer, *api.Result) (bool, error) {
	return func(w io.Writer, r *api.Result) (bool, error) {
		if r.Tempo == nil || r.Tempo.Parallel == nil {
			return false, nil
		}
		screen.Status("")
		return true, report.Parallel(w, r.Tempo.Parallel, color)
	}
}

// colours reports whether a person looks at f who wants colours (no-color.org).
func colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
