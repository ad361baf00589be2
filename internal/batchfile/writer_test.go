package batchfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func answer(id string) *api.Result {
	return &api.Result{ID: "batch_req_" + id, CustomID: id, Response: &api.Response{
		StatusCode: 200, RequestID: "req_" + id, Body: json.RawMessage(`{ "text": "<a & b>" }`),
	}}
}

func refusal(id string) *api.Result {
	r := answer(id)
	r.Response.StatusCode = 400
	return r
}

const (
	answerLine  = `{"id":"batch_req_a","custom_id":"a","response":{"status_code":200,"request_id":"req_a","body":{"text":"<a & b>"}},"error":null}` + "\n"
	refusalLine = `{"id":"batch_req_b","custom_id":"b","response":{"status_code":400,"request_id":"req_b","body":{"text":"<a & b>"}},"error":null}` + "\n"
)

// lines splits text after each line feed; the bytes matter, not only the JSON.
func lines(text string) []string { return strings.SplitAfter(text, "\n") }

func TestWriterRoutes(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	w := NewWriter(&out, &errs)
	require.NoError(t, w.Write(answer("a")))
	require.NoError(t, w.Write(refusal("b")))
	require.Empty(t, out.String(), "lines are held back")
	require.NoError(t, w.Flush())
	require.Equal(t, lines(answerLine), lines(out.String()))
	require.Equal(t, lines(refusalLine), lines(errs.String()))
}

func TestWriterWithoutErrorFile(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewWriter(&out, nil)
	require.NoError(t, w.Write(answer("a")))
	require.NoError(t, w.Write(refusal("b")))
	require.NoError(t, w.Flush())
	require.Equal(t, lines(answerLine+refusalLine), lines(out.String()))
}

type full struct{ err error }

func (f full) Write([]byte) (int, error) { return 0, f.err }

func TestWriterFails(t *testing.T) {
	t.Parallel()
	noSpace := errors.New("no space left on device")
	w := NewWriter(full{noSpace}, nil)
	require.NoError(t, w.Write(answer("a")))
	require.ErrorIs(t, w.Flush(), noSpace)
	require.ErrorIs(t, w.Write(answer("a")), noSpace)

	bad := answer("a")
	bad.Response.Body = json.RawMessage(`{`)
	var out bytes.Buffer
	w = NewWriter(&out, nil)
	require.ErrorContains(t, w.Write(bad), `write result of "a"`)
	require.NoError(t, w.Flush())
	require.Empty(t, out.String(), "no half lines")
}

// The example that the README runs must pass the reader whole.
func TestExamplePrompts(t *testing.T) {
	t.Parallel()
	const name = "../../examples/prompts.jsonl"
	file, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	lines, faults := readAll(t, NewReader(name, file, Options{}))
	require.Empty(t, faults)
	require.GreaterOrEqual(t, len(lines), 24)
	urls := map[string]int{}
	for _, line := range lines {
		require.Equal(t, "SmolLM2-135M-Instruct", line.Model)
		urls[line.URL]++
	}
	require.Len(t, urls, 2)
}

// The examples of the manual pass the reader, too.
func TestManual(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../docs/requests.md")
	require.NoError(t, err)
	_, examples, found := strings.Cut(string(manual), "\n```json\n")
	require.True(t, found)
	examples, _, _ = strings.Cut(examples, "```")
	got, faults := read(t, examples, Options{DefaultModel: "m"})
	require.Empty(t, faults)
	require.Len(t, got, 9)
}
