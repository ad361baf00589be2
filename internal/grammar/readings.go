package grammar

// readings finds what llama.cpp does not: recursion through rules that can be empty
// in several steps, which it would follow without end, and rules that can begin in
// so many ways that it cannot follow them. Only rules that the root can come to
// matter.
func (p *source) readings() error {
	g := &graph{
		source: p,
		empty:  p.emptyRules(),
		index:  make([]int, len(p.rules)),
		low:    make([]int, len(p.rules)),
		group:  make([]int, len(p.rules)),
		count:  make([]int, len(p.rules)),
	}
	seen := make([]bool, len(p.rules))
	todo := []int{p.names[rootRule]}
	for len(todo) > 0 {
		rule := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[rule] {
			continue
		}
		seen[rule] = true
		if g.index[rule] == 0 {
			if err := g.visit(rule); err != nil {
				return err
			}
		}
		for _, alternative := range p.rules[rule].alternatives {
			for _, e := range alternative {
				if e.rule >= 0 && !seen[e.rule] {
					todo = append(todo, e.rule)
				}
			}
		}
	}
	return nil
}

// emptyRules are the rules that can be empty in any number of steps.
func (p *source) emptyRules() []bool { return p.madeOf(true) }

// endingRules are the rules that have a text: those of the others would contain
// themselves without end.
func (p *source) endingRules() []bool { return p.madeOf(false) }

// madeOf are the rules with an alternative of nothing but such rules, and of
// characters and tokens unless they count.
func (p *source) madeOf(charactersCount bool) []bool {
	made := make([]bool, len(p.rules))
	type place struct{ rule, alternative int }
	users := make([][]place, len(p.rules))
	left := make([][]int, len(p.rules)) // elements of an alternative that stand in the way
	var todo []int
	mark := func(rule int) {
		if !made[rule] {
			made[rule] = true
			todo = append(todo, rule)
		}
	}
	for i, r := range p.rules {
		left[i] = make([]int, len(r.alternatives))
		for j, alternative := range r.alternatives {
			for _, e := range alternative {
				if e.rule >= 0 {
					users[e.rule] = append(users[e.rule], place{i, j})
				}
				if e.rule >= 0 || charactersCount {
					left[i][j]++
				}
			}
			if left[i][j] == 0 {
				mark(i)
			}
		}
	}
	for len(todo) > 0 {
		rule := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, u := range users[rule] {
			if left[u.rule][u.alternative]--; left[u.rule][u.alternative] == 0 {
				mark(u.rule)
			}
		}
	}
	return made
}

// graph is the rules with those that can begin them, in groups of which each can
// begin each other (Tarjan's algorithm).
type graph struct {
	*source
	empty []bool
	index []int // the order in which rules were come to, from 1
	low   []int
	group []int // from 1, 0 = not closed yet
	count []int // readings of a rule that is closed
	stack []int
	next  int
	made  int
}

func (g *graph) visit(rule int) error {
	g.next++
	g.index[rule], g.low[rule] = g.next, g.next
	g.stack = append(g.stack, rule)
	var err error
	g.mayBegin(rule, g.empty, func(next int, _ bool) {
		switch {
		case err != nil:
		case g.index[next] == 0:
			err = g.visit(next)
			g.low[rule] = min(g.low[rule], g.low[next])
		case g.group[next] == 0:
			g.low[rule] = min(g.low[rule], g.index[next])
		}
	})
	if err != nil || g.low[rule] != g.index[rule] {
		return err
	}
	return g.close(rule)
}

// close makes a group of the rules on the stack from rule on.
//
// A rule that comes back to itself with something behind it makes llama.cpp's
// stack longer with every turn, without end. With nothing behind, it comes to a
// stack that it has seen.
func (g *graph) close(rule int) error {
	g.made++
	from := len(g.stack) - 1
	for g.stack[from] != rule {
		from--
	}
	members := g.stack[from:]
	for _, m := range members {
		g.group[m] = g.made
	}
	total := 0
	for _, m := range members {
		var err error
		terminals := g.mayBegin(m, g.empty, func(next int, last bool) {
			switch {
			case g.group[next] != g.made:
				total += g.count[next]
			case !last:
				err = g.recursive(m)
			}
		})
		if err != nil {
			return err
		}
		if total += terminals; total > maxReadings {
			return g.fault(g.rules[m].at, "what is defined here can begin in more than %d ways", maxReadings)
		}
	}
	for _, m := range members {
		g.count[m] = total
	}
	g.stack = g.stack[:from]
	return nil
}
