package schedule

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		stops   []string
		pieces  []string
		want    string
		stopped bool
	}{
		{"nothing", nil, nil, "", false},
		{"no stops", nil, []string{"hello", " world"}, "hello world", false},
		{"empty pieces", []string{"x"}, []string{"", "a", ""}, "a", false},
		{"inside a piece", []string{"END"}, []string{"one END two"}, "one ", true},
		{"a piece", []string{"END"}, []string{"one ", "END"}, "one ", true},
		{"across two pieces", []string{"END"}, []string{"one E", "ND two"}, "one ", true},
		{"across many pieces", []string{"END"}, []string{"one ", "E", "N", "D"}, "one ", true},
		{"at the very beginning", []string{"END"}, []string{"EN", "D"}, "", true},
		{"one byte", []string{"\n"}, []string{"a\nb"}, "a", true},
		{"not quite", []string{"END"}, []string{"EN", "EN", "ED"}, "ENENED", false},
		{"begins again", []string{"aab"}, []string{"aa", "ab"}, "a", true},
		{"several, the first to come", []string{"two", "one"}, []string{"zero one two"}, "zero ", true},
		{"one inside another, complete first", []string{"abcd", "bc"}, []string{"xabcd"}, "xa", true},
		{"the same in pieces", []string{"abcd", "bc"}, []string{"xa", "b", "c", "d"}, "xa", true},
		{"ending together, the longer", []string{"cd", "abcd"}, []string{"xab", "cd"}, "x", true},
		{"overlapping", []string{"bcd", "abc"}, []string{"xabcd"}, "x", true},
		{"letters beyond ASCII", []string{"ö"}, []string{"sch\xc3", "\xb6n"}, "sch", true},
		{"cut before a letter is whole", []string{"\x9f"}, []string{"a\xc3\x9f"}, "a", true},
		{"cut at the end, two bytes", nil, []string{"a\xc3"}, "a", false},
		{"cut at the end, four bytes", nil, []string{"a\xf0\x9f\x99"}, "a", false},
		{"whole at the end", nil, []string{"a\xf0\x9f", "\x99\x82"}, "a🙂", false},
		{"invalid inside", nil, []string{"a\xffb"}, "a\uFFFDb", false},
		{"invalid at the end", nil, []string{"a\x80"}, "a\uFFFD", false},
		{"nothing but a cut", nil, []string{"\xe4"}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := newText(c.stops)
			stopped := false
			for _, p := range c.pieces {
				if stopped = text.add([]byte(p)); stopped {
					break
				}
			}
			require.Equal(t, c.want, text.String())
			require.Equal(t, c.stopped, stopped)
		})
	}
}

// FuzzText checks that the output does not depend on how it was cut into tokens,
// and against a search in the whole.
func FuzzText(f *testing.F) {
	f.Add("one END two", "END", "tw", []byte{3, 1, 2})
	f.Add("xabcd", "abcd", "bc", []byte{1})
	f.Add("aaaab", "aab", "aaab", []byte{2, 2})
	f.Add("sch\xc3\xb6n\xf0\x9f", "\xb6", "", []byte{4})
	f.Fuzz(func(t *testing.T, whole, stop1, stop2 string, cuts []byte) {
		var stops []string
		for _, s := range []string{stop1, stop2} {
			if s != "" {
				stops = append(stops, s)
			}
		}
		atOnce := newText(stops)
		stopped := atOnce.add([]byte(whole))

		inPieces, left, done := newText(stops), whole, false
		for i := 0; len(left) > 0 && !done; i++ {
			n := len(left)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[i%len(cuts)])%8)
			}
			done = inPieces.add([]byte(left[:n]))
			left = left[n:]
		}
		require.Equal(t, stopped, done)
		require.Equal(t, string(atOnce.buf), string(inPieces.buf))
		require.Equal(t, atOnce.String(), inPieces.String())

		require.Equal(t, naive(whole, stops), string(atOnce.buf))
		require.True(t, utf8.ValidString(atOnce.String()))
	})
}

// naive grows the text byte by byte until it ends with a stop string.
func naive(whole string, stops []string) string {
	for end := range len(whole) + 1 {
		cut := -1
		for _, s := range stops {
			if strings.HasSuffix(whole[:end], s) && (cut < 0 || end-len(s) < cut) {
				cut = end - len(s)
			}
		}
		if cut >= 0 {
			return whole[:cut]
		}
	}
	return whole
}
