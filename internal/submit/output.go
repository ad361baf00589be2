package submit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"tempo/api"
	"tempo/internal/batchfile"
)

// output is where the results go.
type output struct {
	writer *batchfile.Writer
	files  []*os.File
	// render writes an answer for people instead; false = it has not. nil = none.
	render func(*api.Result) (bool, error)
}

// failures says where failures are to be found.
func (o Options) failures() string {
	switch {
	case o.Errors != "":
		return "the error file has"
	case o.Output == os.DevNull:
		return "--errors FILE would have"
	}
	return "the output has"
}

// openOutput opens the files. What they held is replaced with the first line
// that is written, so that a run that fails before has destroyed nothing.
func openOutput(o Options) (*output, error) {
	out := &output{}
	input, err := os.Stat(o.File)
	if err != nil {
		input = nil // standard input, or a prompt
	}
	results, err := out.open(o.Output, o, input)
	if err != nil {
		return nil, errors.Join(err, out.close())
	}
	var failures io.Writer // nil: with the results
	if o.Errors != "" && o.Errors != o.Output {
		if failures, err = out.open(o.Errors, o, input); err != nil {
			return nil, errors.Join(err, out.close())
		}
		if sameFile(results, failures) { // by another name; two writers would overwrite each other
			failures = nil
		}
	}
	out.writer = batchfile.NewWriter(results, failures)
	if o.Render != nil && o.Output == "-" {
		out.render = func(r *api.Result) (bool, error) { return o.Render(o.Stdout, r) }
	}
	return out, nil
}

// open opens one file, with its directory; "-" is stdout.
func (o *output) open(path string, opts Options, input os.FileInfo) (io.Writer, error) {
	if path == "-" {
		return opts.Stdout, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, &FileError{Op: "write", Path: path, Err: err}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, &FileError{Op: "write", Path: path, Err: err}
	}
	o.files = append(o.files, f)
	if info, err := f.Stat(); err == nil && input != nil && info.Mode().IsRegular() && os.SameFile(info, input) {
		return nil, &FileError{Op: "write", Path: path, Err: errIsInput}
	}
	return f, nil
}

// sameFile reports whether what is written to a and b ends in one file.
func sameFile(a, b io.Writer) bool {
	var infos [2]os.FileInfo
	for i, w := range []io.Writer{a, b} {
		f, ok := w.(*os.File)
		if !ok {
			return false
		}
		var err error
		if infos[i], err = f.Stat(); err != nil {
			return false
		}
	}
	return os.SameFile(infos[0], infos[1])
}

// begin empties the files.
func (o *output) begin() error {
	for _, f := range o.files {
		if err := f.Truncate(0); err != nil && !isDevice(f) {
			return &FileError{Op: "write", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// isDevice reports whether f is something that has no length, like /dev/null.
func isDevice(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && !info.Mode().IsRegular()
}

func (o *output) write(r api.Result) error {
	if o.render != nil && r.OK() {
		if err := o.writer.Flush(); err != nil { // what came before stands before it
			return err
		}
		if done, err := o.render(&r); done || err != nil {
			return err
		}
	}
	return o.writer.Write(&r)
}

func (o *output) close() error {
	var errs []error
	if o.writer != nil {
		errs = append(errs, o.writer.Flush())
	}
	for _, f := range o.files {
		if err := f.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", f.Name(), err))
		}
	}
	return errors.Join(errs...)
}
