package hub

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]Ref{
		"hf://org/repo/a.gguf":                    {"org", "repo", "a.gguf", "main"},
		"hf://Org-1/re.po_2/q4/a b@c.gguf":        {"Org-1", "re.po_2", "q4/a b@c.gguf", "main"},
		"hf://org/repo/a.gguf@v1.0":               {"org", "repo", "a.gguf", "v1.0"},
		"hf://org/repo/a.gguf@refs/pr/1":          {"org", "repo", "a.gguf", "refs/pr/1"},
		"hf://org/repo/a-00001-of-00002.gguf@abc": {"org", "repo", "a-00001-of-00002.gguf", "abc"},
	} {
		r, err := Parse(address)
		require.NoError(t, err)
		require.Equal(t, want, r)
		require.Equal(t, address, r.String())
		require.True(t, Is(address))
	}
	r, err := Parse("hf://org/repo/a.gguf@main")
	require.NoError(t, err)
	require.Equal(t, "hf://org/repo/a.gguf", r.String())
	require.False(t, Is("/models/hf://x"))
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	for address, says := range map[string]string{
		"/models/a.gguf":                       "it does not begin with hf://",
		"hf://a.gguf":                          "it has no file behind ORG/REPO",
		"hf://org/a.gguf":                      "it has no file behind ORG/REPO",
		"hf://org/repo/":                       `FILE is "", which does not end in .gguf`,
		"hf://org/repo/a.safetensors":          "does not end in .gguf",
		"hf://../repo/a.gguf":                  `ORG is ".."`,
		"hf://org/.git/a.gguf":                 `REPO is ".git"`,
		"hf://org//a.gguf":                     `REPO is ""`,
		"hf://org/repo/../a.gguf":              `FILE is "../a.gguf", allowed are`,
		"hf://org/repo/a//b.gguf":              `FILE is "a//b.gguf"`,
		"hf://org/repo/a\nb.gguf":              `FILE is "a\nb.gguf"`,
		"hf://org/repo/a\\b.gguf":              `FILE is "a\\b.gguf"`,
		"hf://org/repo/a\xff.gguf":             "allowed are printable characters",
		"hf://org/repo/a.gguf@":                `REVISION is ""`,
		"hf://org/repo/a.gguf@../..":           `REVISION is "../.."`,
		"hf://org/repo/a.gguf@" + long:         "at most 200 bytes",
		"hf://org/repo/a.gguf@ä" + long[:150]:  "",
		"hf://org/repo/a.gguf@" + umlauts:      "at most 200 bytes", // escaped it is too long for a name
		"hf://org/repo/" + long + ".gguf":      "at most 200 bytes",
		"hf://org/repo/a-00003-of-00002.gguf":  "there is no part 3 of 2",
		"hf://org/repo/a-00000-of-00002.gguf":  "there is no part 0 of 2",
		"hf://" + long[:97] + "/repo/a.gguf":   "at most 96",
		"hf://org/repo with blanks/a.gguf":     `REPO is "repo with blanks"`,
		"hf://org/repo/ a.gguf":                `FILE is " a.gguf"`,
		"hf://user:word@hub.example/x/y.gguf":  `ORG is "user:word@hub.example"`,
		"hf://org/repo/a.gguf@main\u202egpj.x": "allowed are printable",
	} {
		_, err := Parse(address)
		if says == "" {
			require.NoError(t, err, address)
			continue
		}
		var fault *AddressError
		require.ErrorAs(t, err, &fault, address)
		require.ErrorContains(t, err, says, address)
		require.Contains(t, fault.Hint(), "hf://ORG/REPO/FILE.gguf")
	}
}

var (
	long    = strings.Repeat("l", 201)
	umlauts = strings.Repeat("ä", 40)
)

func TestParts(t *testing.T) {
	t.Parallel()
	r := Ref{"org", "repo", "q4/big-00002-of-00003.gguf", "v1"}
	require.Equal(t, []Ref{
		{"org", "repo", "q4/big-00001-of-00003.gguf", "v1"}, r, {"org", "repo", "q4/big-00003-of-00003.gguf", "v1"},
	}, r.Parts())
	require.Equal(t, []Ref{small}, small.Parts())
	require.Equal(t, []Ref{{"o", "r", "a-1-of-2.gguf", "main"}}, Ref{"o", "r", "a-1-of-2.gguf", "main"}.Parts(), "another name")
}

func TestURL(t *testing.T) {
	t.Parallel()
	endpoint, err := url.Parse("https://hub.example/mirror/")
	require.NoError(t, err)
	require.Equal(t, "https://hub.example/mirror/o/r/resolve/refs%2Fpr%2F1/a%20dir/x%3F%23%25.gguf",
		Ref{"o", "r", "a dir/x?#%.gguf", "refs/pr/1"}.url(endpoint).String())
}

func TestContentRange(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]int64{
		"": {-1, 0}, "bytes 5-9/10": {5, 10}, "bytes 5-9/*": {5, 0}, "bytes */10": {-1, 0}, "items 5-9/10": {-1, 0}, "bytes 5-9": {-1, 0},
	} {
		start, total := contentRange(http.Header{"Content-Range": {text}})
		require.Equal(t, want, [2]int64{start, total}, text)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 98_362_432: "98.4 MB", 4_100_000_000: "4.1 GB", 5e18: "5.0 EB",
	} {
		require.Equal(t, want, Size(n))
	}
}
