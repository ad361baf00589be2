package batchfile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"unicode/utf8"

	"tempo/api"
)

// maxLine is the longest line in bytes that is read, without its line break.
const maxLine = 16 << 20

// Options say what holds for lines that leave it open.
type Options struct {
	DefaultModel string   // "" = a line without a model is an error
	MaxTokens    int      // 0 = as many as the context allows
	Seed         *uint32  // nil = each job has its own
	Temperature  *float64 // nil = OpenAI's default, 1
	Reproducible bool     // false = lines that do not ask for it are not
	// Parallel has several tokens at one position; nil = one. A line's own members of
	// tempo win over it one by one, and tempo: {} keeps a line out of it.
	Parallel *api.Parallel
	// ThresholdOff says that there is a threshold for Parallel, which --default-mode holds back.
	ThresholdOff bool
}

// Line is a request of a batch file that has been checked.
type Line struct {
	Number   int // from 1; 0 = the text of --prompt
	CustomID string
	Model    string
	URL      string
	// Body passes api.ParseRequest. It is as the user wrote it, but that it
	// gives the model and what Options add.
	Body json.RawMessage
}

// id is a 128-bit hash of a custom_id: a file of a million lines is remembered
// in tens of megabytes, however long its ids are.
type id [16]byte

// Reader reads a batch file line by line. It is not safe for concurrent use.
type Reader struct {
	name   string
	opts   Options
	in     *bufio.Reader
	limit  int
	number int        // of the line read last
	any    bool       // a line was not blank
	seen   map[id]int // the line that had the custom_id first
	bounds bounds
	buf    []byte
}

// NewReader reads lines from r; name stands for it in messages.
func NewReader(name string, r io.Reader, opts Options) *Reader {
	return &Reader{
		name: name, opts: opts, limit: maxLine,
		in: bufio.NewReaderSize(r, 64<<10), seen: make(map[id]int),
	}
}

// Read returns the next request. A line that cannot become a job is a
// *LineError; reading can go on after it. Every other error is final: io.EOF
// after the last line, *EmptyFileError if there was none, or what reading
// failed with. Blank lines are skipped; a byte order mark and carriage returns
// do no harm.
func (r *Reader) Read() (Line, error) {
	for {
		raw, err := r.next()
		if errors.Is(err, io.EOF) && !r.any {
			return Line{}, &EmptyFileError{File: r.name}
		}
		if err != nil {
			return Line{}, err
		}
		if r.number == 1 {
			raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		r.any = true
		return r.parse(bytes.TrimSuffix(raw, []byte("\r")))
	}
}

// next returns the next line without its line break, valid until the next call.
func (r *Reader) next() ([]byte, error) {
	r.buf = r.buf[:0]
	started, tooLong := false, false
	for {
		part, err := r.in.ReadSlice('\n')
		if !started && len(part) > 0 {
			started = true
			r.number++
		}
		end := err == nil || errors.Is(err, io.EOF)
		if err == nil {
			part = part[:len(part)-1]
		}
		if tooLong = tooLong || len(r.buf)+len(part) > r.limit; !tooLong {
			r.buf = append(r.buf, part...)
		}
		switch {
		case end && !started:
			return nil, io.EOF
		case end && tooLong:
			r.any = true
			return nil, r.wholeLine(fmt.Sprintf("the line is longer than %d bytes", r.limit),
				"shorten the request, or give it in several lines")
		case end:
			return r.buf, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("read %s: line %d: %w", r.name, r.number, err)
		}
	}
}

// remember notes the line's custom_id and returns the line that had it before,
// 0 if none did.
func (r *Reader) remember(customID string) int {
	sum := sha256.Sum256([]byte(customID))
	key := id(sum[:16])
	if first, ok := r.seen[key]; ok {
		return first
	}
	r.seen[key] = r.number
	return 0
}

// wholeLine is the error of a line whose fields cannot be told. Its custom_id mostly can.
func (r *Reader) wholeLine(msg, hint string) *LineError {
	return &LineError{
		File: r.name, Line: r.number, CustomID: customIDIn(r.buf), Msg: msg, Code: CodeParseError, hint: hint,
	}
}

var reCustomID = regexp.MustCompile(`"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")`)

// customIDIn finds the custom_id in a text that is not JSON, "" if there is none.
func customIDIn(text []byte) (id string) {
	if found := reCustomID.FindSubmatch(text); found != nil {
		_ = json.Unmarshal(found[1], &id) // what is no string after all is none
	}
	return id
}

// syntaxError says where in the line the JSON breaks off.
func (r *Reader) syntaxError(raw []byte, err *json.SyntaxError) *LineError {
	before := max(0, min(int(err.Offset)-1, len(raw)))
	column := utf8.RuneCount(raw[:before]) + 1
	hint := "write one JSON object a line: " + bothForms
	switch text := bytes.TrimSpace(raw); {
	case text[0] != '{':
		hint = "each line must be an object of its own, not plain text or part of a list: " + bothForms
	case text[len(text)-1] != '}':
		hint = "the object must end on its line: a line break in a text is written \\n"
	}
	return r.wholeLine(fmt.Sprintf("column %d: not valid JSON: %s", column, err.Error()), hint)
}
