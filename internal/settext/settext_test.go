package settext

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// set makes a set; a member that begins with "-" was removed.
func set(texts ...string) []Member {
	members := make([]Member, len(texts))
	for i, text := range texts {
		members[i] = Member{Text: text}
		if text != "" && text[0] == '-' {
			members[i] = Member{Text: text[1:], Removed: true}
		}
	}
	return members
}

func TestJoin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sets [][]Member
		want string
	}{
		"nothing":                {nil, ""},
		"single tokens":          {[][]Member{set("The"), set(" fox"), set("es")}, "The foxes"},
		"a space of all":         {[][]Member{set("The"), set(" quick", " swift"), set(" fox")}, "The [quick/swift] fox"},
		"a space of some":        {[][]Member{set("The"), set(" quick", "re", " swift")}, "The[ quick/re/ swift]"},
		"one of two spaces":      {[][]Member{set("  a", " b")}, " [ a/b]"},
		"no space":               {[][]Member{set("a", "b")}, "[a/b]"},
		"an empty member":        {[][]Member{set("a", "")}, "[a/]"},
		"removed":                {[][]Member{set(" a", "-b", " c")}, " [a/c]"},
		"one left":               {[][]Member{set("-a", "b", "-c"), set("d")}, "bd"},
		"none left":              {[][]Member{set("-a", "-b"), set("c")}, "c"},
		"no member":              {[][]Member{{}, set("c")}, "c"},
		"newlines":               {[][]Member{set("a\n\tb"), set("\n", "\n\n", ".\t")}, "a\n\tb[\\n/\\n\\n/.\\t]"},
		"escape sequences":       {[][]Member{set("\x1b[31m", "\r"), set("\x1b")}, "[\\x1b[31m/\\r]\x1b"},
		"brackets and strokes":   {[][]Member{set("[", "/")}, "[[//]"},
		"a character of tokens":  {[][]Member{set("a\xf0\x9f"), set("\x98"), set("\x80b")}, "a😀b"},
		"... that is not whole":  {[][]Member{set("a\xf0\x9f"), set("b")}, `a\xf0\x9fb`},
		"... that a set follows": {[][]Member{set("\xf0\x9f"), set("\x98", "x")}, `\xf0\x9f[\x98/x]`},
		"sets side by side":      {[][]Member{set("a", "b"), set(" c", " d")}, "[a/b] [c/d]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, Join(test.sets))
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	require.Equal(t, []Part{
		{Text: "The "},
		{Position: 1, Members: []Shown{{"quick", 0}, {"swift", 2}}},
		{Text: " fox."},
	}, Split([][]Member{set("The"), set(" quick", "- brown", " swift"), set(" fox"), set("-,", ".")}))
}

func TestEscape(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, escaped, neutral string }{
		"plain":          {"Größe 😀", "Größe 😀", "Größe 😀"},
		"line":           {"a\tb\n", `a\tb\n`, "a\tb\n"},
		"terminal":       {"\x1b]0;x\a\r\x7f\u009b", `\x1b]0;x\x07\r\x7f\x9b`, `\x1b]0;x\x07\r\x7f\x9b`},
		"direction":      {"a\u202eb\u2066c", `a\u202eb\u2066c`, `a\u202eb\u2066c`},
		"not whole":      {"\xc3(\xe2\x82", `\xc3(\xe2\x82`, `\xc3(\xe2\x82`},
		"a real U+FFFD":  {"\ufffd\n", "\ufffd\\n", "\ufffd\n"},
		"backslashes":    {`a\n`, `a\n`, `a\n`},
		"right to left":  {"שלום\u200f", "שלום\u200f", "שלום\u200f"},
		"line separator": {"\u2028", `\u2028`, `\u2028`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.escaped, Escape(test.text))
			require.Equal(t, test.neutral, Neutral(test.text))
		})
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":             "",
		"Größe":        "Größe",
		`\xf0\x9f`:     "\xf0\x9f",
		`a\xc3b`:       "a\xc3b",
		`\x41`:         `\x41`, // no byte that is not whole
		`\xC3`:         `\xC3`, // not as it is written
		`\xf`:          `\xf`,
		`\\xe2`:        "\\\xe2",
		`\x`:           `\x`,
		`\x8g\xg8`:     `\x8g\xg8`,
		`C:\xenon\dir`: `C:\xenon\dir`,
		`\x5cxe9`:      `\xe9`,
		`\x5cx5c`:      `\x5c`,
		`\x5c`:         `\`,
	} {
		require.Equal(t, want, Bytes(text))
	}
}

// Whatever a token's bytes are, its text is valid and tells them.
func TestToken(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Größe":           "Größe",
		`a\n`:             `a\n`,
		"\xc3(":           `\xc3(`,
		`\xe9`:            `\x5cxe9`, // a text, and no byte
		"\\\xe9":          `\\xe9`,
		`\x5c`:            `\x5cx5c`,
		`\x41\xE9\x`:      `\x41\xE9\x`, // nothing is written like that
		`\\xe9`:           `\\x5cxe9`,
		"\\x\xe9":         `\x\xe9`,
		`\xe9` + "\xe9\n": `\x5cxe9\xe9` + "\n",
	} {
		require.Equal(t, want, Token(text))
		require.Equal(t, text, Bytes(want))
	}
}

func FuzzToken(f *testing.F) {
	f.Add(`\xe9\x5c` + "\xe9")
	f.Fuzz(func(t *testing.T, text string) {
		written := Token(text)
		require.True(t, utf8.ValidString(written))
		require.Equal(t, text, Bytes(written))
	})
}
