package grammar_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judge has llama.cpp decide what a grammar allows, over the tokens of a tiny
// model.
type judge struct {
	*llama.Model
	grammars *llama.Grammars
	ends     []llama.Token
}

func newJudge(t testing.TB) *judge {
	t.Helper()
	spec := infertest.TinySpec(t)
	lib, err := llama.Load(spec.LibDir, zap.NewNop())
	require.NoError(t, err)
	m, err := lib.OpenModel(spec.Model, llama.ModelOptions{GPU: -1, DryRun: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	j := &judge{Model: m, grammars: m.Grammars()}
	for token := range llama.Token(m.Vocabulary()) {
		if m.Ends(token) {
			j.ends = append(j.ends, token)
		}
	}
	require.NotEmpty(t, j.ends)
	return j
}

// grammar makes a grammar for a test.
func (j *judge) grammar(t testing.TB, gbnf string) *llama.Grammar {
	t.Helper()
	g, err := j.grammars.NewGrammar(gbnf)
	require.NoError(t, err, "%s", gbnf)
	t.Cleanup(g.Close)
	return g
}

// reads reports how many bytes of text a grammar takes, and whether it may end
// there.
func (j *judge) reads(t testing.TB, g *llama.Grammar, text string) (taken int, ends bool) {
	t.Helper()
	g = g.Clone()
	defer g.Close()
	tokens, err := j.Tokenize(text)
	require.NoError(t, err)
	for _, token := range tokens {
		if !g.Allows(token) {
			return taken, false
		}
		require.NoError(t, g.Accept(token))
		taken += len(j.Piece(token))
	}
	for _, token := range j.ends {
		ends = g.Allows(token)
	}
	return taken, ends
}

// accepts fails the test if the grammar does not take the whole text.
func (j *judge) accepts(t testing.TB, g *llama.Grammar, text string) {
	t.Helper()
	taken, ends := j.reads(t, g, text)
	require.True(t, ends && taken == len(text), "%s: refused after %q", text, text[:taken])
}

// refuses fails the test if it does.
func (j *judge) refuses(t testing.TB, g *llama.Grammar, text string) {
	t.Helper()
	taken, ends := j.reads(t, g, text)
	require.False(t, ends && taken == len(text), "%s: accepted", text)
}

// quoted is s as JSON.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}
