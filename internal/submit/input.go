package submit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"slices"

	"tempo/internal/batchfile"
)

// input is a batch file that can be read as often as wanted, or one prompt.
type input struct {
	name   string // for messages
	path   string // of the file; "" = prompt
	spool  bool   // path is a copy of ours
	prompt string
	opts   batchfile.Options
}

// openInput prepares the file called name, or stdin if name is "-". What can be
// read only once is copied to a temporary file, so that memory stays bounded.
func openInput(ctx context.Context, name string, stdin io.Reader, opts batchfile.Options) (*input, error) {
	in := &input{name: name, path: name, opts: opts}
	if name == "-" {
		in.name = "standard input"
		return in, in.copyFrom(ctx, func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil })
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, &FileError{Op: "read", Path: name, Err: err}
	}
	if info.IsDir() {
		return nil, &FileError{Op: "read", Path: name, Err: errors.New("it is a directory")}
	}
	if info.Mode().IsRegular() {
		return in, nil
	}
	return in, in.copyFrom(ctx, func() (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, &FileError{Op: "read", Path: name, Err: err}
		}
		return f, nil
	})
}

// copyFrom copies what open opens. Both can wait for somebody for ever, so they
// are left alone when ctx is done.
func (in *input) copyFrom(ctx context.Context, open func() (io.ReadCloser, error)) error {
	f, err := os.CreateTemp("", "tempo-batch-*.jsonl")
	if err != nil {
		return fmt.Errorf("copy %s: %w", in.name, err)
	}
	in.path, in.spool = f.Name(), true
	copied := make(chan error, 1)
	go func() {
		r, err := open()
		if err == nil {
			_, err = io.Copy(f, r)
			err = errors.Join(err, r.Close())
		}
		copied <- err
	}()
	select {
	case err = <-copied:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", in.name, err), in.Close())
	}
	return nil
}

// Close removes the copy, if there is one.
func (in *input) Close() error {
	if !in.spool {
		return nil
	}
	in.spool = false
	if err := os.Remove(in.path); err != nil {
		return fmt.Errorf("remove the copy of %s: %w", in.name, err)
	}
	return nil
}

// lines reads the input from the beginning. A bad line comes as
// *batchfile.LineError and the next follows; any other error is the last.
func (in *input) lines() iter.Seq2[batchfile.Line, error] {
	return func(yield func(batchfile.Line, error) bool) {
		if in.path == "" {
			yield(batchfile.Prompt(in.prompt, in.opts))
			return
		}
		f, err := os.Open(in.path)
		if err != nil {
			yield(batchfile.Line{}, &FileError{Op: "read", Path: in.name, Err: err})
			return
		}
		defer f.Close()
		r := batchfile.NewReader(in.name, f, in.opts)
		for {
			line, err := r.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			var bad *batchfile.LineError
			if !yield(line, err) || (err != nil && !errors.As(err, &bad)) {
				return
			}
		}
	}
}

// content is what a first reading of the input found.
type content struct {
	good, bad int
	models    []string // that good lines name, sorted
	endpoint  string   // the url of the good lines, if all have one
	digest    string   // of route and the good lines
	marks     []uint64 // of the digest after each good line
}

// digest sums up good lines.
type digest struct{ hash.Hash }

// newDigest begins with the model that answers all lines, if there is one: it
// makes another batch of them.
func newDigest(route string) digest {
	d := digest{sha256.New()}
	if route != "" {
		fmt.Fprintf(d, "%q\n", route)
	}
	return d
}

// add adds a line and returns a mark that tells the lines so far from others.
func (d digest) add(line batchfile.Line) uint64 {
	// The number too, since a job is told by it.
	fmt.Fprintf(d, "%d %q %q %q %q\n", line.Number, line.CustomID, line.URL, line.Model, line.Body)
	return binary.BigEndian.Uint64(d.Sum(nil))
}

// scan reads the whole input once. A file without any line is an error, and so is a prompt that
// cannot be sent (*batchfile.LineError). route is the model that answers all lines; "" = as they
// say.
func (in *input) scan(route string) (content, error) {
	var c content
	models := map[string]bool{}
	sum := newDigest(route)
	for line, err := range in.lines() {
		var bad *batchfile.LineError
		switch {
		case errors.As(err, &bad) && in.path != "":
			c.bad++
			continue
		case err != nil:
			return c, err
		}
		if c.good++; c.good == 1 {
			c.endpoint = line.URL
		} else if c.endpoint != line.URL {
			c.endpoint = ""
		}
		models[line.Model] = true
		c.marks = append(c.marks, sum.add(line))
	}
	for m := range models {
		c.models = append(c.models, m)
	}
	slices.Sort(c.models)
	c.digest = hex.EncodeToString(sum.Sum(nil))
	return c, nil
}

// ChangedError says that the input is no longer what it was when it was checked.
// Nothing that differs was sent.
type ChangedError struct {
	File string
	Line int // the first that differs, from 1; 0 = the file has lost its last lines
}

func (e *ChangedError) Error() string {
	if e.Line == 0 {
		return e.File + ": the file was changed while it was sent: lines at its end are gone"
	}
	return fmt.Sprintf("%s:%d: the file was changed while it was sent", e.File, e.Line)
}

// Hint says what to do.
func (e *ChangedError) Hint() string {
	return "run the command again when the file is complete; what it holds then is sent as a batch of its own"
}

// FileError says that a file of the user's cannot be read or written.
type FileError struct {
	Op   string // "read" or "write"
	Path string
	Err  error
}

func (e *FileError) Error() string {
	err := e.Err
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err // the path is said already
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Path, err)
}

func (e *FileError) Unwrap() error { return e.Err }

var errIsInput = errors.New("it is the input file, which would be lost")

// Hint says what to check.
func (e *FileError) Hint() string {
	switch {
	case errors.Is(e.Err, os.ErrNotExist):
		return "check the path; \"-\" reads standard input"
	case errors.Is(e.Err, errIsInput):
		return "name another file for the results, or leave --output out"
	}
	return "check the path and its permissions"
}
