package gguf

import (
	"errors"
	"fmt"
	"strconv"
)

// FormatError says what is wrong with a model file: it is not GGUF, it is cut
// off, or something in it that is needed is absent or contradicts the rest.
type FormatError struct {
	Path string
	What string // what is wrong, with the place in the file where there is one
	Fix  string // what to do about it
}

// Error names the file and what is wrong with it.
func (e *FormatError) Error() string {
	return "read model " + e.Path + ": " + e.What
}

// Hint says what to do.
func (e *FormatError) Hint() string { return e.Fix }

// What to do about a model file that is wrong in one way or the other.
const (
	fixNotGGUF   = "give a GGUF file with --model PATH (llama.cpp's convert_hf_to_gguf.py makes one of a Hugging Face model)"
	fixTruncated = "download it again"
	fixBroken    = "download it again, or convert it again with llama.cpp v0.5.0"
	fixOther     = "choose another model with --model PATH"
)

// group writes n with commas between the thousands, as the sizes in messages
// are read by people.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func missing(key string) error {
	return &FormatError{What: "the key " + key + " is missing", Fix: fixBroken}
}

func broken(format string, args ...any) error {
	return &FormatError{What: fmt.Sprintf(format, args...), Fix: fixBroken}
}

// named adds the path to the FormatError in err, if there is one.
func named(err error, path string) error {
	if fe, ok := errors.AsType[*FormatError](err); ok {
		fe.Path = path
		return fe
	}
	return fmt.Errorf("read model %s: %w", path, err)
}
