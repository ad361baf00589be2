package plain

import (
	"errors"
	"fmt"
	"slices"

	"tempo/api"
	"tempo/internal/infer/llama"
)

// Scratch runs a parallel job by the same rules over llama.cpp, all sets decoded again at
// each step. In a context with llama.ContextOptions.Attention members are removed as the
// job says. Any other does not look at the attention: removed are the members that removed
// names, whatever the job says of it; one of each set must stay. The job must have been
// checked, as for Generate.
//
// The context must be one pool of cells, and take the widest set in one batch with an
// output for each member. Beside two sequences it must have one for each member that is
// removed, and one for each of an isolated set. What is in it is lost.
func Scratch(c *llama.Context, prompt []int32, ends func(token int32) bool, job *api.Request, limits Limits, removed []Removal) (Result, error) {
	if c.Options().Streams {
		return Result{}, errors.New("generate from scratch: the context has streams")
	}
	p := &repeater{c: c, prompt: prompt, isolate: job.Parallel.Isolate, removed: removed}
	if c.Options().Attention {
		p.removal = job.Parallel.Removal
	}
	r, err := run(p, len(prompt), ends, job, limits)
	if err != nil {
		return r, fmt.Errorf("generate from scratch, step %d: %w", len(r.Steps), err)
	}
	return r, nil
}

// The sequences of a repeater. Those from single on are for one token each.
const (
	lasting = iota // the prompt, and all members that are never removed
	view           // what a set sees, put together for it
	single
)

// repeater has llama.cpp decode everything at each step anew. A cell cannot be taken out of
// a sequence that has others at the same position: so each member that is to be removed
// has a sequence of its own, for as long as it is there.
type repeater struct {
	c       *llama.Context
	prompt  []int32
	isolate bool
	removed []Removal
	removal *api.RetroactiveRemoval // decides what else is removed, nil = nothing

	free []int // sequences for single tokens
	own  []own
	// cells are where members are, and weights the attention that the last set gave them,
	// averaged over its rows; of each step's members. Both only with removal.
	cells   [][]int
	weights [][]float64
}

// own is a member that is to be removed, with its sequence.
type own struct {
	Removal
	seq int
}

func (p *repeater) pass(steps []Step) ([][]float32, error) {
	if err := p.check(steps); err != nil {
		return nil, err
	}
	p.free, p.own, p.cells, p.weights = nil, nil, nil, nil
	for seq := range p.c.Options().Sequences {
		if err := p.c.Forget(seq); err != nil {
			return nil, err
		}
		if seq >= single {
			p.free = append(p.free, seq)
		}
	}
	logits, err := p.decodePrompt()
	for s := 0; s < len(steps) && err == nil; s++ {
		logits, err = p.decodeSet(s, steps[s].Members, s == len(steps)-1)
	}
	return logits, err
}

// check refuses a removal after the last step of what there is not.
func (p *repeater) check(steps []Step) error {
	for _, r := range p.told(steps) {
		if r.Step < 0 || r.Step >= r.After || r.Member < 0 || r.Member >= len(steps[r.Step].Members) {
			return fmt.Errorf("there is no member %d of step %d to remove after step %d", r.Member, r.Step, r.After)
		}
	}
	return nil
}

// told are the removals after the last step that are known beforehand.
func (p *repeater) told(steps []Step) []Removal {
	return slices.DeleteFunc(slices.Clone(p.removed), func(r Removal) bool { return r.After != len(steps)-1 })
}

func (p *repeater) remove(steps []Step) []Removal {
	if p.removal == nil {
		return p.told(steps)
	}
	found := removals(steps, p.removal, func(u, m int) float64 { return p.weights[u][m] })
	p.removed = append(p.removed, found...) // before the next pass
	return found
}

func (p *repeater) decodePrompt() ([][]float32, error) {
	at := 0
	for pos := 0; pos < len(p.prompt); {
		p.c.Clear()
		for ; pos < len(p.prompt) && p.c.Room() > 0; pos++ {
			var err error
			if at, err = p.c.Add(p.prompt[pos], pos, lasting, pos == len(p.prompt)-1); err != nil {
				return nil, err
			}
		}
		if err := p.c.Decode(); err != nil {
			return nil, err
		}
	}
	return p.logits([]int{at})
}

// decodeSet decodes the set of step s, and returns the logits behind its members. Of the last one
// it finds out what it attends to.
func (p *repeater) decodeSet(s int, members []Member, last bool) ([][]float32, error) {
	if err := p.look(s); err != nil {
		return nil, err
	}
	p.c.Clear()
	pos := len(p.prompt) + s
	outputs, seqs := make([]int, len(members)), make([]int, len(members))
	for m, member := range members {
		var err error
		if seqs[m], err = p.sequence(s, m); err != nil {
			return nil, err
		}
		if p.isolate {
			outputs[m], err = p.c.Add(member.Token, pos, seqs[m], true)
		} else {
			outputs[m], err = p.c.AddShared(member.Token, pos, view, seqs[m], true)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := p.decode(len(members), last); err != nil {
		return nil, err
	}
	for m, seq := range seqs {
		if seq == lasting || p.after(s, m) > 0 {
			continue
		}
		if err := errors.Join(p.c.Join(seq, lasting, pos), p.release(seq)); err != nil {
			return nil, err
		}
	}
	return p.logits(outputs)
}

// decode runs the batch of a set through the model and notes where its members are, and of the
// last one what it attends to.
func (p *repeater) decode(rows int, last bool) error {
	if p.removal == nil {
		return p.c.Decode()
	}
	var asked []*llama.Attended // the members of each earlier step
	for _, cells := range p.cells {
		if last {
			asked = append(asked, &llama.Attended{Rows: rows, Cells: cells})
		}
	}
	p.c.Attend(asked)
	if err := errors.Join(p.c.Decode(), p.c.Attention()); err != nil {
		return err
	}
	for _, a := range asked {
		p.weights = append(p.weights, a.Weights)
	}
	var cells []int
	for row := range rows {
		cells = append(cells, p.c.Cell(row))
	}
	p.cells = append(p.cells, cells)
	return nil
}

// look puts together what the set of step s sees, and gives up what no set sees any more.
func (p *repeater) look(s int) error {
	err := errors.Join(p.c.Forget(view), p.c.Share(lasting, view))
	there := p.own[:0]
	for _, o := range p.own {
		if o.After < s {
			err = errors.Join(err, p.release(o.seq))
			continue
		}
		err = errors.Join(err, p.c.Join(o.seq, view, len(p.prompt)+o.Step))
		there = append(there, o)
	}
	p.own = there
	return err
}

// sequence is the one that member m of step s is put into, beside what it sees: lasting if
// it stays and sees the others, else one of its own.
func (p *repeater) sequence(s, m int) (int, error) {
	after := p.after(s, m)
	if after == 0 && !p.isolate {
		return lasting, nil
	}
	if len(p.free) == 0 {
		return 0, fmt.Errorf("%d sequences are too few", p.c.Options().Sequences)
	}
	seq := p.free[0]
	p.free = p.free[1:]
	if after > 0 {
		p.own = append(p.own, own{Removal{after, s, m}, seq})
	}
	return seq, p.c.Share(view, seq)
}

// release gives a sequence of a single token back.
func (p *repeater) release(seq int) error {
	p.free = append(p.free, seq)
	return p.c.Forget(seq)
}

// after is the step after whose decode member m of step s is removed; 0 = it stays.
func (p *repeater) after(s, m int) int {
	for _, r := range p.removed {
		if r.Step == s && r.Member == m {
			return r.After
		}
	}
	return 0
}

func (p *repeater) logits(outputs []int) ([][]float32, error) {
	var rows [][]float32
	for _, i := range outputs {
		logits, err := p.c.Logits(i)
		if err != nil {
			return nil, err
		}
		rows = append(rows, slices.Clone(logits))
	}
	return rows, nil
}
