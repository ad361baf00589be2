package queue

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestToken(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"": "=", "a-Z_0": "a-Z_0", "SmolLM2-1.7B": "SmolLM2-1=2E7B", "a b*>": "a=20b=2A=3E",
		"=": "=3D", "ü": "=C3=BC", "\xff\x00": "=FF=00",
	} {
		require.Equal(t, want, Token(s))
		back, err := Untoken(want)
		require.NoError(t, err)
		require.Equal(t, s, back)
	}
}

func TestUntokenRefusesWhatTokenDoesNotMake(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "a.b", "=4", "a=", "=zz", "=2e", "=41", "==", "= 1", "=+1"} {
		_, err := Untoken(token)
		require.Error(t, err, token)
	}
}

func FuzzToken(f *testing.F) {
	f.Add("", "=")
	f.Add("model.v1", "model=2Ev1")
	f.Add("\xff", "ÿ")
	safe := regexp.MustCompile(`^[A-Za-z0-9_=-]+$`)
	f.Fuzz(func(t *testing.T, a, b string) {
		require.Regexp(t, safe, Token(a))
		back, err := Untoken(Token(a))
		require.NoError(t, err)
		require.Equal(t, a, back)
		require.Equal(t, a == b, Token(a) == Token(b))
		if s, err := Untoken(b); err == nil {
			require.Equal(t, b, Token(s))
		}
	})
}

func TestConsumerNameStaysUniqueAndShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("模", 100)
	names := map[string]bool{}
	for _, p := range [][2]string{{"a", "b+c"}, {"a+b", "c"}, {long, "a"}, {long, "b"}, {"", ""}} {
		name := consumerName(p[0], p[1])
		require.LessOrEqual(t, len(name), 200)
		names[name] = true
	}
	require.Len(t, names, 5)
}
