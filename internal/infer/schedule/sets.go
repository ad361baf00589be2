package schedule

import (
	"errors"
	"fmt"
	"time"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/parallel"
	"tempo/internal/infer/sample"
)

// sets is what a job with several tokens at one position has beside others. Its tokens are
// those of the prompt and then, set by set, the members that are left.
type sets struct {
	*parallel.Sets
	o       *api.Parallel
	limit   int                 // cells that the job could ever use
	attends func(cells int) int // how many of so many a pool has that reads attention; nil = none is needed
	mixture *sample.Mixture

	first   int         // row in the batch of this step of the newest set, -1 if it is not in it
	outputs []int       // of its members
	rows    [][]float32 // their logits
	weights []float64   // their probabilities
	chosen  []sample.Candidate
	over    int // how many there were, without tokens that end the text
	err     error

	attended llama.Attended // the newest set's to those that tokens may be removed from

	own     []int // sequences of the members that go through the model in this step
	tags    []int // sequences that keep the members of a set apart afterwards
	removed bool  // in this step something was
}

// newSets prepares a job that is to have several tokens at one position.
func (s *Scheduler) newSets(r infer.Request, prompt, limit int) *sets {
	req, o := r.Job, r.Job.Parallel
	positions := limit - prompt
	if n := req.MaxTokens; n > 0 {
		positions = min(positions, n)
	}
	limit = parallel.MostCells(o, prompt, positions, llama.MostSequences)
	e := &sets{
		o: o, limit: limit,
		Sets: parallel.New(o, parallel.Limits{
			Prompt: prompt, Positions: positions, Bounded: req.MaxTokens > 0,
			Cells: limit, Tokens: r.Most,
		}),
		mixture: sample.NewMixture(sample.MixOptions{
			Temperature: req.Sampling.Temperature, Bias: req.Sampling.LogitBias, Ends: s.model.EndTokens(),
		}, s.model.Vocabulary()),
	}
	if o.Removal != nil {
		e.attends = s.opts.Attends
	}
	return e
}

// noSets says why a model's sequences can have no several tokens at one position.
func noSets(m *llama.Model) error {
	if m.Recurrent() {
		return errors.New("the model keeps a state of what came before, which takes one token after the other")
	}
	return nil
}

// noRemoval says why no token of a set can be removed again.
func noRemoval(m *llama.Model, opts Options) error {
	switch {
	case m.Recurrent():
		return noSets(m)
	case m.Window() > 0:
		return errors.New("some of the model's layers have a sliding window, and what they attend to is not read")
	case llama.Quantised(opts.TypeV):
		return fmt.Errorf("attention can be read with a V cache in f16, bf16 or f32 only, and this one is in %s", opts.TypeV)
	}
	return nil
}

// want is what the lease should be, now that it is so many tokens, where it would begin
// anew with ahead.
func (e *sets) want(leased, ahead int) int {
	tokens := e.Cells()
	switch {
	case tokens*4 >= leased*3:
		return max(leased+share, ahead)
	case leased-ahead > ahead-tokens: // sets have become smaller
		return ahead
	}
	return leased
}

// pooled reports whether the job's sets need one pool of cells: members that are kept apart have
// sequences that share the rest.
func (e *sets) pooled() bool { return e.o.Isolate || e.o.Removal != nil }

// outs is how many outputs the newest position has in a batch.
func (j *job) outs() int {
	if j.sets == nil || j.sets.o.Mix == api.MixTop {
		return 1
	}
	return j.newest()
}

// apart reports whether the members of a set of the job go through the model each in a sequence of
// its own: where they must not see each other, or may be removed later.
func (e *sets) apart(set *parallel.Set, number int) bool {
	return set.Left > 1 && (e.o.Isolate || e.o.Removal != nil && number == e.Positions()-1)
}

// nextSet is the set that is to be decoded next; nil = it is the prompt's turn, or nothing is left.
func (j *job) nextSet() (set *parallel.Set, number, member int) {
	if at := j.cells - j.prompt; j.sets != nil && at >= 0 && j.pending() > 0 {
		return j.sets.At(at)
	}
	return nil, 0, 0
}

// ids is how many sequences of their own the job's next tokens need.
func (j *job) ids() int {
	if set, number, _ := j.nextSet(); set != nil && j.sets.apart(set, number) {
		return set.Left
	}
	return 0
}

// unit is how many of the job's tokens must go through the model together next.
func (j *job) unit() int {
	if set, _, member := j.nextSet(); set != nil {
		return set.Left - member
	}
	return 1
}

// again reports whether the job has sets: if it is prefilling, they are decoded anew.
func (j *job) again() bool { return j.sets != nil && j.sets.Positions() > 0 }

// whole is how many of the next n tokens can go through the model in one batch. Sets go whole,
// and one whose members are kept apart by itself: they have all that came before in common.
func (j *job) whole(n int) int {
	if j.sets == nil {
		return n
	}
	take := max(0, min(n, j.prompt-j.cells))
	for j.cells+take >= j.prompt && j.cells+take < len(j.tokens) {
		set, number, _ := j.sets.At(j.cells + take - j.prompt)
		apart := j.sets.apart(set, number)
		if set.Left > n-take || apart && take > 0 {
			break
		}
		if take += set.Left; apart {
			break
		}
	}
	return take
}

// squeeze has the jobs whose next set waits for memory go on with as much of it as they have
// memory for, where sets are to be narrow.
func (s *Scheduler) squeeze() {
	for _, j := range s.jobs {
		if s.narrow == 0 || j.sets == nil || j.seat == nil || j.pending() != j.newest() {
			continue
		}
		if room := j.room(); room > 0 && room < j.newest() {
			j.sets.Cut(min(room, s.narrow))
			j.tokens, j.made = j.tokens[:j.sets.Cells()], j.sets.Tokens()
		}
	}
}

// widest is how many tokens a job's next set may have, and how many it might have if there
// were memory for all that the job could use.
func (s *Scheduler) widest(j *job) (width, ample int) {
	most := s.opts.Sequences
	ample = j.sets.WidthIn(j.sets.limit, max(most, s.opts.Ample))
	if s.narrow > 0 { // what the lease has must do, so that the job goes on
		most = min(most, s.narrow, j.leased-len(j.tokens))
	}
	return j.sets.Width(most), ample
}

// begin prepares for a step.
func (e *sets) begin() {
	if e != nil {
		e.first, e.outputs = -1, e.outputs[:0]
	}
}

// addSet puts the next set of a job into the batch, and returns how many tokens it has.
func (p *pool) addSet(j *job) (int, error) {
	e := j.sets
	set, number, _ := e.At(j.cells - j.prompt)
	pos := j.prompt + number
	newest, apart := number == e.Positions()-1, e.apart(set, number)
	for i := range set.Left {
		seq, also := j.seat.seq, -1
		if apart {
			id := p.lend()
			if err := p.ctx.Share(seq, id); err != nil {
				return 0, err
			}
			e.own = append(e.own, id)
			if also = id; e.o.Isolate {
				seq, also = id, -1
			}
		}
		output := newest && (i == 0 || e.o.Mix != api.MixTop)
		row, err := p.ctx.AddShared(j.tokens[j.cells], pos, seq, also, output)
		if err != nil {
			return 0, err
		}
		if newest && i == 0 {
			e.first, j.index = row, row
		}
		if output {
			e.outputs = append(e.outputs, row)
		}
		j.cells++
	}
	return set.Left, nil
}

// read collects what the next set is chosen from.
func (e *sets) read(j *job) error {
	e.rows, e.weights = e.rows[:0], e.weights[:0]
	rows := e.outputs
	if len(rows) == 0 {
		rows = []int{j.index} // behind the prompt
	}
	for i, row := range rows {
		logits, err := j.pool.ctx.Logits(row)
		if err != nil {
			return err
		}
		weight := 1.0
		if len(rows) > 1 {
			weight = e.Last().Members[i].Probability
		}
		e.rows, e.weights = append(e.rows, logits), append(e.weights, weight)
	}
	return nil
}

// beginSet prepares for the choice of a job's next set.
func (s *Scheduler) beginSet(j *job) {
	var ban []llama.Token
	if j.req.Job.IgnoreEOS || !j.sets.MayEnd() {
		ban = s.model.EndTokens()
	}
	j.sets.err = j.sets.mixture.Begin(j.sets.rows, j.sets.weights, ban)
}

// choose chooses what the next set can have, whatever memory there is, where most tokens at one
// position are allowed.
func (e *sets) choose(most int) {
	if e.err == nil {
		e.chosen, e.over, e.err = e.mixture.Choose(e.Threshold(), max(1, parallel.Widest(e.o, most)))
	}
}

// acceptSet adds the set that was chosen to the job's answer, and ends it if it was the
// last.
func (s *Scheduler) acceptSet(j *job, now time.Time) error {
	e := j.sets
	switch {
	case errors.Is(e.err, sample.ErrNoToken):
		return s.leave(j, nil, nothingLeft(j.req.Job))
	case e.err != nil:
		return s.leave(j, nil, fmt.Errorf("choose tokens: %w", e.err))
	}
	if j.first.IsZero() {
		j.first = now
	}
	if e.removed {
		e.removed = false
		if s.rewrite(j) {
			return s.finishSets(j, "stop", now)
		}
	}
	if s.model.Ends(e.chosen[0].Token) {
		return s.finishSets(j, "stop", now)
	}
	e.SetCells(j.longest)
	width, ample := s.widest(j)
	width = min(len(e.chosen), width)
	members := make([]parallel.Member, 0, width) // no more: they stay to the end of the job
	for _, c := range e.chosen[:width] {
		members = append(members, parallel.Member{Token: c.Token, Probability: c.Probability, Tag: -1})
		j.tokens = append(j.tokens, c.Token)
	}
	e.Add(members, e.over)
	e.Short(min(e.over, ample) - len(members))
	j.made = e.Tokens()
	switch {
	case j.answer.text.add(s.model.Piece(members[0].Token)):
		return s.finishSets(j, "stop", now)
	case e.Full():
		return s.finishSets(j, "length", now)
	}
	s.ask(j)
	return nil
}

// rewrite makes the answer's text anew, of what is left of the sets, and reports whether it ends
// with a stop string now.
func (s *Scheduler) rewrite(j *job) bool {
	j.answer.text = newText(j.req.Job.Stop)
	for n := range j.sets.Positions() {
		if j.answer.text.add(s.model.Piece(j.sets.Set(n).First().Token)) {
			return true
		}
	}
	return false
}

func (s *Scheduler) finishSets(j *job, reason string, now time.Time) error {
	j.choices = append(j.choices, infer.Choice{Text: j.answer.text.String(), FinishReason: reason, Tokens: j.sets.Positions()})
	out := j.output(now)
	out.Parallel = j.sets.Result(s.model.Piece)
	return s.leave(j, out, nil)
}
