package schedule

import (
	"fmt"
	"slices"

	"go.uber.org/zap"

	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/parallel"
)

// Members of a set that do not see each other go through the model each in a sequence of its
// own, which has all that came before, and are joined afterwards. Those that may be removed
// later are in the job's sequence from the beginning, and in one of their own beside it; when
// they are decoded each is given to a sequence that has nothing else at its position, its tag.
// A cell goes when the job's sequence drops the position and takes back from the tags what is to
// stay: llama.cpp can drop positions of a sequence, and no single cells.

// lend takes one of the sequences that belong to no seat.
func (p *pool) lend() int {
	id := p.ids[len(p.ids)-1]
	p.ids = p.ids[:len(p.ids)-1]
	return id
}

// giveBack forgets what such a sequence has.
func (p *pool) giveBack(id int) error {
	p.ids = append(p.ids, id)
	return p.ctx.Forget(id)
}

// mostApart is how wide a set can be whose members have sequences of their own, be it while they
// are decoded or, as tags, also afterwards. That is so in a pool with however many seats: it may
// come to have more while the job runs.
const mostApart = parallel.MostApart

// There are so many sequences, or this does not compile.
const _ = uint((llama.MostSequences-mostPooled)/2 - mostApart)

// readAttention takes what a step has read. If it could not be read, the jobs that are here for
// it end, and others like them are refused from then on.
func (s *Scheduler) readAttention(p *pool) error {
	if err := p.ctx.Attention(); err != nil {
		s.cannotRead(err)
	}
	if s.unread == nil {
		return nil
	}
	for _, seat := range p.seats {
		if j := seat.job; j != nil && j.sets != nil && j.sets.o.Removal != nil {
			if err := s.leave(j, nil, s.unread); err != nil {
				return err
			}
		}
	}
	return nil
}

// cannotRead notes that attention cannot be read.
func (s *Scheduler) cannotRead(err error) {
	s.log.Error("attention cannot be read: jobs that ask for retroactive removal are refused", zap.Error(err))
	s.unread = &infer.RequestError{
		Param: "tempo.retroactive_removal", Message: fmt.Sprintf("nothing can be removed retroactively here: %v", err),
		Advice: "leave out retroactive_removal, or send the job to a worker with another model or device",
	}
}

// settle brings the step's sets into the form in which they stay.
func (p *pool) settle() error {
	if err := p.judge(); err != nil {
		return err
	}
	for _, s := range p.seats {
		if s.job == nil || s.job.sets == nil {
			continue
		}
		if err := p.gather(s.job); err != nil {
			return err
		}
	}
	return nil
}

// gather joins the members of the set that a job has just decoded, if they went through the
// model in sequences of their own.
func (p *pool) gather(j *job) error {
	e := j.sets
	if len(e.own) == 0 {
		return nil
	}
	set, number, _ := e.At(j.cells - j.prompt - 1)
	pos := j.prompt + number
	for i, id := range e.own {
		if e.o.Isolate {
			if err := p.ctx.Join(id, j.seat.seq, pos); err != nil {
				return err
			}
		}
		if e.o.Removal != nil && e.first >= 0 {
			if err := p.tag(e, &set.Members[i], i, pos); err != nil {
				return err
			}
		}
		if err := p.giveBack(id); err != nil {
			return err
		}
	}
	e.own = e.own[:0]
	return nil
}

// tag gives the i-th member of the newest set, which is in the pool, a sequence that has nothing
// else at its position.
func (p *pool) tag(e *sets, m *parallel.Member, i, pos int) error {
	m.Tag, m.Cell = e.tags[i], p.ctx.Cell(e.first+i)
	return p.ctx.Join(e.own[i], m.Tag, pos)
}

// tags is how many sequences a job needs beside its seat for as long as it sits there.
func (p *pool) tags(j *job) int {
	if j.sets == nil || j.sets.o.Removal == nil {
		return 0
	}
	o := p.ctx.Options()
	return parallel.Widest(j.sets.o, max(o.Outputs, o.Sequences))
}

// lendTags takes them.
func (p *pool) lendTags(j *job) {
	for range p.tags(j) {
		j.sets.tags = append(j.sets.tags, p.lend())
	}
}

// untag gives back the sequences that keep a job's members apart, or were to.
func (p *pool) untag(j *job) error {
	if j.sets == nil {
		return nil
	}
	for _, id := range slices.Concat(j.sets.tags, j.sets.own) {
		if err := p.giveBack(id); err != nil {
			return err
		}
	}
	j.sets.own = j.sets.own[:0]
	return nil
}

// attend has the step find out how much the newest sets attend to those that tokens may still be
// removed from.
func (p *pool) attend() {
	p.asked = p.asked[:0]
	for _, s := range p.seats {
		j := s.job
		if j == nil || j.sets == nil || j.sets.o.Removal == nil || j.sets.first < 0 {
			continue
		}
		e := j.sets
		e.attended.Row, e.attended.Rows, e.attended.Cells = e.first, j.newest(), e.attended.Cells[:0]
		for m := range e.Doubted() {
			e.attended.Cells = append(e.attended.Cells, m.Cell)
		}
		p.asked = append(p.asked, &e.attended)
	}
	if len(p.asked) > 0 {
		p.ctx.Attend(p.asked)
	}
}

// judge removes what the newest sets hardly attend to.
func (p *pool) judge() error {
	for _, s := range p.seats {
		j := s.job
		if j == nil || j.sets == nil || j.sets.first < 0 {
			continue
		}
		i := 0
		for m := range j.sets.Doubted() {
			m.Attend(j.sets.attended.Weights[i])
			i++
		}
		for _, n := range j.sets.Open() {
			if removed := j.sets.Judge(n); len(removed) > 0 {
				if err := p.remove(j, n, removed); err != nil {
					return err
				}
			}
		}
		if j.sets.removed {
			j.tokens = append(j.tokens[:j.prompt:j.prompt], slices.Collect(j.sets.Remaining())...)
		}
	}
	return nil
}

// remove takes members of the n-th set from the pool; the job's tokens are still to be brought
// in line.
func (p *pool) remove(j *job, n int, removed []int) error {
	set, pos := j.sets.Set(n), j.prompt+n
	if err := p.ctx.Drop(j.seat.seq, pos); err != nil {
		return err
	}
	for _, m := range set.Members {
		if m.Removed {
			continue
		}
		if err := p.ctx.Join(m.Tag, j.seat.seq, pos); err != nil {
			return err
		}
	}
	for _, i := range removed {
		if err := p.ctx.Drop(set.Members[i].Tag, pos); err != nil {
			return err
		}
	}
	j.sets.removed = true
	j.cells -= len(removed)
	return nil
}
