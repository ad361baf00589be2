package report

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func fox() *api.ParallelResult {
	return &api.ParallelResult{
		Text: "The [quick/swift/red/sly] fox", Positions: 3, Tokens: 7, Removed: 1,
		Sets: [][]api.ParallelToken{
			{{Text: "The", Probability: 0.9}},
			{{Text: " quick", Probability: 0.5}, {Text: " swift", Probability: 0.26}, {Text: " red", Probability: 0.12}, {Text: " lazy", Probability: 0.06, Removed: true}, {Text: " sly", Probability: 0.06}},
			{{Text: " fox", Probability: 0.9}},
		},
	}
}

func parallelText(t *testing.T, r *api.ParallelResult, color bool) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, Parallel(&out, r, color))
	return out.String()
}

func TestParallel(t *testing.T) {
	t.Parallel()
	r := fox()
	require.Equal(t, "The [quick/swift/red/sly] fox\n", parallelText(t, r, false))
	require.Equal(t, "The \x1b[38;5;243m[\x1b[39m\x1b[38;5;29mquick\x1b[39m\x1b[38;5;243m/\x1b[39m\x1b[38;5;32mswift\x1b[39m"+
		"\x1b[38;5;243m/\x1b[39m\x1b[38;5;130mred\x1b[39m\x1b[38;5;243m/\x1b[39m\x1b[38;5;133msly\x1b[39m\x1b[38;5;243m]\x1b[39m fox",
		strings.SplitN(parallelText(t, r, true), "\n", 2)[0])
	plain := regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(parallelText(t, r, true), "")
	require.Equal(t, "The [quick/swift/red/sly] fox\n\nprobability of the tokens in brackets: 50 % or more · 25 % · 10 % · less; 1 removed token is left out\n", plain)
	r.Removed, r.CutByMemory = 3, 2
	require.Contains(t, parallelText(t, r, true), "; 3 removed tokens are left out")
	require.Contains(t, parallelText(t, r, true), "; cut by memory: 2")
	require.ErrorIs(t, Parallel(broken{}, r, false), errBroken)
}

func TestParallelWithoutColours(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		result api.ParallelResult
		want   string
	}{
		"no sets":        {api.ParallelResult{Text: "The [quick/swift] fox"}, "The [quick/swift] fox\n"},
		"no brackets":    {api.ParallelResult{Text: "a\n", Sets: [][]api.ParallelToken{{{Text: "a"}}, {{Text: "\n"}}}}, "a\n"},
		"nothing":        {api.ParallelResult{}, "\n"},
		"controls":       {api.ParallelResult{Text: "a\x1b[2J\ta\rb\nc"}, "a\\x1b[2J\ta\\rb\nc\n"},
		"a split letter": {api.ParallelResult{Text: "ö", Sets: [][]api.ParallelToken{{{Text: `\xc3`}}, {{Text: `\xb6`}}}}, "ö\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, parallelText(t, &test.result, false))
			require.Equal(t, test.want, parallelText(t, &test.result, true), "there is nothing to colour")
		})
	}
	r := fox()
	r.Sets[1][0].Text, r.Sets[2][0].Text = " \x1b[2J", "\x1b[2J"
	require.NotContains(t, parallelText(t, r, true), "\x1b[2J")
}

// All colours stand out from a dark and from a light background.
func TestColoursAreLegible(t *testing.T) {
	t.Parallel()
	codes := []int{quiet}
	for _, s := range shades() {
		codes = append(codes, s.code)
	}
	for _, code := range codes {
		l := luminance(code)
		require.Greater(t, (l+0.05)/0.05, 3.5, "colour %d on black", code)
		require.Greater(t, 1.05/(l+0.05), 3.5, "colour %d on white", code)
	}
}

// luminance is the relative luminance (WCAG 2) of one of xterm's 256 colours, from 16 on.
func luminance(code int) float64 {
	rgb := [3]float64{}
	for i := range rgb {
		level := 8 + 10*(code-232) // a grey
		if code < 232 {
			level = []int{0, 95, 135, 175, 215, 255}[(code-16)/[3]int{36, 6, 1}[i]%6]
		}
		c := float64(level) / 255
		rgb[i] = math.Pow((c+0.055)/1.055, 2.4)
		if c <= 0.04045 {
			rgb[i] = c / 12.92
		}
	}
	return 0.2126*rgb[0] + 0.7152*rgb[1] + 0.0722*rgb[2]
}
