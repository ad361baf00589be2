package schedule

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"tempo/internal/infer"
)

// text assembles a job's output from the bytes of its tokens and looks for stop
// strings, also where they lie across tokens.
type text struct {
	buf   []byte
	stops [][]byte
	// longest is the length of the longest stop string, in bytes.
	longest int
}

func newText(stops []string) *text {
	t := &text{}
	for _, s := range stops {
		t.stops = append(t.stops, []byte(s))
		t.longest = max(t.longest, len(s))
	}
	return t
}

// add appends a token's bytes. It returns true when a stop string is complete;
// the output then ends before it. Of several in one piece the one counts that is
// complete first (of two that end together, the longer), so that the output does
// not depend on how the text was cut into tokens.
func (t *text) add(piece []byte) bool {
	from := max(0, len(t.buf)-t.longest+1) // where a stop string that ends in piece can begin
	t.buf = append(t.buf, piece...)
	start, end := -1, 0
	for _, stop := range t.stops {
		i := bytes.Index(t.buf[from:], stop)
		if i < 0 {
			continue
		}
		if e := i + len(stop); start < 0 || e < end || e == end && i < start {
			start, end = i, e
		}
	}
	if start < 0 {
		return false
	}
	t.buf = t.buf[:from+start]
	return true
}

// String is the output. A UTF-8 sequence that is not complete at the end is left
// out; other invalid bytes become U+FFFD.
func (t *text) String() string {
	b := t.buf
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		last := b[len(b)-i]
		if utf8.RuneStart(last) {
			if !utf8.FullRune(b[len(b)-i:]) {
				b = b[:len(b)-i]
			}
			break
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// covered are the log probabilities of the tokens that begin within the output: those
// of a stop string are not in it.
func (t *text) covered(logs []infer.TokenLogprobs) []infer.TokenLogprobs {
	at := 0
	for i, l := range logs {
		if at >= len(t.buf) && len(l.Piece) > 0 {
			return logs[:i]
		}
		at += len(l.Piece)
	}
	return logs
}
