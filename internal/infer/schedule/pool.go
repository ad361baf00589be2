package schedule

import (
	"fmt"
	"slices"

	"tempo/internal/infer/llama"
	"tempo/internal/infer/prefix"
)

// pool is one context with a seat for each sequence.
type pool struct {
	layout
	ctx     *llama.Context
	seats   []*seat
	tree    prefix.Tree       // of what the seats have, or will have when their job's prompt is through
	turn    int               // counts the jobs that have sat down
	order   []*seat           // see oldest
	ready   []*seat           // see allotDecode
	piece   int               // tokens of a prompt that go through the model together, for reproducible jobs; else 0
	prompts int               // batches of prompts since the last decoding step that had to wait for them
	uncut   bool              // its sequences cannot be cut: nothing is shared
	gapped  int               // decoding steps in a row in which there was a free seat between others
	ids     []int             // sequences that belong to no seat: see lend
	asked   []*llama.Attended // of the step
	left    *seat             // the one that a job has left for another since the last decoding
}

// seat is a sequence of a pool. When its job has left, what it has of the prompt stays,
// for the next that begins alike.
type seat struct {
	seq    int
	job    *job          // nil = free
	tokens []llama.Token // its prompt, also where it is not through yet
	cells  int           // of tokens, in the pool
	shared int           // the most of tokens that another job has had use of
	since  int           // turn in which it was taken last
	take   int           // tokens of its job in this step's batch
	late   int           // batches in a row in which its decoding job was left out
	paired bool          // and one more, which is forgotten then; see pair
}

func newPool(l layout, ctx *llama.Context) *pool {
	p := &pool{layout: l, ctx: ctx}
	for seq := range ctx.Options().Sequences {
		p.seats = append(p.seats, &seat{seq: seq})
	}
	for id := llama.MostSequences - 1; l.streams == 0 && id >= len(p.seats); id-- {
		p.ids = append(p.ids, id)
	}
	return p
}

// The fewest tokens that are taken over from a free seat, copied from another, and
// waited for: below, decoding them again costs less.
const (
	worthSharing = 16
	worthCopying = 32
	worthWaiting = 64
)

// takes reports whether a job with this need could sit here, were a seat free.
func (p *pool) takes(n need) bool {
	return n.tokens <= p.longest() && (p.exact || !n.exact) && p.vectors == n.vectors &&
		!(p.exact && n.sets) && (!n.pooled || p.streams == 0 && len(p.seats) <= mostPooled) && (p.attends || !n.attends)
}

// leased is what the jobs of the pool may have in it.
func (p *pool) leased() int {
	sum := 0
	for _, s := range p.seats {
		if s.job != nil {
			sum += s.job.leased
		}
	}
	return sum
}

// room reports whether a job can sit down now.
func (p *pool) room(j *job) bool {
	if n := p.tags(j); n > 0 && len(p.ids)-n < min(len(p.seats), mostApart) { // so many the widest set takes in a step
		return false
	}
	return slices.ContainsFunc(p.seats, func(s *seat) bool { return s.job == nil }) &&
		(p.streams > 0 || p.leased()+j.leased <= p.cells)
}

// source finds the seat that has most of what a job begins with, and how many tokens
// that is. wait says that it will have more, as its job is decoding them.
func (p *pool) source(j *job) (from *seat, common int, wait bool) {
	if p.uncut {
		return nil, 0, false
	}
	tokens := j.tokens[:len(j.tokens)-1] // the last one must be decoded, for its logits
	if j.sets != nil {                   // others have no sets
		tokens = tokens[:min(len(tokens), j.prompt-1)]
	}
	if p.exact {
		tokens = tokens[:p.wholePieces(min(len(tokens), j.prompt))]
	}
	coming := 0
	for seq, n := range p.tree.Matches(tokens) {
		s := p.seats[seq]
		if has := min(n, s.ready()); has > common || has == common && from != nil && from.job != nil && s.job == nil {
			from, common = s, has
		}
		if s.job != nil {
			coming = max(coming, n)
		}
		if common >= n { // those that follow have less in common
			break
		}
	}
	switch {
	case p.exact:
		common, coming = p.wholePieces(common), p.wholePieces(coming)
	case p.alone(j): // in the pieces in which it went when nothing was cached, for the same answer
		common -= common % p.ctx.Options().Batch
	}
	if common < worthSharing || from.job != nil && common < worthCopying {
		from, common = nil, 0
	}
	return from, common, coming >= common+worthWaiting
}

// ready is how many of the seat's tokens others can have.
func (s *seat) ready() int {
	if s.job != nil {
		return min(s.job.cells, len(s.tokens))
	}
	return s.cells
}

// sit gives a job a seat, with what another begins alike. It returns false, and the
// job goes on waiting, if there will soon be more to share.
func (p *pool) sit(j *job) (bool, error) {
	if p.exact && j.saved != nil && j.inexact { // reproducible jobs could share what was not calculated as theirs
		j.drop()
		j.restart()
	}
	var from *seat
	common := 0
	if j.saved == nil && !p.single && !p.vectors {
		var wait bool
		if from, common, wait = p.source(j); wait {
			return false, nil
		}
	}
	if err := p.clearUnshared(from); err != nil {
		return false, err
	}
	to := p.emptiest()
	takeOver := from != nil && from.job == nil && (from == to || 2*common >= from.cells) // else a long prefix goes for a short one
	if !takeOver && common < worthCopying {
		from, common = nil, 0
	}
	if takeOver {
		to = from
	} else if err := p.clear(to); err != nil {
		return false, err
	}
	if from != nil && from != to {
		if err := p.ctx.Share(from.seq, to.seq); err != nil {
			return false, err
		}
	}
	if from != nil {
		var err error
		if common, err = p.trim(to, common); err != nil {
			return false, err
		}
		from.shared = max(from.shared, common)
	}
	if j.saved != nil {
		if err := p.restore(j, to.seq); err != nil {
			return false, err
		}
	} else {
		j.cells = common
	}
	p.take(to, j, common)
	return true, nil
}

// take writes a job down for a seat, where it has so many tokens from another.
func (p *pool) take(s *seat, j *job, common int) {
	p.turn++
	j.pool, j.seat = p, s
	p.lendTags(j)
	s.job, s.since, s.shared = j, p.turn, common
	if j.started.IsZero() {
		j.cached = min(common, j.prompt)
	}
	s.tokens = j.tokens[:j.prompt]
	p.tree.Put(s.seq, s.tokens)
}

// trim cuts a seat, and returns what is left: n, or nothing where the model's
// memory cannot be cut, or has lost what would be seen from there.
func (p *pool) trim(s *seat, n int) (int, error) {
	cut, err := p.ctx.Trim(s.seq, n)
	if err != nil {
		return 0, err
	}
	p.uncut = p.uncut || !cut
	whole := false
	if cut {
		if whole, err = p.ctx.Whole(s.seq, n); err != nil {
			return 0, err
		}
	}
	if whole {
		return n, nil
	}
	return 0, p.ctx.Forget(s.seq)
}

// emptiest is the free seat whose loss costs least: one that has nothing, else the one
// that was taken longest ago. Of equal ones the first: llama.cpp decodes neighbours
// together.
func (p *pool) emptiest() *seat {
	var best *seat
	for _, s := range p.seats {
		switch {
		case s.job != nil:
		case best == nil, s.cells == 0 && best.cells > 0, s.cells > 0 && best.cells > 0 && s.since < best.since:
			best = s
		}
	}
	return best
}

// clear forgets what a free seat has.
func (p *pool) clear(s *seat) error {
	if s.tokens == nil {
		return nil
	}
	p.tree.Drop(s.seq)
	s.tokens, s.cells, s.shared = nil, 0, 0
	return p.ctx.Forget(s.seq)
}

// vacate takes a job out of its seat. What it has of the prompt stays where that costs
// nothing: in streams, and in one pool, where each cell makes attention slower, if
// somebody had use of it.
func (p *pool) vacate(j *job) error {
	if err := p.untag(j); err != nil {
		return err
	}
	s := j.seat
	j.unseat()
	keep := min(j.cells, len(s.tokens))
	switch {
	case p.single, p.vectors:
		keep = 0 // every token is to be decoded again
	case p.streams == 0 && p.running() > 1:
		keep = min(keep, s.shared)
	}
	s.job, s.cells = nil, keep
	if keep < worthSharing {
		return p.clear(s)
	}
	s.tokens = s.tokens[:keep]
	p.tree.Put(s.seq, s.tokens)
	left, err := p.trim(s, keep)
	if err != nil || left == keep {
		return err
	}
	return p.clear(s)
}

// clearUnshared makes one pool forget what it kept when its last job had left, unless
// somebody has had use of it by now; from is about to be used.
func (p *pool) clearUnshared(from *seat) error {
	if p.streams > 0 {
		return nil
	}
	for _, s := range p.seats {
		if s.job == nil && s.cells > 0 && s.shared == 0 && s != from {
			if err := p.clear(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// move gives a job a free seat in place of its own, which is empty after the next decoding.
// Nothing may happen to either before that.
func (p *pool) move(from, to *seat) error {
	if err := p.clear(to); err != nil {
		return err
	}
	if err := p.ctx.Share(from.seq, to.seq); err != nil {
		return err
	}
	p.tree.Drop(from.seq)
	p.tree.Put(to.seq, from.tokens)
	to.job, to.tokens, to.since, to.shared = from.job, from.tokens, from.since, from.shared
	from.job, from.tokens, from.cells, from.shared = nil, nil, 0, 0
	to.job.seat = to
	p.left = from
	return nil
}

// running is how many jobs sit here.
func (p *pool) running() int { return len(p.oldest()) }

// alone reports whether nobody but j sits here.
func (p *pool) alone(j *job) bool {
	return !slices.ContainsFunc(p.seats, func(s *seat) bool { return s.job != nil && s.job != j })
}

// save copies what a job has in the pool to host memory.
func (p *pool) save(j *job) (err error) {
	if j.saved, err = p.ctx.Save(j.seat.seq); err != nil {
		return fmt.Errorf("take a job with %d tokens out of the pool: %w", j.cells, err)
	}
	j.inexact = !p.exact
	return nil
}

// restore puts a saved job into the pool as seq. What cannot be put there is decoded
// anew, and in a pool for reproducible jobs so is what has lost what was out of a window: the
// rest lies in other cells than before.
func (p *pool) restore(j *job, seq int) error {
	if p.streams == 0 { // the job's lease counts on the cells that are only kept
		if _, err := p.forgetCached(); err != nil {
			return err
		}
	}
	err := p.ctx.Restore(j.saved, seq)
	j.drop()
	if err == nil && p.exact {
		whole, err := p.ctx.Whole(seq, 1) // from the beginning
		if err != nil || whole {
			return err
		}
	} else if err == nil {
		return nil
	}
	j.restart()
	return p.ctx.Forget(seq)
}

// forgetCached clears all free seats, and reports whether any had something.
func (p *pool) forgetCached() (freed bool, err error) {
	for _, s := range p.seats {
		if s.job == nil && s.cells > 0 {
			freed = true
			if err := p.clear(s); err != nil {
				return freed, err
			}
		}
	}
	return freed, nil
}
