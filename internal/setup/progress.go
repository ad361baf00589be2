package setup

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// meter shows how far a download is: a bar that is drawn over on a terminal, a
// line for every quarter elsewhere.
type meter struct {
	w        io.Writer
	terminal bool
	title    string
	total    int64
	quarter  int // the last one that has its line; -1 = none yet
}

func newMeter(w io.Writer, title string, total int64) *meter {
	f, ok := w.(*os.File)
	return &meter{w: w, terminal: ok && term.IsTerminal(int(f.Fd())), title: title, total: total, quarter: -1}
}

// show says that n bytes are there.
func (m *meter) show(n int64) {
	const width = 30
	n = min(n, m.total)
	if m.terminal {
		full := int(width * n / m.total)
		fmt.Fprintf(m.w, "\r%s [%s%s] %3d %% of %s", m.title,
			strings.Repeat("#", full), strings.Repeat("-", width-full), 100*n/m.total, megabytes(m.total))
		return
	}
	if q := int(4 * n / m.total); q > m.quarter {
		m.quarter = q
		fmt.Fprintf(m.w, "fetching %s: %d %% of %s\n", m.title, 25*q, megabytes(m.total))
	}
}

// end leaves the bar's line.
func (m *meter) end() {
	if m.terminal {
		fmt.Fprintln(m.w)
	}
}

func megabytes(n int64) string {
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
