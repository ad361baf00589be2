package grammar_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/grammar"
)

// Each of these is taken by llama.cpp too, and with it the text.
func TestCheckTakes(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	for _, c := range []struct{ name, gbnf, good, bad string }{
		{"one rule", `root ::= "yes" | "no"`, "no", "maybe"},
		{"any order", "a ::= \"x\"\nroot ::= a b\nb ::= \"y\"", "xy", "x"},
		{"comments and blank lines", "# first\n\nroot ::= \"a\" # then\n  # more\n\n\tb ::= \"c\"\n", "a", "c"},
		{"ends of lines", "root ::= a\r\na ::= \"x\"\ry ::= \"z\"", "x", "z"},
		{"a definition in the next line", "root ::=\n  \"a\" |\n  \"b\"", "b", "c"},
		{"lines in parentheses", "root ::= (\n \"a\"\n \"b\"\n)", "ab", "a"},
		{"no blanks", "root::=\"a\"[b-d](e|\"f\")?\ne::=\"g\"", "acg", "ag"},
		{"names", "root ::= r-2 2\nr-2 ::= \"a\"\n2 ::= \"b\"", "ab", "b"},
		{"escapes", `root ::= "\n\t\r\\\"\[\]\-\x41\u00e9\U0001F642"`, "\n\t\r\\\"[]-Aé🙂", "A"},
		{"classes", `root ::= [a-cx] [^a-c\n] [\]\-\\^] [+-] [-] [a-]`, "x_^+--", "y_^+--"},
		{"a class that excludes umlauts", `root ::= [^ä-ü]+`, "a世", "ö"},
		{"any character", `root ::= . .`, "世x", "x"},
		{"quantifiers", `root ::= "a"* "b"+ "c"? "d"{2} "e"{1,} "f"{0,2} "g"{ 1 , 2 }`, "bddefg", "addefg"},
		{"quantifier of a quantifier", `root ::= "a"{2}{2} "b"*?`, "aaaabb", "aa"},
		{"zero times", `root ::= "a"{0} "b" "c"{0,0}`, "b", "ab"},
		{"nothing", `root ::= ""`, "", "a"},
		{"an alternative of nothing", `root ::= "a" | `, "", "b"},
		{"an empty class", `root ::= "a" [] "b"`, "ab", "a"},
		{"groups", `root ::= (("a" | "b") "c")+`, "acbc", "a"},
		{"recursion at the end", `root ::= "a" root | "b"`, "aab", "a"},
		{"recursion in the middle", `root ::= "(" root ")" | ""`, "(())", "(()"},
		{"repeated optional parts", `root ::= ("a"? "b"?)* "c"`, "abbac", "ab"},
		{"repeated repetitions", `root ::= ("a"*)* ("b"*)+`, "aab", "ba"},
		{"named by what was replaced", "root ::= \"a\"\nroot ::= x\nroot ::= \"b\"", "b", "a"},
		{"defined twice", "root ::= \"a\"\nroot ::= \"b\"", "b", "a"},
		{"recursion that cannot be come to", "root ::= \"a\"\nx ::= y x \"z\"\ny ::= z\nz ::= \"\"", "a", "b"},
		{"a token", `root ::= "a" <|im_start|>`, "a<|im_start|>", "a"},
		{"a token's number", `root ::= <[1]> "b"`, "<|im_start|>b", "b"},
		{"not a token", `root ::= !<|im_start|> "b"`, "ab", "<|im_start|>b"},
		{"deep parentheses", "root ::= " + strings.Repeat("(", 2000) + `"a"` + strings.Repeat(")", 2000), "a", "b"},
		{"a long chain", "root ::= \"a\"{0,2000} \"b\"", "aab", "c"},
		{"more than is counted", `root ::= "a"{0,3000}`, strings.Repeat("a", 3001), "b"},
		{"many alternatives", `root ::= ("a0"` + words(9000) + `)`, "a8999", "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, grammar.Check(c.gbnf))
			g := j.grammar(t, c.gbnf)
			taken, ends := j.reads(t, g, c.good)
			require.True(t, ends, "%q: stopped after %d bytes", c.good, taken)
			_, ends = j.reads(t, g, c.bad)
			require.False(t, ends, "%q", c.bad)
		})
	}
}

// words are the alternatives a1 to an-1.
func words(n int) string {
	var b strings.Builder
	for i := 1; i < n; i++ {
		b.WriteString(` | "a` + strconv.Itoa(i) + `"`)
	}
	return b.String()
}

// Where and what the faults are.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gbnf         string
		line, column int
		problem      string
	}{
		{``, 1, 1, "no rule root"},
		{"# only this\n", 1, 1, "no rule root"},
		{`start ::= "a"`, 1, 1, "no rule root"},
		{"root ::= a\nb ::= \"c\"", 1, 10, "the rule a is not defined"},
		{"root ::= x\nroot ::= \"b\"\nc ::= \"d\"", 1, 10, "the rule x is not defined"},
		{"a ::= root\na ::= \"a\"", 1, 7, "the rule root is not defined"},
		{"a ::= root", 1, 7, "the rule root is not defined"},
		{"root ::= \"a\"\n_x ::= \"b\"", 2, 1, "which names of rules cannot have"},
		{"root ::= a_b\na_b ::= \"b\"", 1, 11, "which names of rules cannot have"},
		{`root = "a"`, 1, 6, "::= was expected"},
		{`root`, 1, 5, "the grammar ends"},
		{"root ::= \"a\"\nroot \"b\"", 2, 6, "::= was expected"},
		{`root ::= "ü" "abc`, 1, 14, "no closing quotation mark"},
		{`root ::= [abc`, 1, 10, "no closing bracket"},
		{`root ::= [a-`, 1, 10, "no closing bracket"},
		{`root ::= "a\d"`, 1, 12, "an escape that there is not"},
		{`root ::= "\x4"`, 1, 11, "2 hexadecimal digits"},
		{`root ::= "\u00g0"`, 1, 11, "4 hexadecimal digits"},
		{`root ::= "\`, 1, 11, "an escape that there is not"},
		{`root ::= ("a" "b"`, 1, 18, "a closing parenthesis"},
		{`root ::= "a")`, 1, 13, "the end of the rule root was expected"},
		{`root ::= 'a'`, 1, 10, "the end of the rule root was expected"},
		{`root ::= /a/`, 1, 10, "the end of the rule root was expected"},
		{"root ::= \"a\"\n  | \"b\"", 2, 3, "the name of a rule was expected"},
		{`root ::= *`, 1, 10, "nothing in front to repeat"},
		{`root ::= "a" | +`, 1, 16, "nothing in front to repeat"},
		{`root ::= ""*`, 1, 12, "nothing in front to repeat"},
		{`root ::= "a"{x}`, 1, 14, "a number of repetitions"},
		{`root ::= "a"{1`, 1, 15, "} was expected"},
		{`root ::= "a"{1,x}`, 1, 16, "} was expected"},
		{`root ::= "a"{3,2}`, 1, 14, "3 repetitions at least but 2 at most"},
		{`root ::= "a"{3,0}`, 1, 14, "3 repetitions at least but 0 at most"},
		{`root ::= "a"{2001}`, 1, 14, "at most 2000"},
		{`root ::= "a"{99999999999999999999}`, 1, 14, "a number of repetitions"},
		{`root ::= (("a"{0,90} "b"){0,90})`, 1, 26, "repetitions in repetitions"},
		{`root ::= "` + strings.Repeat("a", 3000) + `"{1999}`, 1, 3012, "more than 4000000 elements"},
		{"root ::= \"a\x00\"", 1, 12, "NUL"},
		{"root ::= \"a\"\n\"\xff\"", 2, 2, "not UTF-8"},
		{`root ::= root "a" | "b"`, 1, 1, "left recursion: the rule root"},
		{"root ::= a\na ::= b \"x\"\nb ::= \"\" a", 3, 1, "left recursion: the rule b"},
		{"root ::= a \"x\"\na ::= \"\" | root", 2, 1, "left recursion: the rule a"},
		{`root ::= ("a" | "")* "b"`, 1, 20, "left recursion"},
		{`root ::= "a"?*`, 1, 14, "left recursion"},
		{"root ::= a\na ::= b a \"x\" | \"y\"\nb ::= c\nc ::= \"\" | \"z\"", 2, 1, "left recursion: the rule a"},
		{`root ::= <|im_start`, 1, 10, "no closing >"},
		{`root ::= <[12>`, 1, 14, "] was expected"},
		{`root ::= <[x]>`, 1, 12, "the number of a token"},
		{`root ::= ! "a"`, 1, 11, "< was expected"},
		{"root ::= " + strings.Repeat("(", 2001) + `"a"` + strings.Repeat(")", 2001), 1, 2010, "more than 2000 parentheses"},
		{forks(40), 1, 1, "too many ways"},
		{ambiguous(16), 4, 1, "more than 10000 ways"},
		{strings.Repeat("#", 5<<20), 1, 1, "at most 4194304"},
	} {
		err := grammar.Check(c.gbnf)
		var fault *grammar.SyntaxError
		require.ErrorAs(t, err, &fault, "%.100s", c.gbnf)
		require.Contains(t, fault.Problem, c.problem, "%.100s", c.gbnf)
		require.Equal(t, [2]int{c.line, c.column}, [2]int{fault.Line, fault.Column}, "%.100s: %v", c.gbnf, err)
		require.NotEmpty(t, fault.Hint())
		require.Contains(t, err.Error(), "grammar, line ")
	}
}

// forks is a grammar in which each rule begins with the next one in two ways.
func forks(n int) string {
	var b strings.Builder
	b.WriteString("root ::= r0\n")
	for i := range n {
		b.WriteString("r" + strconv.Itoa(i) + " ::= r" + strconv.Itoa(i+1) + " | r" + strconv.Itoa(i+1) + "\n")
	}
	return b.String() + "r" + strconv.Itoa(n) + " ::= \"a\"\n"
}

// ambiguous is such a grammar with an end for each way.
func ambiguous(n int) string {
	var b strings.Builder
	b.WriteString("root ::= r0\n")
	for i := range n {
		next := "r" + strconv.Itoa(i+1)
		b.WriteString("r" + strconv.Itoa(i) + " ::= " + next + " \"x\" | " + next + " \"y\"\n")
	}
	return b.String() + "r" + strconv.Itoa(n) + " ::= \"a\"\n"
}

func TestInspect(t *testing.T) {
	t.Parallel()
	for gbnf, stepwise := range map[string]bool{
		`root ::= [^a-z\n]+ "ü" [ä-ü]`: true,
		`root ::= [^a-zü]+`:            false,
		`root ::= [^\u00e9]`:           false,
		`root ::= <a> "b"`:             false,
	} {
		facts, err := grammar.Inspect(gbnf)
		require.NoError(t, err)
		require.Equal(t, stepwise, facts.Stepwise, gbnf)
	}
	facts, err := grammar.Inspect("root ::= \"a\"\nb ::= !<think> <[17]>")
	require.NoError(t, err)
	require.Equal(t, []grammar.TokenName{{Text: "<think>", Line: 2, Column: 8}, {ID: 17, Line: 2, Column: 16}}, facts.Tokens)
}

// The parser must survive whatever a user writes.
func FuzzCheck(f *testing.F) {
	for _, gbnf := range []string{`root ::= "a" | [b-d]+ (e){2,3}` + "\ne ::= <x> !<[1]> .?", `root ::= "\x41`, "root ::= a\na ::= a"} {
		f.Add(gbnf)
	}
	f.Fuzz(func(t *testing.T, gbnf string) {
		first, second := grammar.Check(gbnf), grammar.Check(gbnf)
		require.Equal(t, first, second)
	})
}
