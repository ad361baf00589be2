package show

import (
	"errors"
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
	withoutLine  = `{"id":"3","custom_id":"without","response":null,"error":null,"tempo":{"parallel":{"text":"a","positions":1}}}`
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
		"all with sets":      {all, Choice{}, []int{5, 6}, "", ""},
		"a newline at last":  {all + "\n", Choice{Line: 6}, []int{6}, "", ""},
		"a line":             {all, Choice{Line: 5}, []int{5}, "", ""},
		"a line of many":     {"not JSON\n" + withSetsLine + "\nnot JSON", Choice{Line: 2}, []int{2}, "", ""},
		"an id":              {all, Choice{CustomID: "with"}, []int{5, 6}, "", ""},
		"nothing":            {"", Choice{}, nil, "f: there is no result in it", ""},
		"empty lines":        {"\n\n", Choice{}, nil, "f: there is no result in it", ""},
		"not JSON":           {plainLine + "\n{\n", Choice{}, nil, "f:2: the line is not a result in JSON: unexpected end of JSON input", "submit run -o writes it"},
		"not a result":       {`{"tempo":7}`, Choice{CustomID: "with"}, nil, "f:1: the line is not a result in JSON", "FILE:LINE"},
		"an empty line":      {all, Choice{Line: 3}, nil, "f:3: the line is not a result in JSON", ""},
		"behind the end":     {all, Choice{Line: 7}, nil, "there is no line 7 in f: it has 6", ""},
		"behind a newline":   {all + "\n", Choice{Line: 7}, nil, "there is no line 7 in f: it has 6", ""},
		"a line without":     {all, Choice{Line: 4}, nil, "f:4: the result lists no sets", "ask for return_parallel_sets, or --return-parallel-sets"},
		"not parallel":       {all, Choice{Line: 1}, nil, "f:1: the result lists no sets", "only parallel generation has sets: give a selection_threshold"},
		"an id without":      {all, Choice{CustomID: "without"}, nil, `f: the result "without" lists no sets`, "ask for return_parallel_sets"},
		"an id of a failure": {all, Choice{CustomID: "failed"}, nil, `f: the result "failed" lists no sets`, "only parallel generation"},
		"an unknown id":      {all, Choice{CustomID: "wiht"}, nil, `f: none of its 5 results has the custom_id "wiht"`, ""},
		"none with sets":     {plainLine + "\n" + withoutLine, Choice{}, nil, "f: none of its 2 results lists sets", "ask for return_parallel_sets"},
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
				} else if errors.As(err, &hinted) && !strings.Contains(test.says, "not a result") {
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
