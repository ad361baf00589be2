package batchfile

import (
	"fmt"
	"strings"

	"tempo/api"
)

// CodeParseError is OpenAI's code for a line that cannot become a job.
const CodeParseError = "parse_error"

// LineError says why a line of the input did not become a job. The lines after
// it are not affected.
type LineError struct {
	File     string // as NewReader got it
	Line     int    // from 1; 0 = the text of --prompt
	CustomID string // "" if the line has none
	Field    string // path of the first fault, such as body.max_tokens; "" if it is the line as a whole
	Msg      string // all faults, separated by "; "
	Code     string // CodeParseError
	hint     string
}

// Error names the place and what is wrong there.
func (e *LineError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Hint says what to change to mend the first fault.
func (e *LineError) Hint() string { return e.hint }

// EmptyFileError says that a file has no line with anything on it.
type EmptyFileError struct {
	File string
}

func (e *EmptyFileError) Error() string { return e.File + ": the file has no requests" }

// Hint shows what a line looks like.
func (e *EmptyFileError) Hint() string { return "write one request a line: " + bothForms }

const bothForms = `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[…]}}, or in short {"prompt":"…"}`

// newLineError makes one error of the faults of a line.
func newLineError(file string, l Line, faults []*api.FieldError) *LineError {
	msgs := make([]string, len(faults))
	for i, f := range faults {
		msgs[i] = f.Error()
	}
	return &LineError{
		File: file, Line: l.Number, CustomID: l.CustomID, Field: faults[0].Field,
		Msg: strings.Join(msgs, "; "), Code: CodeParseError, hint: faults[0].Hint(),
	}
}
