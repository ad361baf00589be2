package show

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"tempo/internal/settext"
)

const (
	plainLine    = `{"id":"1","custom_id":"plain","response":{"status_code":200,"request_id":"r","body":{}},"error":null,"tempo":{"worker":"w"}}`
	failedLine   = `{"id":"2","custom_id":"failed","response":null,"error":{"code":"parse_error","message":"no"}}`
	refusedLine  = `{"id":"6","custom_id":"refused","response":{"status_code":400,"request_id":"r","body":{"error":{"message":"too long","hint":"shorten it"}}},"error":null,"tempo":{}}`
	withoutLine  = `{"id":"3","custom_id":"without","response":null,"error":null,"tempo":{"parallel":{"text":"a","positions":1}}}`
	emptyLine    = `{"id":"5","custom_id":"empty","response":null,"error":null,"tempo":{"parallel":{"text":"","positions":0}}}`
	withSetsLine = `{"id":"4","custom_id":"with","response":null,"error":null,"tempo":{"parallel":{"text":"a","positions":1,"sets":[[{"token_id":1,"text":"a","probability":1}]]}}}`
)

func TestRead(t *testing.T) {
	t.Parallel()
	all := strings.Join([]string{plainLine, failedLine, "", withoutLine + "\r", withSetsLine, withSetsLine}, "\n")
	for name, test := range map[string]struct {
		text   string
		choice Choice
		lines  []int
		says   string // "" = no error
		hint   string
	}{
		"all with sets":       {all, Choice{}, []int{5, 6}, "", ""},
		"a newline at last":   {all + "\n", Choice{Line: 6}, []int{6}, "", ""},
		"a line":              {all, Choice{Line: 5}, []int{5}, "", ""},
		"a line of many":      {"not JSON\n" + withSetsLine + "\nnot JSON", Choice{Line: 2}, []int{2}, "", ""},
		"an id":               {all, Choice{CustomID: "with"}, []int{5, 6}, "", ""},
		"nothing":             {"", Choice{}, nil, "f: there is no result in it", ""},
		"empty lines":         {"\n\n", Choice{}, nil, "f: there is no result in it", ""},
		"not JSON":            {plainLine + "\n{\n", Choice{}, nil, "f:2: not a result: byte 1 of the line: not valid JSON: unexpected end of JSON input", "submit run -o writes it"},
		"not a result":        {`{"tempo":7}`, Choice{CustomID: "with"}, nil, "f:1: not a result: tempo: wrong type, got 7, allowed: an object", "FILE:LINE"},
		"a list":              {`{"response":null,"tempo":[]}`, Choice{}, nil, "f:1: not a result: tempo: wrong type, got [], allowed: an object", "submit run -o writes it"},
		"sets of words":       {`{"response":null,"tempo":{"parallel":{"sets":"all"}}}`, Choice{}, nil, `f:1: not a result: tempo.parallel.sets: wrong type, got "all", allowed: a list`, ""},
		"a word in a set":     {strings.Replace(withSetsLine, `"probability":1`, `"probability":"1"`, 1), Choice{}, nil, "wrong type, got a JSON string, allowed: a number", ""},
		"a number":            {"7", Choice{}, nil, "f:1: not a result: the line: wrong type, got 7, allowed: an object", ""},
		"a request":           {`{"prompt":"Hi","tempo":{"selection_threshold":0.1}}`, Choice{}, nil, "f:1: not a result: it is a request, not its result", "submit run -o writes it"},
		"something else":      {`{"name":"x"}`, Choice{}, nil, `f:1: not a result: it has neither "response" nor "error"`, ""},
		"empty, a line":       {emptyLine, Choice{Line: 1}, nil, "f:1: the result has no sets: nothing was generated, the answer has 0 positions", "min_steps"},
		"empty, an id":        {emptyLine + "\n" + plainLine, Choice{CustomID: "empty"}, nil, `f: the result "empty" has no sets: nothing was generated`, "min_steps"},
		"empty, all":          {emptyLine + "\n" + plainLine, Choice{}, nil, "f: none of its 2 results has sets: nothing was generated", "min_steps"},
		"empty, beside":       {emptyLine + "\n" + withoutLine, Choice{}, nil, "f: none of its 2 results lists sets", "ask for return_parallel_sets"},
		"an empty line":       {all, Choice{Line: 3}, nil, "f:3: not a result: the line is empty", ""},
		"behind the end":      {all, Choice{Line: 7}, nil, "there is no line 7 in f: it has 6", ""},
		"behind a newline":    {all + "\n", Choice{Line: 7}, nil, "there is no line 7 in f: it has 6", ""},
		"a line without":      {all, Choice{Line: 4}, nil, "f:4: the result lists no sets", "ask for return_parallel_sets, or --return-parallel-sets"},
		"not parallel":        {all, Choice{Line: 1}, nil, "f:1: the result lists no sets", "only parallel generation has sets: give a selection_threshold"},
		"an id without":       {all, Choice{CustomID: "without"}, nil, `f: the result "without" lists no sets`, "ask for return_parallel_sets"},
		"an id of a failure":  {all, Choice{CustomID: "failed"}, nil, `f: the result "failed" is an error: no`, "mend what the error says"},
		"a line of a failure": {refusedLine, Choice{Line: 1}, nil, "f:1: the result is an error: too long", "shorten it"},
		"only failures":       {refusedLine + "\n" + failedLine, Choice{}, nil, "f: none of its 2 results has sets, all are errors; the first: too long", "shorten it"},
		"no reason":           {strings.Replace(refusedLine, `{"error"`, `{"why"`, 1), Choice{}, nil, "all are errors; the first: status 400", "mend"},
		"a failure beside":    {failedLine + "\n" + emptyLine, Choice{}, nil, "f: none of its 2 results has sets: nothing was generated", "min_steps"},
		"an unknown id":       {all, Choice{CustomID: "wth"}, nil, `f: none of its 5 results has the custom_id "wth"`, `did you mean "with"?`},
		"a strange id":        {all, Choice{CustomID: "fox-tale"}, nil, `has the custom_id "fox-tale"`, `there are "plain", "failed", "without", "with", "with"`},
		"one of many":         {strings.Repeat(plainLine+"\n", 9), Choice{CustomID: "fox-tale"}, nil, "none of its 9 results", `"plain", "plain" and 4 more`},
		"nobody has an id":    {`{"response":null}`, Choice{CustomID: "a"}, nil, "none of its 1 results", "FILE:LINE"},
		"none with sets":      {plainLine + "\n" + withoutLine, Choice{}, nil, "f: none of its 2 results lists sets", "ask for return_parallel_sets"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := Read(strings.NewReader(test.text), "f", test.choice)
			if test.says != "" {
				require.ErrorContains(t, err, test.says)
				var hinted interface{ Hint() string }
				if test.hint != "" {
					require.ErrorAs(t, err, &hinted)
					require.Contains(t, hinted.Hint(), test.hint)
				} else if errors.As(err, &hinted) && !strings.Contains(test.says, ": not a result: ") && !strings.Contains(test.says, "wrong type") {
					require.Empty(t, hinted.Hint())
				}
				return
			}
			require.NoError(t, err)
			var lines []int
			for _, r := range found.Results {
				require.Equal(t, "with", r.CustomID)
				lines = append(lines, r.Line)
			}
			require.Equal(t, test.lines, lines)
			require.Equal(t, "f", found.File)
			require.Zero(t, found.Left)
		})
	}
	_, err := Read(iotest.ErrReader(io.ErrClosedPipe), "f", Choice{})
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

func TestReadMany(t *testing.T) {
	t.Parallel()
	found, err := Read(strings.NewReader(strings.Repeat(withSetsLine+"\n"+plainLine+"\n", MaxResults+3)), "f", Choice{})
	require.NoError(t, err)
	require.Len(t, found.Results, MaxResults)
	require.Equal(t, 2*MaxResults-1, found.Results[MaxResults-1].Line)
	require.Equal(t, 3, found.Left)
}

// Results come as they are done; the page has them as they stand in the input.
func TestReadOrders(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, line := range []int{12, 2, 0, 10, 0, 1} { // 0 = it does not say
		text.WriteString(strings.Replace(withSetsLine, `"tempo":{`, fmt.Sprintf(`"tempo":{"line":%d,`, line), 1) + "\n")
	}
	found, err := Read(strings.NewReader(text.String()), "f", Choice{})
	require.NoError(t, err)
	var order []int
	for _, r := range found.Results {
		order = append(order, r.Line)
	}
	require.Equal(t, []int{6, 2, 4, 1, 3, 5}, order)

	text.Reset()
	for line := range MaxResults + 3 {
		text.WriteString(strings.Replace(withSetsLine, `"tempo":{`, fmt.Sprintf(`"tempo":{"line":%d,`, MaxResults+3-line), 1) + "\n")
	}
	found, err = Read(strings.NewReader(text.String()), "f", Choice{})
	require.NoError(t, err)
	require.Equal(t, []int{1, MaxResults, 3}, []int{found.Results[0].Tempo.Line, found.Results[MaxResults-1].Tempo.Line, found.Left}, "the first of the input")
}

// sample reads a file of results. Its sets are the likeliest tokens that the example model
// listed at each position; what is removed was drawn by lot.
func sample(t *testing.T, c Choice) *Found {
	t.Helper()
	f, err := os.Open("testdata/results.jsonl")
	require.NoError(t, err)
	defer f.Close()
	found, err := Read(f, f.Name(), c)
	require.NoError(t, err)
	return found
}

// The text with brackets is what the sets say.
func TestSample(t *testing.T) {
	t.Parallel()
	found := sample(t, Choice{})
	require.Len(t, found.Results, 3)
	for _, r := range found.Results {
		p := r.Tempo.Parallel
		sets, tokens, removed := make([][]settext.Member, len(p.Sets)), 0, 0
		for i, set := range p.Sets {
			for _, token := range set {
				sets[i] = append(sets[i], settext.Member{Text: settext.Bytes(token.Text), Removed: token.Removed})
				tokens++
				if token.Removed {
					removed++
				}
			}
		}
		require.Equal(t, p.Text, settext.Join(sets), r.CustomID)
		require.Equal(t, []int{p.Positions, p.Tokens, p.Removed}, []int{len(p.Sets), tokens, removed}, r.CustomID)
		require.Len(t, p.Thresholds, p.Positions, r.CustomID)
	}
}
