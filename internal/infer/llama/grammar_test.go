package llama

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/hybridgroup/yzma/pkg/llama"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tempo/internal/grammar"
	"tempo/internal/setup"
)

// newGrammar makes a grammar over the tiny model.
func newGrammar(t *testing.T, g *Grammars, gbnf string) *Grammar {
	t.Helper()
	made, err := g.NewGrammar(gbnf)
	require.NoError(t, err)
	t.Cleanup(made.Close)
	return made
}

// take has a grammar accept the tokens of a text.
func take(t *testing.T, g *Grammar, text string) {
	t.Helper()
	tokens, err := g.of.model.Tokenize(text)
	require.NoError(t, err)
	for _, token := range tokens {
		require.NoError(t, g.Accept(token), "%q", text)
	}
}

// end is an end-of-generation token of the tiny model.
func end(t *testing.T, m *Model) Token {
	t.Helper()
	tokens, err := m.Tokenize("<|im_end|>")
	require.NoError(t, err)
	require.True(t, m.Ends(tokens[0]))
	return tokens[0]
}

// one is the token that is just this text.
func one(t *testing.T, m *Model, text string) Token {
	t.Helper()
	for token, piece := range m.pieces {
		if string(piece) == text {
			return Token(token)
		}
	}
	require.Fail(t, "no such token", "%q", text)
	return 0
}

// masked are the tokens that Mask leaves.
func masked(t *testing.T, g *Grammar) map[Token]bool {
	t.Helper()
	logits := make([]float32, g.of.model.Vocabulary())
	for i := range logits {
		logits[i] = float32(i)
	}
	n := g.Mask(logits)
	left := map[Token]bool{}
	for i, v := range logits {
		if !math.IsInf(float64(v), -1) {
			require.InDelta(t, i, v, 0, "what may come is left as it is")
			left[Token(i)] = true
		}
	}
	require.Len(t, left, n)
	return left
}

// In every state Mask, Allows and Filter say the same of every token, whether the
// beginnings of tokens are used or not.
func TestGrammarMask(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	grammars := m.Grammars()
	r := rand.New(rand.NewPCG(1, 2))
	for _, gbnf := range []string{
		`root ::= "{" [ \n]* ("\"" [a-z é]* "\"" ":" [0-9]+ ","?)* "}"`,
		`root ::= ([^"\\é] | "\\" .)+ "\""`,
		`root ::= "the" (" " [a-z]+){1,5} | [ä-ü世]+ | <|im_start|> "a"`,
		`root ::= .{3}`,
	} {
		for range 20 {
			g := newGrammar(t, grammars, gbnf)
			for range 12 {
				left := masked(t, g)
				other := g.Clone()
				other.stepwise = false
				require.Equal(t, left, masked(t, other))
				other.Close()
				var all, some []Token
				for token := range Token(m.Vocabulary()) {
					require.Equal(t, left[token], g.Allows(token), "%s: token %d %q", gbnf, token, m.Piece(token))
					all = append(all, token)
					if left[token] {
						some = append(some, token)
					}
				}
				require.Equal(t, some, g.Filter(all), gbnf)
				require.NotEmpty(t, some, gbnf)
				token := some[r.IntN(len(some))]
				require.NoError(t, g.Accept(token))
				if m.Ends(token) {
					break
				}
			}
		}
	}
}

func TestGrammarAccept(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	g := newGrammar(t, m.Grammars(), `root ::= "abc" | "abd"`)
	require.False(t, g.Allows(end(t, m)))
	require.ErrorContains(t, g.Accept(one(t, m, "x")), `("x"): the grammar does not allow it here`)
	require.Error(t, g.Accept(end(t, m)))
	require.Error(t, g.Accept(-1))
	require.Error(t, g.Accept(Token(m.Vocabulary())))
	take(t, g, "ab")
	require.Equal(t, map[Token]bool{one(t, m, "c"): true, one(t, m, "d"): true}, masked(t, g))
	require.False(t, g.Allows(one(t, m, "a")), "refused tokens have changed nothing, taken ones have")
	take(t, g, "d")
	require.True(t, g.Allows(end(t, m)))
	require.NoError(t, g.Accept(end(t, m)))
	g.Close()
	g.Close()
}

func TestGrammarDeadEnd(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	grammars := m.Grammars()
	g := newGrammar(t, grammars, `root ::= "a"+`)
	take(t, g, "a")
	require.True(t, g.Allows(end(t, m)))
	dead := newGrammar(t, grammars, `root ::= "a" [^\x00-\U0010FFFF]`)
	take(t, dead, "a")
	require.Empty(t, masked(t, dead))
	require.Empty(t, dead.Filter([]Token{one(t, m, "a")}))
	require.Empty(t, dead.Filter(nil))
}

func TestGrammarClone(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	g := newGrammar(t, m.Grammars(), `root ::= [a-z]+ "é" "!"`)
	take(t, g, "ab")
	lead := one(t, m, "\xc3")
	require.NoError(t, g.Accept(lead))
	c := g.Clone()
	require.NoError(t, c.Accept(one(t, m, "\xa9")))
	take(t, c, "!")
	g.Close()
	c.Close()
}

// A character can come in parts, but only as valid UTF-8, whatever the grammar
// says, and an end does not come within it.
func TestGrammarUTF8(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	grammars := m.Grammars()
	for text, valid := range map[string]bool{
		"é": true, "世": true, "🙂": true, "\u0800": true, "\U0010FFFF": true,
		"\x80": false, "\xc0\xaf": false, "\xe0\x82\xaf": false, "\xf0\x82\x80\x80": false, "\xed\xa0\x80": false,
		"\xf4\x90\x80\x80": false, "\xf8\x88\x80\x80\x80": false, "\xc3(": false, "\xff": false, "\x00": false,
	} {
		g := newGrammar(t, grammars, `root ::= [^"]*`)
		whole := true
		for i := range len(text) {
			token := one(t, m, text[i:i+1])
			if whole = g.Allows(token) && masked(t, g)[token]; !whole {
				require.Error(t, g.Accept(token))
				break
			}
			require.NoError(t, g.Accept(token))
			require.Equal(t, i == len(text)-1, g.Allows(end(t, m)), "%q", text[:i+1])
		}
		require.Equal(t, valid, whole, "%q", text)
	}
}

// Tokens without text come only where a grammar names them.
func TestGrammarSpecial(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	grammars := m.Grammars()
	start, err := m.Tokenize("<|im_start|>")
	require.NoError(t, err)
	g := newGrammar(t, grammars, `root ::= .*`)
	require.False(t, g.Allows(start[0]), "llama.cpp takes it for its name's characters")
	require.False(t, masked(t, g)[start[0]])
	for _, gbnf := range []string{`root ::= "a" <|im_start|> "b"`, `root ::= "a" <[1]> "b"`} {
		named := newGrammar(t, grammars, gbnf)
		require.False(t, named.Allows(start[0]))
		take(t, named, "a<|im_start|>")
		require.False(t, named.Allows(start[0]))
		take(t, named, "b")
		require.True(t, named.Allows(end(t, m)))
	}
	not := newGrammar(t, grammars, `root ::= !<[4]>*`)
	require.False(t, not.Allows(start[0]), "nor because it is not another one")
	require.False(t, not.Allows(4))
	require.True(t, not.Allows(5))
}

func TestNewGrammarFaults(t *testing.T) {
	t.Parallel()
	grammars := openModel(t, true).Grammars()
	var fault *grammar.SyntaxError
	_, err := grammars.NewGrammar("root ::= \"a\"\nb ::= c")
	require.ErrorAs(t, err, &fault)
	require.Equal(t, 2, fault.Line)
	_, err = grammars.NewGrammar("root ::= \"a\"\n  <no-such-token>")
	require.ErrorAs(t, err, &fault)
	_, err = grammars.NewGrammar(`root ::= "a" | <no-such-token>`)
	require.ErrorAs(t, err, &fault)
	require.Equal(t, 16, fault.Column)
	require.Contains(t, err.Error(), "<no-such-token> is not one token of this model")
	_, err = grammars.NewGrammar("")
	require.ErrorAs(t, err, &fault, "llama.cpp would allow everything")
}

// Grammars of one model can be used at once.
func TestGrammarsAtOnce(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	grammars := m.Grammars()
	const gbnf = `root ::= ("the" | [0-9a-f])+`
	first := newGrammar(t, grammars, gbnf)
	token := one(t, m, "a")
	before := len(masked(t, first))
	require.NoError(t, first.Accept(token))
	after := len(masked(t, first))
	require.Greater(t, after, before, "it may end now")
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			logits := make([]float32, m.Vocabulary())
			for range 50 {
				g, err := grammars.NewGrammar(gbnf)
				if err != nil {
					return err
				}
				defer g.Close()
				was := g.Mask(logits)
				if err := g.Accept(token); err != nil {
					return err
				}
				if is := g.Mask(logits); was != before || is != after {
					return fmt.Errorf("%d and %d tokens allowed, want %d and %d", was, is, before, after)
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
}

// fatal are faults that llama.cpp may not see, and then not come back from.
var fatal = regexp.MustCompile("at least but|left recursion|the rule root is not defined")

// What the check takes llama.cpp takes too, and what it refuses llama.cpp refuses,
// but for what llama.cpp would not come back from.
func TestCheckIsLlamas(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	const pieces = `a b root ::= | ( ) * + ? {2} {1,3} { } , "x" "" [a-z] [^\n] [ ] . < > ! - # \ \x41 \u00e9 _ 1`
	parts := append(strings.Fields(pieces), " ", " ", "\n", "\n", "\nroot ::= ", "\na ::= ", "\nb ::= ", "\" \"", "é")
	seeds := []string{
		"root ::= a (\"x\" | [a-z]{1,3})* b?\na ::= \"y\"+ # why\nb ::= [^\\n\\\"] .\n",
		"root ::= \"(\" root \")\" | a\na ::=\n  \"x\" |\n  \"y\"\n\nb ::= (\n a\n)",
		"root ::= a b{2}\na ::= b | \"\"\nb ::= \"z\" a \"w\"\n",
	}
	r := rand.New(rand.NewPCG(7, 7))
	taken, refused := 0, 0
	for range 2000 {
		text := seeds[r.IntN(len(seeds))]
		for range 1 + r.IntN(4) {
			at := r.IntN(len(text) + 1)
			switch r.IntN(3) {
			case 0:
				text = text[:at] + parts[r.IntN(len(parts))] + text[at:]
			case 1:
				text = text[:at] + text[min(len(text), at+1+r.IntN(3)):]
			default:
				text = text[:at] + parts[r.IntN(len(parts))] + text[min(len(text), at+1):]
			}
		}
		err := grammar.Check(strings.ToValidUTF8(text, "?"))
		if err != nil && fatal.MatchString(err.Error()) {
			continue
		}
		if strings.ContainsAny(text, "<!") {
			continue // tokens that the model has or not
		}
		sampler := llama.SamplerInitGrammar(m.vocab, strings.ToValidUTF8(text, "?"), "root")
		require.Equal(t, err == nil, sampler != 0, "%q: %v", text, err)
		llama.SamplerFree(sampler)
		if err == nil {
			taken++
		} else {
			refused++
		}
	}
	require.Greater(t, taken, 150)
	require.Greater(t, refused, 1000)
}

// BenchmarkGrammar measures the example model's vocabulary of 49,152: in an
// object's frame, where few tokens may come, and in a string, where nearly all may.
// "all" is without the order of the vocabulary.
func BenchmarkGrammar(b *testing.B) {
	paths, err := setup.Locate("")
	require.NoError(b, err, "run `make setup`")
	lib, err := Load(paths.LlamaLib, zap.NewNop())
	require.NoError(b, err)
	m, err := lib.OpenModel(paths.Model, ModelOptions{GPU: -1, DryRun: true})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, m.Close()) })
	gbnf, err := grammar.FromSchema([]byte(`{"properties":{"name":{"type":"string"},"age":{"type":"integer"},"tags":{"items":{"enum":["a","b"]}}},"required":["name","age"]}`))
	require.NoError(b, err)
	grammars := m.Grammars()
	run := func(name string, do func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				do()
			}
		})
	}
	run("vocabulary", func() { m.Grammars() })
	run("new", func() {
		g, err := grammars.NewGrammar(gbnf)
		require.NoError(b, err)
		g.Close()
	})
	logits := make([]float32, m.Vocabulary())
	for _, place := range []struct{ name, text string }{{"frame", `{"name": "x"`}, {"string", `{"name": "The`}} {
		g, err := grammars.NewGrammar(gbnf)
		require.NoError(b, err)
		tokens, err := m.Tokenize(place.text)
		require.NoError(b, err)
		for _, t := range tokens {
			require.NoError(b, g.Accept(t))
		}
		all := g.Clone()
		all.stepwise = false
		run(place.name+"/mask", func() { g.Mask(logits) })
		run(place.name+"/mask all", func() { all.Mask(logits) })
		run(place.name+"/allows", func() {
			g.allowed = -1
			g.Allows(tokens[len(tokens)-1])
		})
		some := make([]Token, 64)
		run(place.name+"/filter 64", func() {
			for i := range some {
				some[i] = Token(1000 + 500*i)
			}
			g.Filter(some)
		})
		run(place.name+"/clone", func() { g.Clone().Close() })
		g.Close()
		all.Close()
	}
}
