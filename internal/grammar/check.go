package grammar

// Facts are what an engine wants to know of a grammar that it may use.
type Facts struct {
	// Tokens are the tokens that the grammar names.
	Tokens []TokenName
	// Stepwise says that where a token may come, any other one whose text is the
	// beginning of its text may come too. So whoever looks for all tokens that may
	// come need not look at those that begin like one that may not.
	Stepwise bool
}

// Check finds what makes a grammar unusable in llama.cpp. It returns *SyntaxError
// for what llama.cpp refuses, and for what it would not come back from: endless
// recursion and repetition, and more readings of the same text than it can follow.
// It does not know which tokens a model has; see [Facts].
func Check(gbnf string) error {
	_, err := Inspect(gbnf)
	return err
}

// Inspect is [Check], and tells what it saw.
func Inspect(gbnf string) (*Facts, error) {
	p, err := readSource(gbnf)
	if err != nil {
		return nil, err
	}
	return &Facts{Tokens: p.tokens, Stepwise: len(p.tokens) == 0 && !p.excepts}, nil
}

func readSource(gbnf string) (*source, error) {
	p := &source{text: gbnf, names: map[string]int{}}
	if err := p.read(); err != nil {
		return nil, err
	}
	return p, p.analyse()
}

// Limits of what llama.cpp does with the rules that can begin a rule.
const (
	// maxSteps bounds its search for left recursion, which looks at a rule once for
	// every way to it.
	maxSteps = 20_000_000
	// maxChain bounds the depth of that search, which is a recursion.
	maxChain = 10_000
	// maxReadings bounds how many readings of a text it follows at one place. Each
	// is compared with all others.
	maxReadings = 10_000
)

// analyse looks at which rules can begin which.
func (p *source) analyse() error {
	if err := p.leftRecursion(); err != nil {
		return err
	}
	return p.readings()
}

// mayBegin calls do for each rule that can begin a rule, in the order in which
// llama.cpp looks at them: the first of each alternative, and the next one as long
// as those in front can be empty. last says that nothing comes after it in its
// alternative.
func (p *source) mayBegin(rule int, empty []bool, do func(rule int, last bool)) (terminals int) {
	for _, alternative := range p.rules[rule].alternatives {
		for i, e := range alternative {
			if e.rule < 0 {
				terminals++
				break
			}
			do(e.rule, i == len(alternative)-1)
			if !empty[e.rule] {
				break
			}
		}
	}
	return terminals
}

// leftRecursion does llama.cpp's own search, which sees only rules with an
// alternative of nothing as possibly empty.
func (p *source) leftRecursion() error {
	empty := make([]bool, len(p.rules))
	for i, r := range p.rules {
		for _, alternative := range r.alternatives {
			empty[i] = empty[i] || len(alternative) == 0
		}
	}
	const open, closed = 1, 2
	state := make([]byte, len(p.rules))
	steps := make([]int, len(p.rules)) // of the search from a rule on
	depth := make([]int, len(p.rules))
	var visit func(rule int) error
	visit = func(rule int) error {
		state[rule] = open
		steps[rule] = 1
		for _, a := range p.rules[rule].alternatives {
			steps[rule] += len(a) + 1
		}
		var err error
		p.mayBegin(rule, empty, func(next int, _ bool) {
			switch {
			case err != nil:
				return
			case state[next] == open:
				err = p.recursive(rule)
				return
			case state[next] == 0:
				if err = visit(next); err != nil {
					return
				}
			}
			steps[rule] = min(maxSteps+1, steps[rule]+steps[next])
			depth[rule] = max(depth[rule], depth[next]+1)
		})
		state[rule] = closed
		if err == nil && depth[rule] > maxChain {
			return p.fault(p.rules[rule].at, "more than %d rules that begin with one another", maxChain)
		}
		return err
	}
	total := 0
	for i := range p.rules {
		if state[i] != 0 {
			continue
		}
		if err := visit(i); err != nil {
			return err
		}
		if total += steps[i]; total > maxSteps {
			return p.fault(p.rules[i].at, "there are too many ways from this rule to those that can begin it")
		}
	}
	return nil
}

func (p *source) recursive(rule int) error {
	e := p.fault(p.rules[rule].at, "left recursion: what is defined here can come back to itself before any character")
	if name := p.name(rule); name != "" {
		e.Problem = "left recursion: the rule " + name + " can come back to itself before any character"
	}
	e.hint = `put the recursion at the end, list ::= item list | "", or write a repetition, list ::= item*`
	return e
}
