package batchfile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"tempo/api"
)

// Writer writes results as lines of compact JSON: answers to the output and
// failures to the error file, as OpenAI does. It is not safe for concurrent use.
type Writer struct {
	out, errs *sink
}

// NewWriter writes answers to out and failures to errs; if errs is nil, they go
// to out too.
func NewWriter(out, errs io.Writer) *Writer {
	w := &Writer{out: newSink(out)}
	w.errs = w.out
	if errs != nil {
		w.errs = newSink(errs)
	}
	return w
}

// Write adds the line of r. Lines are held back until there are some kilobytes
// of them, or until Flush. Once writing has failed, it goes on failing.
func (w *Writer) Write(r *api.Result) error {
	to := w.errs
	if r.OK() {
		to = w.out
	}
	if err := to.json.Encode(r); err != nil {
		return fmt.Errorf("write result of %q: %w", r.CustomID, err)
	}
	return nil
}

// Flush writes what was held back.
func (w *Writer) Flush() error {
	if err := errors.Join(w.out.text.Flush(), w.errs.text.Flush()); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

type sink struct {
	text *bufio.Writer
	json *json.Encoder
}

func newSink(w io.Writer) *sink {
	text := bufio.NewWriter(w)
	enc := json.NewEncoder(text)
	enc.SetEscapeHTML(false) // people read these files
	return &sink{text: text, json: enc}
}
