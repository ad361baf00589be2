package grammar_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"tempo/internal/grammar"
	"tempo/internal/infer/llama"
)

// Whatever way a walk takes through the grammar of a random schema, it comes to
// JSON that is valid by that schema, as another implementation of JSON Schema sees
// it.
func TestWalks(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	made := 0
	const schemas, walks = 400, 6
	for seed := range uint64(schemas) {
		r := rand.New(rand.NewPCG(seed, 1))
		schema := (&schemaMaker{r}).document()
		gbnf, err := grammar.FromSchema(json.RawMessage(schema))
		var fault *grammar.SchemaError
		if errors.As(err, &fault) && asksTooMuch.MatchString(fault.Problem) {
			continue
		}
		require.NoError(t, err, "%s", schema)
		made++
		valid := validator(t, schema)
		start := j.grammar(t, gbnf)
		for range walks {
			text := walk(t, j, start, r)
			require.NoError(t, valid(text), "schema %d: %s\nanswer: %s", seed, schema, text)
		}
	}
	require.Greater(t, made, schemas*3/4, "most schemas can be satisfied")
}

// asksTooMuch matches the faults of schemas that no value satisfies, and of two
// that hold of one value and cannot be put together.
var asksTooMuch = regexp.MustCompile("no value is allowed|none of its schemas|without end|leaves no|at most .* are allowed|nothing between|supported (for one value|beside)")

// validator checks a text against a schema, formats included.
func validator(t *testing.T, schema string) func(string) error {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	require.NoError(t, err)
	require.NoError(t, c.AddResource("schema.json", doc))
	s, err := c.Compile("schema.json")
	require.NoError(t, err, "%s", schema)
	return func(text string) error {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		exact, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		return s.Validate(exact)
	}
}

// walk takes random tokens that the grammar allows until it ends. After a while it
// prefers what closes.
func walk(t *testing.T, j *judge, start *llama.Grammar, r *rand.Rand) string {
	t.Helper()
	g := start.Clone()
	defer g.Close()
	var text bytes.Buffer
	logits := make([]float32, j.Vocabulary())
	hurry := r.IntN(200)
	for step := range 20_000 {
		clear(logits)
		require.Positive(t, g.Mask(logits), "a dead end after %s", text.String())
		var all, closing []llama.Token
		for token := range llama.Token(len(logits)) {
			if math.IsInf(float64(logits[token]), -1) {
				continue
			}
			all = append(all, token)
			if j.Ends(token) || strings.Contains(`"}]0:n`, string(j.Piece(token))) {
				closing = append(closing, token)
			}
		}
		if odds := min(9, 3+step/(hurry+1)*3); len(closing) > 0 && r.IntN(10) < odds {
			all = closing
		}
		token := all[r.IntN(len(all))]
		require.NoError(t, g.Accept(token))
		if j.Ends(token) {
			return text.String()
		}
		text.Write(j.Piece(token))
	}
	require.Fail(t, "a walk does not end", "%s", text.String())
	return ""
}

// schemaMaker makes random schemas.
type schemaMaker struct{ r *rand.Rand }

func (m *schemaMaker) document() string {
	return fmt.Sprintf(`{"$defs":{"a":%s,"b":%s,"list":{"type":"object","properties":{"value":%s,"next":{"anyOf":[{"$ref":"#/$defs/list"},{"type":"null"}]}},"required":["next"]}},"allOf":[%s]}`,
		m.schema(2), m.schema(1), m.schema(1), m.schema(0))
}

// pick is one of the texts.
func (m *schemaMaker) pick(texts ...string) string { return texts[m.r.IntN(len(texts))] }

// schema is a random schema, simpler at greater depth.
func (m *schemaMaker) schema(depth int) string {
	kinds := []func(int) string{m.text, m.number, m.listed, m.simple}
	if depth < 3 {
		kinds = append(kinds, m.object, m.object, m.array, m.choice, m.reference, m.all)
	}
	return kinds[m.r.IntN(len(kinds))](depth)
}

func (m *schemaMaker) simple(int) string {
	return m.pick(`{"type":"boolean"}`, `{"type":"null"}`, `{"type":["string","null"]}`, `{"type":["integer","boolean"]}`, `{}`, `true`, `{"type":"array"}`, `{"type":"object"}`)
}

func (m *schemaMaker) reference(int) string {
	return m.pick(`{"$ref":"#/$defs/a"}`, `{"$ref":"#/$defs/b"}`, `{"$ref":"#/$defs/list"}`, `{"$ref":"#"}`)
}

func (m *schemaMaker) text(int) string {
	switch m.r.IntN(4) {
	case 0:
		low := m.r.IntN(4)
		return fmt.Sprintf(`{"type":"string","minLength":%d,"maxLength":%d}`, low, low+m.r.IntN(300))
	case 1:
		p := m.pick(`^[a-z]+$`, `^(ab|c[^d]*)?$`, `^\d{3}-\d{4}$`, `^[^a-z]{2,5}$`, `^\w{1,9}@\w{1,9}\.(com|org)$`, `^(a|b|)*.{0,3}$`, `^[\s\S]?$`, `^-?(0|[1-9]\d*)(\.\d+)?$`)
		return `{"type":"string","pattern":` + quoted(p) + `}`
	case 2:
		f := m.pick("date", "time", "date-time", "duration", "uuid", "email", "hostname", "ipv4", "ipv6", "uri")
		return `{"type":"string","format":"` + f + `"}`
	}
	return `{"type":"string"}`
}

func (m *schemaMaker) number(int) string {
	n := func() float64 {
		scale := []float64{1, 10, 1000, 0.1, 0.001}[m.r.IntN(5)]
		return math.Round(float64(m.r.IntN(401)-200)*scale*1000) / 1000
	}
	low := n()
	high := low + math.Abs(n()) + 1.5 // there is always an integer between
	s := `{"type":"` + m.pick("integer", "number") + `"`
	if m.r.IntN(3) > 0 {
		s += fmt.Sprintf(`,"%s":%v`, m.pick("minimum", "exclusiveMinimum"), low)
	}
	if m.r.IntN(3) > 0 {
		s += fmt.Sprintf(`,"%s":%v`, m.pick("maximum", "exclusiveMaximum"), high+1)
	}
	return s + "}"
}

func (m *schemaMaker) listed(int) string {
	return m.pick(`{"enum":["a","ab","b\"c",1,-2.5,null,{"x":[]}]}`, `{"const":"k"}`, `{"const":[1,{"a":"b"}]}`, `{"type":"string","enum":["red","green","grey"]}`)
}

func (m *schemaMaker) object(depth int) string {
	names := []string{"a", "ab", "abc", "b", `q"u`, "ü", ""}
	m.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var properties, required []string
	for _, name := range names[:m.r.IntN(5)] {
		properties = append(properties, quoted(name)+":"+m.schema(depth+1))
		if m.r.IntN(2) == 0 {
			required = append(required, quoted(name))
		}
	}
	s := `{"type":"object","properties":{` + strings.Join(properties, ",") + `},"required":[` + strings.Join(required, ",") + `]`
	switch m.r.IntN(4) {
	case 0:
		s += `,"additionalProperties":false`
	case 1:
		s += `,"additionalProperties":` + m.schema(depth+1)
	}
	return s + "}"
}

func (m *schemaMaker) array(depth int) string {
	s := `{"type":"array"`
	if m.r.IntN(2) == 0 {
		s += `,"items":` + m.schema(depth+1)
	}
	if m.r.IntN(3) == 0 {
		s += `,"prefixItems":[` + m.schema(depth+1) + "," + m.schema(depth+1) + `]`
	}
	low := m.r.IntN(4)
	if m.r.IntN(2) == 0 {
		s += fmt.Sprintf(`,"minItems":%d`, low)
	}
	if m.r.IntN(2) == 0 {
		s += fmt.Sprintf(`,"maxItems":%d`, low+m.r.IntN(3))
	}
	return s + "}"
}

func (m *schemaMaker) choice(depth int) string {
	return `{"anyOf":[` + m.schema(depth+1) + "," + m.schema(depth+1) + "," + m.simple(depth) + "]}"
}

func (m *schemaMaker) all(depth int) string {
	return `{"allOf":[` + m.object(depth+1) + "," + m.object(depth+1) + `],"title":"both"}`
}
