package report

import (
	"fmt"
	"io"
	"strings"

	"tempo/api"
	"tempo/internal/settext"
)

// A shade is the colour of tokens that are at least so probable.
type shade struct {
	from   float64
	code   int // of the 256 colours: all are about as far from black as from white
	legend string
}

// shades are ordered by probability, the greatest first.
func shades() []shade {
	return []shade{
		{0.5, 29, "50 % or more"},
		{0.25, 32, "25 %"},
		{0.1, 130, "10 %"},
		{0, 133, "less"},
	}
}

// quiet is the colour of what is not the answer's: brackets, strokes, the legend.
const quiet = 243

func paint(code int, text string) string { return fmt.Sprintf("\x1b[38;5;%dm%s\x1b[39m", code, text) }

// Parallel prints the text of an answer with several tokens at a position, those in
// brackets, and ends the line. With color they are coloured by their probability, and a
// line below says how, if the result lists its sets. What was removed is left out.
// Nothing in the answer can move a terminal's cursor.
func Parallel(w io.Writer, r *api.ParallelResult, color bool) error {
	text := settext.Neutral(r.Text)
	if color && len(r.Sets) > 0 {
		text = coloured(r.Sets)
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if color && strings.Contains(text, "\x1b") {
		text += legend(r.Removed, r.CutByMemory)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

func coloured(sets [][]api.ParallelToken) string {
	var b strings.Builder
	for _, p := range settext.Split(members(sets)) {
		b.WriteString(settext.Neutral(p.Text))
		for i, m := range p.Members {
			sign := "/"
			if i == 0 {
				sign = "["
			}
			b.WriteString(paint(quiet, sign))
			b.WriteString(paint(shadeOf(sets[p.Position][m.Index].Probability), m.Text))
		}
		if len(p.Members) > 0 {
			b.WriteString(paint(quiet, "]"))
		}
	}
	return b.String()
}

func members(sets [][]api.ParallelToken) [][]settext.Member {
	out := make([][]settext.Member, len(sets))
	for i, set := range sets {
		for _, t := range set {
			out[i] = append(out[i], settext.Member{Text: settext.Bytes(t.Text), Removed: t.Removed})
		}
	}
	return out
}

func shadeOf(probability float64) int {
	all := shades()
	for _, s := range all {
		if probability >= s.from {
			return s.code
		}
	}
	return all[len(all)-1].code
}

// legend says what the colours mean.
func legend(removed, byMemory int) string {
	var names []string
	for _, s := range shades() {
		names = append(names, paint(s.code, s.legend))
	}
	text := paint(quiet, "\nprobability of the tokens in brackets: ") + strings.Join(names, paint(quiet, " · "))
	switch {
	case removed == 1:
		text += paint(quiet, "; 1 removed token is left out")
	case removed > 1:
		text += paint(quiet, fmt.Sprintf("; %d removed tokens are left out", removed))
	}
	if byMemory > 0 {
		text += paint(quiet, fmt.Sprintf("; cut by memory: %d", byMemory))
	}
	return text + "\n"
}
