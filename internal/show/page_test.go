package show

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// tag is an element of a page, or a text in one.
type tag struct {
	name     string // "" = a text
	attr     map[string]string
	text     string
	children []*tag
}

// all finds the elements below t for which is holds.
func (t *tag) all(is func(*tag) bool) []*tag {
	var list []*tag
	for _, c := range t.children {
		if is(c) {
			list = append(list, c)
		}
		list = append(list, c.all(is)...)
	}
	return list
}

// of finds elements by their name and, unless it is "", one of their classes.
func (t *tag) of(name, class string) []*tag {
	return t.all(func(e *tag) bool {
		return e.name == name && (class == "" || slices.Contains(strings.Fields(e.attr["class"]), class))
	})
}

// content is all text in t.
func (t *tag) content() string {
	text := t.text
	for _, c := range t.children {
		text += c.content()
	}
	return text
}

var rawText = regexp.MustCompile(`(?s)(<(style|script)>).*?(</(style|script)>)`)

// page draws results and takes the page apart; every element must be closed by its own end.
func page(t *testing.T, f *Found) (*tag, string) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, Page(&out, f))
	d := xml.NewDecoder(strings.NewReader(rawText.ReplaceAllString(out.String(), "$1$3")))
	d.Strict, d.Entity = false, xml.HTMLEntity
	root := &tag{}
	open := []*tag{root}
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		last := open[len(open)-1]
		switch token := token.(type) {
		case xml.StartElement:
			e := &tag{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			last.children = append(last.children, e)
			if !slices.Contains([]string{"meta", "input"}, e.name) {
				open = append(open, e)
			}
		case xml.EndElement:
			require.Equal(t, last.name, token.Name.Local)
			open = open[:len(open)-1]
		case xml.CharData:
			last.children = append(last.children, &tag{text: string(token)})
		}
	}
	require.Len(t, open, 1, "all elements are closed")
	return root, out.String()
}

func one(t *testing.T, root *tag, name, class string) *tag {
	t.Helper()
	list := root.of(name, class)
	require.Len(t, list, 1, name+"."+class)
	return list[0]
}

func factsOf(result *tag) map[string]string {
	facts := map[string]string{}
	for _, d := range result.of("dl", "facts")[0].children {
		if d.name == "div" {
			facts[d.of("dt", "")[0].content()] = d.of("dd", "")[0].content()
		}
	}
	return facts
}

func TestPageOfOne(t *testing.T) {
	t.Parallel()
	found := sample(t, Choice{CustomID: "fox-tale"})
	root, text := page(t, found)
	require.Equal(t, "fox-tale · parallel generation", one(t, root, "title", "").content())
	require.Equal(t, "fox-tale", one(t, root, "h1", "").content())
	require.Equal(t, "Parallel generation · SmolLM2-135M-Instruct · line 4 of results.jsonl", one(t, root, "p", "sub").content())
	require.Empty(t, root.of("nav", ""))
	require.Equal(t, map[string]string{
		"Positions": "160", "Tokens": "287", "Mean width": "1.79", "Widest": "6", "Cut by a limit": "4", "Removed later": "26",
		"Threshold": "2 % → 25 %", "Finish reason": "length",
	}, factsOf(root))

	p := found.Results[0].Tempo.Parallel
	var body api.Completion
	require.NoError(t, json.Unmarshal(found.Results[0].Response.Body, &body))
	require.Equal(t, strings.TrimSpace(body.Choices[0].Message.Content), one(t, root, "p", "answer").content())
	positions := one(t, root, "ol", "tree").of("li", "p")
	require.Len(t, positions, p.Positions)
	removed := 0
	for i, position := range positions {
		require.Equal(t, fmt.Sprintf("%.4f", p.Thresholds[i]), regexp.MustCompile(`--t:([\d.]+)$`).FindStringSubmatch(position.attr["style"])[1])
		require.Len(t, position.of("b", ""), len(p.Sets[i]), "a bar for each token")
		require.Len(t, position.of("span", "t"), len(p.Sets[i]))
		require.Len(t, position.of("span", "n"), len(p.Sets[i]))
		removed += len(position.of("del", ""))
	}
	require.Equal(t, p.Removed, removed)
	require.NotRegexp(t, `(?i)https?:|src=|url\(|@import|href="[^#]`, text, "something comes from elsewhere")
	require.Less(t, strings.Index(text, Generator), 1<<10, "whoever looks for it reads the beginning")
}

// The policy allows the page's own script and nothing else.
func TestPolicy(t *testing.T) {
	t.Parallel()
	_, text := page(t, sample(t, Choice{}))
	script := regexp.MustCompile(`(?s)<script>(.*)</script>`).FindStringSubmatch(text)
	sum := sha256.Sum256([]byte(script[1]))
	require.Contains(t, text, `content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-`+
		strings.ReplaceAll(base64.StdEncoding.EncodeToString(sum[:]), "+", "&#43;")+`'; base-uri 'none'; form-action 'none'"`)
}

func TestPageOfSeveral(t *testing.T) {
	t.Parallel()
	found := sample(t, Choice{})
	found.Left = 7
	root, text := page(t, found)
	require.Equal(t, "results.jsonl", one(t, root, "nav", "").of("h1", "")[0].content())
	require.Contains(t, text, "7 more are not on this page:")
	rows := one(t, root, "tbody", "").of("tr", "")
	sections := root.of("section", "result")
	require.Len(t, rows, 3)
	require.Len(t, sections, 3)
	for i, r := range found.Results {
		link := one(t, rows[i], "a", "")
		require.Equal(t, []string{r.CustomID, "#" + sections[i].attr["id"]}, []string{link.content(), link.attr["href"]})
		require.Len(t, sections[i].of("li", "p"), r.Tempo.Parallel.Positions)
	}
	found.Left = 0
	_, text = page(t, found)
	require.NotContains(t, text, "not on this page")
	found.File = "-"
	root, _ = page(t, found)
	require.Equal(t, "standard input", one(t, root, "nav", "").of("h1", "")[0].content())
}

// made is a result of sets.
func made(sets ...[]api.ParallelToken) *Found {
	return &Found{File: "f", Results: []Result{{Line: 3, Result: api.Result{Tempo: &api.Tempo{Parallel: &api.ParallelResult{Sets: sets}}}}}}
}

func token(text string, probability float64) api.ParallelToken {
	return api.ParallelToken{Text: text, Probability: probability}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	removed := func(t api.ParallelToken) api.ParallelToken {
		t.Removed = true
		return t
	}
	many := make([]api.ParallelToken, 40)
	for i := range many {
		many[i] = token(fmt.Sprint("t", i), 0.02)
	}
	for name, test := range map[string]struct {
		set                     []api.ParallelToken
		trunk, branches, folded string // texts with "|" between them
		trunkNumber             string
	}{
		"single":          {[]api.ParallelToken{token(" fox", 1)}, "fox", "", "", "100.0 %"},
		"a set":           {[]api.ParallelToken{token(" quick", 0.5), token(" swift", 0.25)}, "quick", "swift", "", "50.0 %"},
		"spaces of some":  {[]api.ParallelToken{token(" a", 0.5), token("b", 0.25)}, "·a", "b", "", "50.0 %"},
		"only spaces":     {[]api.ParallelToken{token(" ", 0.5), token("       ", 0.3), token("", 0.1)}, "·", "·×7|empty", "", "50.0 %"},
		"indentation":     {[]api.ParallelToken{token("   x", 0.5)}, "··x", "", "", "50.0 %"},
		"signs":           {[]api.ParallelToken{token("a\n\tb\x1b\u202e", 0.5), token(`\xf0`, 0.1)}, `a↵⇥b\x1b\u202e`, `\xf0`, "", "50.0 %"},
		"removed first":   {[]api.ParallelToken{removed(token("a", 0.5)), token("b", 0.25)}, "b", "a", "", "25.0 %"},
		"all removed":     {[]api.ParallelToken{removed(token("a", 0.5)), removed(token("b", 0.25))}, "a", "b", "", "50.0 % removed"},
		"very improbable": {[]api.ParallelToken{token("a", 0.0001)}, "a", "", "", "< 0.1 %"},
		"out of range":    {[]api.ParallelToken{token("a", 7)}, "a", "", "", "100.0 %"},
		"many": {
			many, "t0", "t1|t2|t3|t4|t5|t6|t7",
			"t8|t9|t10|t11|t12|t13|t14|t15|t16|t17|t18|t19|t20|t21|t22|t23|t24|t25|t26|t27|t28|t29|t30|t31|t32|t33|t34|t35|t36|t37|t38|t39", "2.0 %",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, _ := page(t, made(test.set))
			require.Equal(t, "line 3", one(t, root, "h1", "").content())
			texts := func(of []*tag) string {
				var list []string
				for _, e := range of {
					for _, token := range e.of("span", "t") {
						list = append(list, token.content())
					}
				}
				return strings.Join(list, "|")
			}
			require.Equal(t, test.trunk, texts(root.of("div", "r")))
			require.Equal(t, test.branches, texts(root.of("ol", "b")))
			require.Equal(t, test.folded, texts(root.of("details", "")))
			require.Equal(t, test.trunkNumber, strings.TrimSpace(root.of("div", "r")[0].of("span", "n")[0].content()))
			require.LessOrEqual(t, len(root.of("b", "")), stripBars)
			require.NotContains(t, factsOf(root), "Threshold", "it is not known")
		})
	}
}

// A line that ends is a sign, and does not break the trunk.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	single := func(text string) []api.ParallelToken { return []api.ParallelToken{token(text, 1)} }
	root, _ := page(t, made(single("a"), single("\n"), single("\n"), nil, single("b"), single(".\n"), single("c")))
	var order []string
	for _, li := range one(t, root, "ol", "tree").children {
		if li.name != "" {
			require.Equal(t, "p", strings.Fields(li.attr["class"])[0], "all are positions of one trunk")
			order = append(order, li.of("span", "t")[0].content())
		}
	}
	require.Equal(t, []string{"a", "↵", "↵", "b", ".↵", "c"}, order)
	require.Equal(t, "a\n\nb.\nc", one(t, root, "p", "answer").content())
}

func TestIndex(t *testing.T) {
	t.Parallel()
	found := made([]api.ParallelToken{token("a", 0.5), token("b", 0.25)})
	p := found.Results[0].Tempo.Parallel
	*p = api.ParallelResult{Text: "[a/b]", Positions: 1, Tokens: 2, MeanWidth: 2, Widest: 2, Removed: 1, Sets: p.Sets}
	other := *p
	other.Thresholds = []float64{0.1, 0.4}
	other.Cut, other.CutByMemory = 5, 3
	found.Results = append(found.Results, Result{Line: 4, Result: api.Result{CustomID: "b", Tempo: &api.Tempo{Parallel: &other}}})
	root, _ := page(t, found)
	texts := func(of []*tag) (list []string) {
		for _, e := range of {
			list = append(list, e.content())
		}
		return list
	}
	require.Equal(t, []string{"Result", "Text", "Threshold", "Positions", "Mean width", "Widest", "Removed later"}, texts(one(t, root, "thead", "").of("th", "")))
	require.NotContains(t, factsOf(root.of("section", "result")[0]), "Of them by memory")
	rows := one(t, root, "tbody", "").of("tr", "")
	require.Equal(t, []string{"[a/b]", "–", "1", "2.00", "2", "1"}, texts(rows[0].of("td", "")))
	require.Equal(t, []string{"[a/b]", "10 % → 40 %", "1", "2.00", "2", "1"}, texts(rows[1].of("td", "")))
	facts := factsOf(root.of("section", "result")[1])
	require.Equal(t, []string{"5", "3"}, []string{facts["Cut by a limit"], facts["Of them by memory"]})
}

// What a model or a user wrote is text on the page, wherever it stands.
func TestPageEscapes(t *testing.T) {
	t.Parallel()
	const evil = `</script></style><script>alert(1)</script><img src=x onerror=alert(1)>" onmouseover="alert(1)' onfocus='alert(1){{.}}`
	found := made([]api.ParallelToken{token(evil, 0.5), token(evil, 0.25)})
	r := &found.Results[0]
	r.CustomID, r.Tempo.Parallel.Text = evil, evil
	body, err := json.Marshal(api.Completion{Model: evil, Choices: []api.Choice{{FinishReason: evil}}})
	require.NoError(t, err)
	r.Response = &api.Response{Body: body}
	found.File = "dir/" + strings.ReplaceAll(evil, "/", "")
	found.Results = append(found.Results, *r)
	root, text := page(t, found)
	require.Len(t, root.of("script", ""), 1)
	require.Empty(t, root.of("img", ""))
	require.NotContains(t, text, "<script>alert")
	for _, e := range root.all(func(*tag) bool { return true }) {
		for name := range e.attr {
			require.False(t, strings.HasPrefix(name, "on"), name)
		}
	}
	require.Equal(t, evil, root.of("h1", "")[1].content())
	require.Equal(t, evil, factsOf(root)["Finish reason"])
	require.Equal(t, evil, root.of("div", "r")[0].of("span", "t")[0].content())
}

func TestPageCannotBeWritten(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, Page(broken{}, sample(t, Choice{})), io.ErrClosedPipe)
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
