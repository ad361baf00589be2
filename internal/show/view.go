package show

import (
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"tempo/api"
	"tempo/internal/settext"
)

// What the template draws. All texts come from a model: the template escapes them.
type (
	pageView struct {
		Title     string
		File      string
		Results   []resultView
		Several   bool
		Columns   []string // of the index, beside the name and the text
		Left      int      // results that are not on the page
		Style     template.CSS
		Script    template.JS
		Hash      string // of Script, SHA-256 in base64
		Generator string
	}
	resultView struct {
		ID         string // in the page
		Name       string // custom_id, or the line
		Model      string // "" = unknown
		Line       int
		Facts      []fact
		Row        []string // of the index: a value for each of its columns
		Answer     string   // the most likely path
		Bracketed  string   // the beginning of the text with brackets
		Positions  []positionView
		Thresholds bool // they are known
		Removed    bool // something is
	}
	fact struct {
		Name, Value string
	}
	positionView struct {
		Threshold        string // 0 to 1, "" = unknown
		ThresholdPercent string
		Strip            []memberView // of all: at most stripBars
		Trunk            memberView
		Branches         []memberView // at most drawnBranches
		More             []memberView // further ones
		Gap              bool         // a word begins here
	}
	memberView struct {
		Text        []glyphs
		ID          int32
		Probability string // 0 to 1
		Percent     string
		Removed     bool
	}
	// glyphs are a piece of a token's text. Signs stand for what cannot be seen.
	glyphs struct {
		Text  string
		Sign  bool
		Space bool // the sign is of the single space before a word
	}
)

const (
	drawnBranches = 7  // of a position; the others can be unfolded
	stripBars     = 24 // of a position
	indexText     = 90 // characters of a text in the index
	longestSpaces = 4  // that are drawn one by one
)

func newResult(r *Result, number int) resultView {
	p := r.Tempo.Parallel
	v := resultView{
		ID: fmt.Sprintf("r%d", number), Name: r.CustomID, Line: r.Line, Removed: p.Removed > 0,
		Thresholds: len(p.Thresholds) > 0,
	}
	if v.Name == "" {
		v.Name = fmt.Sprintf("line %d", r.Line)
	}
	var answer [][]settext.Member
	for i, set := range p.Sets {
		if len(set) == 0 {
			continue
		}
		position, trunk := newPosition(set)
		if i < len(p.Thresholds) {
			position.Threshold, position.ThresholdPercent = fraction(p.Thresholds[i]), percent(p.Thresholds[i])
		}
		v.Positions = append(v.Positions, position)
		answer = append(answer, []settext.Member{{Text: settext.Bytes(trunk.Text)}})
	}
	v.Answer = strings.TrimSpace(settext.Neutral(settext.Join(answer)))
	v.Bracketed = shorten(settext.Escape(strings.TrimSpace(p.Text)), indexText)
	finish := ""
	if r.Response != nil {
		var body api.Completion
		if json.Unmarshal(r.Response.Body, &body) == nil && len(body.Choices) > 0 { // else it is not said
			v.Model, finish = body.Model, body.Choices[0].FinishReason
		}
	}
	v.Facts = facts(p, finish)
	v.Row = row(v.Facts)
	return v
}

// columns are the facts that stand in the index too.
func columns() []string {
	return []string{"Threshold", "Positions", "Mean width", "Widest", "Removed later"}
}

func row(facts []fact) []string {
	cells := make([]string, 0, len(columns()))
	for _, name := range columns() {
		value := "–" // not known
		if at := slices.IndexFunc(facts, func(f fact) bool { return f.Name == name }); at >= 0 {
			value = facts[at].Value
		}
		cells = append(cells, value)
	}
	return cells
}

// facts are the counts at the top of a result.
func facts(p *api.ParallelResult, finish string) []fact {
	list := []fact{
		{"Positions", strconv.Itoa(p.Positions)},
		{"Tokens", strconv.Itoa(p.Tokens)},
		{"Mean width", strconv.FormatFloat(p.MeanWidth, 'f', 2, 64)},
		{"Widest", strconv.Itoa(p.Widest)},
		{"Cut by a limit", strconv.Itoa(p.Cut)},
	}
	if p.CutByMemory > 0 {
		list = append(list, fact{"Of them by memory", strconv.Itoa(p.CutByMemory)})
	}
	list = append(list, fact{"Removed later", strconv.Itoa(p.Removed)})
	if n := len(p.Thresholds); n > 0 {
		first, last := short(p.Thresholds[0]), short(p.Thresholds[n-1])
		if first != last {
			first += " → " + last
		}
		list = append(list, fact{"Threshold", first})
	}
	if finish != "" {
		list = append(list, fact{"Finish reason", finish})
	}
	return list
}

// newPosition draws a set: the most probable token that is left is the trunk's.
func newPosition(set []api.ParallelToken) (positionView, api.ParallelToken) {
	on := 0
	for i, t := range set {
		if !t.Removed {
			on = i
			break
		}
	}
	var v positionView
	shared := len(set) > 1 // a space that all have need not be seen
	for _, t := range set {
		shared = shared && strings.HasPrefix(t.Text, " ")
	}
	for i, t := range set {
		m := memberView{
			Text: draw(t.Text, !shared && len(set) > 1), ID: t.TokenID, Removed: t.Removed,
			Probability: fraction(t.Probability), Percent: percent(t.Probability),
		}
		if i < stripBars {
			v.Strip = append(v.Strip, m)
		}
		switch {
		case i == on:
			v.Trunk = m
		case len(v.Branches) < drawnBranches:
			v.Branches = append(v.Branches, m)
		default:
			v.More = append(v.More, m)
		}
	}
	v.Gap = strings.HasPrefix(set[on].Text, " ")
	return v, set[on]
}

// draw splits a token's text into what can be seen and signs for what cannot. A single
// space at the beginning is drawn only if it is marked.
func draw(text string, marked bool) []glyphs {
	if text == "" {
		return []glyphs{{Text: "empty", Sign: true}}
	}
	word := strings.TrimLeft(text, " ")
	if word != "" && !marked {
		text = strings.TrimPrefix(text, " ")
	}
	var out []glyphs
	if n := len(text) - len(word); n > longestSpaces {
		out = append(out, glyphs{Text: fmt.Sprintf("·×%d", n), Sign: true})
	} else if n > 0 {
		out = append(out, glyphs{strings.Repeat("·", n), true, n == 1 && word != ""})
	}
	add := func(text string, sign bool) {
		if n := len(out); n > 0 && out[n-1].Sign == sign && !out[n-1].Space {
			out[n-1].Text += text
			return
		}
		out = append(out, glyphs{Text: text, Sign: sign})
	}
	for word = settext.Bytes(word); word != ""; {
		_, size := utf8.DecodeRuneInString(word)
		one := word[:size]
		switch shown := settext.Escape(one); one {
		case "\n":
			add("↵", true)
		case "\t":
			add("⇥", true)
		default:
			add(shown, shown != one)
		}
		word = word[size:]
	}
	return out
}

// fraction is a probability for a style sheet.
func fraction(p float64) string {
	return strconv.FormatFloat(clamp(p), 'f', 4, 64)
}

// percent is a probability for people, to a tenth of a percent.
func percent(p float64) string {
	p = clamp(p)
	if p > 0 && p < 0.0005 {
		return "< 0.1 %"
	}
	return strconv.FormatFloat(100*p, 'f', 1, 64) + " %"
}

// short is percent without a zero behind the point.
func short(p float64) string { return strings.Replace(percent(p), ".0 ", " ", 1) }

func clamp(p float64) float64 { return math.Min(math.Max(p, 0), 1) }

// shorten cuts a text behind n characters.
func shorten(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return strings.TrimSpace(string(runes[:n])) + " …"
	}
	return text
}
