package batchfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

const good = `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"Hello"}]}}`

// readAll reads a file to its end.
func readAll(t *testing.T, r *Reader) (lines []Line, faults []*LineError) {
	t.Helper()
	for {
		line, err := r.Read()
		var fault *LineError
		switch {
		case errors.Is(err, io.EOF):
			return lines, faults
		case errors.As(err, &fault):
			faults = append(faults, fault)
		default:
			require.NoError(t, err)
			lines = append(lines, line)
		}
	}
}

func read(t *testing.T, text string, opts Options) ([]Line, []*LineError) {
	t.Helper()
	return readAll(t, NewReader("prompts.jsonl", strings.NewReader(text), opts))
}

func TestReadOpenAI(t *testing.T) {
	t.Parallel()
	lines, faults := read(t, good, Options{})
	require.Empty(t, faults)
	require.Equal(t, []Line{{
		Number: 1, CustomID: "a", Model: "m", URL: api.ChatCompletions,
		Body: []byte(`{"model":"m","messages":[{"role":"user","content":"Hello"}]}`),
	}}, lines)
}

func TestReadCompletions(t *testing.T) {
	t.Parallel()
	lines, faults := read(t, `{"custom_id":"a","url":"/v1/completions","body":{"model":"m","prompt":"The cat"}}`, Options{})
	require.Empty(t, faults)
	require.Equal(t, api.Completions, lines[0].URL)
}

func TestReadEmbeddings(t *testing.T) {
	t.Parallel()
	seed, temperature := uint32(42), 0.0
	lines, faults := read(t, `{"custom_id":"a","url":"/v1/embeddings","body":{"input":["The cat","The dog"]}}`,
		Options{
			DefaultModel: "m", MaxTokens: 50, Seed: &seed, Temperature: &temperature, Reproducible: true,
			Parallel: &api.Parallel{Threshold: 0.1, Mix: api.MixWeighted},
		})
	require.Empty(t, faults)
	require.Equal(t, []Line{{
		Number: 1, CustomID: "a", Model: "m", URL: api.Embeddings,
		Body: []byte(`{"input":["The cat","The dog"],"model":"m"}`),
	}}, lines)
}

func TestReadShortForm(t *testing.T) {
	t.Parallel()
	lines, faults := read(t, `{"prompt":"<b>Hi</b>"}
{"temperature":0,"prompt":"Hi","system":"Be brief.","custom_id":"greeting","model":"other","max_tokens":5}`,
		Options{DefaultModel: "m"})
	require.Empty(t, faults)
	require.Equal(t, []Line{
		{
			Number: 1, CustomID: "line-1", Model: "m", URL: api.ChatCompletions,
			Body: []byte(`{"messages":[{"role":"user","content":"<b>Hi</b>"}],"model":"m"}`),
		},
		{
			Number: 2, CustomID: "greeting", Model: "other", URL: api.ChatCompletions,
			Body: []byte(`{"temperature":0,"model":"other","max_tokens":5,` +
				`"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]}`),
		},
	}, lines)
}

func TestReadAddsWhatLinesLeaveOpen(t *testing.T) {
	t.Parallel()
	seed, temperature := uint32(42), 0.0
	opts := Options{DefaultModel: "m", MaxTokens: 50, Seed: &seed, Temperature: &temperature, Reproducible: true}
	const message = `"messages":[{"role":"user","content":"Hi"}]`
	for body, want := range map[string]string{
		`{` + message + `}`: `{` + message + `,"model":"m","reproducible":true,"max_tokens":50,"seed":42,"temperature":0}`,
		`{"model":null,"seed":null,` + message + `,"temperature":1,"max_tokens":9,"reproducible":false}`: `{` + message + `,"temperature":1,"max_tokens":9,"reproducible":false,"model":"m","seed":42}`,
		`{"model":"x","seed":0,"temperature":2,"max_completion_tokens":9,` + message + `}`:               `{"model":"x","seed":0,"temperature":2,"max_completion_tokens":9,` + message + `,"reproducible":true}`,
	} {
		lines, faults := read(t, `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":`+body+`}`, opts)
		require.Empty(t, faults)
		require.Equal(t, want, string(lines[0].Body))
	}
}

func TestReadFaults(t *testing.T) {
	t.Parallel()
	line := func(body string) string {
		return `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":` + body + `}`
	}
	tests := []struct {
		name, text, customID, field string
		says                        []string
	}{
		{name: "not JSON", text: `hello`, says: []string{"column 1", "not valid JSON"}},
		{name: "broken JSON", customID: "ä", text: `{"custom_id":"ä",}`, says: []string{"column 18", "not valid JSON"}},
		{name: "cut off", customID: "a", text: `{"custom_id":"a"`, says: []string{"column 16", "unexpected end"}},
		{name: "cut off before a carriage return", text: "{\"custom_id\":\"a\r\n", says: []string{"unexpected end"}},
		{name: "two objects", customID: "a", text: good + good, says: []string{"after top-level value"}},
		{name: "a list", text: `[{"prompt":"x"}]`, says: []string{"a JSON object"}},
		{name: "not UTF-8", text: "{\"prompt\":\"\xe4\"}", says: []string{"UTF-8"}},
		{name: "UTF-16", text: "\xff\xfe{\x00}\x00", says: []string{"UTF-8"}},
		{name: "no custom_id", text: strings.Replace(good, `"custom_id":"a",`, "", 1), field: "custom_id", says: []string{"missing"}},
		{name: "empty custom_id", text: strings.Replace(good, `"a"`, `""`, 1), field: "custom_id", says: []string{"empty"}},
		{name: "custom_id as a number", text: strings.Replace(good, `"a"`, `7`, 1), field: "custom_id", says: []string{"wrong type", "7", "a string"}},
		{name: "custom_id given twice", text: strings.Replace(good, `{"custom`, `{"custom_id":"a","custom`, 1), customID: "a", field: "custom_id", says: []string{"given twice"}},
		{name: "GET", text: strings.Replace(good, `POST`, `GET`, 1), customID: "a", field: "method", says: []string{`"GET"`, `"POST"`}},
		{name: "unknown url", text: strings.Replace(good, `chat/completions`, `responses`, 1), customID: "a", field: "url", says: []string{`"/v1/responses"`, "/v1/chat/completions", "/v1/completions", "/v1/embeddings"}},
		{name: "a chat's field in an embedding", text: `{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m","input":"x","max_tokens":5}}`, customID: "a", field: "body.max_tokens", says: []string{"unknown field"}},
		{name: "messages for an embedding", text: `{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m","messages":[]}}`, customID: "a", field: "body.messages", says: []string{`did you mean "body.input"?`}},
		{name: "url as a number", text: strings.Replace(good, `"/v1/chat/completions"`, `1`, 1), customID: "a", field: "url", says: []string{"wrong type"}},
		{name: "no url", text: `{"custom_id":"a","method":"POST","body":{}}`, customID: "a", field: "url", says: []string{"missing"}},
		{name: "no body", text: `{"custom_id":"a","method":"POST","url":"/v1/chat/completions"}`, customID: "a", field: "body", says: []string{"missing"}},
		{name: "body as a string", text: line(`"x"`), customID: "a", field: "body", says: []string{"wrong type", "a JSON object"}},
		{name: "null body", text: line(`null`), customID: "a", field: "body", says: []string{"wrong type", "null"}},
		{name: "unknown field", text: strings.Replace(good, `{"custom`, `{"priority":1,"custom`, 1), customID: "a", field: "priority", says: []string{"unknown field"}},
		{name: "misspelt field", text: strings.Replace(good, `"custom_id"`, `"customid"`, 1), field: "customid", says: []string{`did you mean "custom_id"?`, "custom_id: missing"}},
		{name: "prompt beside body", text: `{"custom_id":"z","url":"/v1/completions","prompt":"a"}`, customID: "z", field: "prompt", says: []string{`did you mean "body.prompt"?`, "body: missing"}},
		{name: "misspelt prompt", text: `{"promt":"x"}`, field: "promt", says: []string{`did you mean "prompt"?`}},
		{name: "unknown body field", text: line(`{"model":"m","messages":[{"role":"user","content":"x"}],"max_token":5}`), customID: "a", field: "body.max_token", says: []string{`did you mean "body.max_tokens"?`}},
		{name: "body field of the wrong type", text: line(`{"model":"m","messages":[{"role":"user","content":5}]}`), customID: "a", field: "body.messages[0].content", says: []string{"wrong type"}},
		{name: "body field given twice", text: line(`{"model":"m","model":"m","messages":[{"role":"user","content":"x"}]}`), customID: "a", field: "body.model", says: []string{"given twice"}},
		{name: "stream", text: line(`{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}`), customID: "a", field: "body.stream", says: []string{"not supported"}},
		{name: "schema", text: line(`{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"objekt"}}}}`), customID: "a", field: "body.response_format.json_schema.schema", says: []string{"#/type", `"objekt"`, "object, array"}},
		{name: "grammar", text: `{"prompt":"x","model":"m","grammar":"root ::= [a-z"}`, customID: "line-1", field: "grammar", says: []string{"line 1, column 10", "no closing bracket"}},
		{name: "no model", text: line(`{"messages":[{"role":"user","content":"x"}]}`), customID: "a", field: "body.model", says: []string{"missing", "--model"}},
		{name: "short form, empty prompt", text: `{"prompt":"","model":"m"}`, customID: "line-1", field: "prompt", says: []string{"empty"}},
		{name: "short form, prompt as a list", text: `{"prompt":["x"],"model":"m"}`, customID: "line-1", field: "prompt", says: []string{"wrong type", `["x"]`}},
		{name: "short form, misspelt system", text: `{"prompt":"x","sytem":"y","model":"m"}`, customID: "line-1", field: "sytem", says: []string{`did you mean "system"?`}},
		{name: "short form, misspelt field", text: `{"prompt":"x","top-p":0.5,"model":"m"}`, customID: "line-1", field: "top-p", says: []string{`did you mean "top_p"?`}},
		{name: "short form, out of range", text: `{"prompt":"x","top_p":5,"model":"m"}`, customID: "line-1", field: "top_p", says: []string{"out of range"}},
		{name: "short form with messages", text: `{"prompt":"x","messages":[],"model":"m"}`, customID: "line-1", field: "messages", says: []string{"cannot stand beside prompt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			next := strings.Replace(good, `"a"`, `"next"`, 1)
			lines, faults := read(t, tt.text+"\n"+next, Options{})
			require.Len(t, faults, 1)
			require.Len(t, lines, 1, "the lines after it are not affected")
			require.Equal(t, "next", lines[0].CustomID)
			f := faults[0]
			require.Equal(t, "prompts.jsonl", f.File)
			require.Equal(t, 1, f.Line)
			require.Equal(t, tt.customID, f.CustomID)
			require.Equal(t, tt.field, f.Field)
			require.Equal(t, CodeParseError, f.Code)
			require.NotEmpty(t, f.Hint())
			require.True(t, strings.HasPrefix(f.Error(), "prompts.jsonl:1: "), f.Error())
			for _, s := range tt.says {
				require.Contains(t, f.Error(), s)
			}
		})
	}
}

func TestReadAllFaultsOfALine(t *testing.T) {
	t.Parallel()
	_, faults := read(t, `{"method":"GET","url":"/v1/chat/completions","body":{"model":"m","n":0,"messages":[]},"x":1}`, Options{})
	require.Len(t, faults, 1)
	for _, s := range []string{"method: ", "x: unknown field", "custom_id: missing", "body.n: ", "body.messages: "} {
		require.Contains(t, faults[0].Msg, s)
	}
}

func TestReadDoubledCustomID(t *testing.T) {
	t.Parallel()
	bad := strings.Replace(good, `"POST"`, `"GET"`, 1)
	lines, faults := read(t, strings.Join([]string{
		good, "", good, `{"prompt":"x","custom_id":"line-5","model":"m"}`, `{"prompt":"x","model":"m"}`,
		strings.Replace(bad, `"a"`, `"b"`, 1), strings.Replace(good, `"a"`, `"b"`, 1),
	}, "\n"), Options{})
	require.Len(t, lines, 2)
	require.Len(t, faults, 4)
	require.Equal(t, `prompts.jsonl:3: custom_id: already used in line 1, got "a", allowed: an id of its own for each line`, faults[0].Error())
	require.Equal(t, "a", faults[0].CustomID)
	require.Contains(t, faults[1].Error(), `prompts.jsonl:5: custom_id: already used in line 4, got "line-5"`)
	require.Contains(t, faults[2].Error(), "prompts.jsonl:6: method")
	require.Contains(t, faults[3].Error(), "prompts.jsonl:7: custom_id: already used in line 6", "a bad line's id counts too")
}

func TestReadEmptyFile(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "\r\n \n\t", "\xef\xbb\xbf", "\xef\xbb\xbf\r\n"} {
		_, err := NewReader("prompts.jsonl", strings.NewReader(text), Options{}).Read()
		var empty *EmptyFileError
		require.ErrorAs(t, err, &empty, "%q", text)
		require.Equal(t, "prompts.jsonl: the file has no requests", empty.Error())
		require.Contains(t, empty.Hint(), `{"prompt":"…"}`)
	}
}

func TestReadMarksAndBreaks(t *testing.T) {
	t.Parallel()
	second := strings.Replace(good, `"a"`, `"b"`, 1)
	lines, faults := read(t, "\xef\xbb\xbf"+good+"\r\n\r\n  \n"+second+"\r\n\n", Options{})
	require.Empty(t, faults)
	require.Len(t, lines, 2)
	require.Equal(t, 1, lines[0].Number)
	require.Equal(t, 4, lines[1].Number)
}

func TestReadLongLines(t *testing.T) {
	t.Parallel()
	const limit = 100_000 // over the size of the read buffer
	fits := `{"model":"m","prompt":"` + strings.Repeat("x", limit-25) + `"}`
	require.Len(t, fits, limit)
	for _, end := range []string{"\n", ""} {
		r := NewReader("prompts.jsonl", strings.NewReader(fits+"\n"+fits+" \n{}\n"+strings.Repeat("y", 3*limit)+end), Options{})
		r.limit = limit
		lines, faults := readAll(t, r)
		require.Len(t, lines, 1)
		require.Len(t, faults, 3)
		require.Equal(t, "prompts.jsonl:2: the line is longer than 100000 bytes", faults[0].Error())
		require.Equal(t, 3, faults[1].Line)
		require.Equal(t, "prompts.jsonl:4: the line is longer than 100000 bytes", faults[2].Error())
		require.LessOrEqual(t, cap(r.buf), 2*limit, "a long line is not kept")
	}
}

func TestReadOnlyALongLine(t *testing.T) {
	t.Parallel()
	r := NewReader("f", strings.NewReader("123456"), Options{})
	r.limit = 5
	_, faults := readAll(t, r)
	require.Len(t, faults, 1)
}

func TestReadFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	r := NewReader("prompts.jsonl", io.MultiReader(strings.NewReader(good+"\n{"), iotest.ErrReader(broken)), Options{})
	_, err := r.Read()
	require.NoError(t, err)
	_, err = r.Read()
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "read prompts.jsonl: line 2: ")
}

func TestPrompt(t *testing.T) {
	t.Parallel()
	line, err := Prompt("The cat \"sat\"\n", Options{DefaultModel: "m", MaxTokens: 7})
	require.NoError(t, err)
	require.Equal(t, Line{
		CustomID: "prompt", Model: "m", URL: api.ChatCompletions,
		Body: []byte(`{"messages":[{"role":"user","content":"The cat \"sat\"\n"}],"model":"m","max_tokens":7}`),
	}, line)

	_, err = Prompt("", Options{DefaultModel: "m"})
	require.EqualError(t, err, "--prompt: prompt: empty, allowed: a string that is not empty")
	_, err = Prompt("x", Options{})
	require.ErrorContains(t, err, "--prompt: --model: missing")
}

// Whatever the input, each line is a request, an error or blank, in order.
func FuzzReader(f *testing.F) {
	f.Add([]byte(good + "\n" + good + "\r\n\n{\"prompt\":\"x\"}"))
	f.Add([]byte("\xef\xbb\xbf{\"prompt\":\"x\",\"system\":null,\"seed\":1}\n[]\nnull\n \n"))
	f.Add([]byte(strings.Repeat("x", 1500) + "\n{\"prompt\":1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1000
		seed := uint32(1)
		r := NewReader("f", bytes.NewReader(data), Options{DefaultModel: "m", MaxTokens: 5, Seed: &seed})
		r.limit = limit
		all := bytes.Split(data, []byte("\n"))
		if len(all[len(all)-1]) == 0 {
			all = all[:len(all)-1] // what follows the last line break is no line
		}
		all = append([][]byte{nil}, all...)
		if len(all) > 1 && len(all[1]) <= limit {
			all[1] = bytes.TrimPrefix(all[1], []byte("\xef\xbb\xbf"))
		}
		at, ids := 0, map[string]bool{}
		blanks := func(to int) {
			for at++; at < to; at++ {
				require.Empty(t, bytes.TrimSpace(all[at]), "line %d is lost", at)
			}
		}
		for {
			line, err := r.Read()
			var fault *LineError
			var empty *EmptyFileError
			switch {
			case errors.Is(err, io.EOF), errors.As(err, &empty):
				require.Equal(t, at == 0, empty != nil)
				blanks(len(all))
				return
			case errors.As(err, &fault):
				blanks(fault.Line)
				require.NotEmpty(t, fault.Msg)
			default:
				require.NoError(t, err)
				blanks(line.Number)
				require.False(t, ids[line.CustomID], "doubled id")
				ids[line.CustomID] = true
				req, err := api.ParseRequest(line.URL, line.Body)
				require.NoError(t, err)
				require.Equal(t, req.Model, line.Model)
				require.NotEmpty(t, line.Model)
			}
		}
	})
}

func ExampleReader() {
	r := NewReader("prompts.jsonl", strings.NewReader(`{"prompt":"What is a cat?"}
{"prompt":"What is a dog?","max_token":5}
`), Options{DefaultModel: "SmolLM2-135M-Instruct"})
	for {
		line, err := r.Read()
		var fault *LineError
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.As(err, &fault):
			fmt.Println(fault)
		case err != nil:
			fmt.Println("stop:", err)
			return
		default:
			fmt.Println(line.CustomID, string(line.Body))
		}
	}
	// Output:
	// line-1 {"messages":[{"role":"user","content":"What is a cat?"}],"model":"SmolLM2-135M-Instruct"}
	// prompts.jsonl:2: max_token: unknown field; did you mean "max_tokens"?
}
