package schedule

import (
	"errors"
	"slices"

	"tempo/internal/infer/llama"
)

// fill puts the next token of every decoding job into the batch, and pieces of prompts
// until it is full, the oldest job's first. It returns how many tokens that are. The
// sequences stand in ascending order, so that llama.cpp decodes neighbours together.
func (p *pool) fill() (int, error) {
	p.ctx.Clear()
	for _, s := range p.seats {
		s.take = 0
	}
	if err := p.allot(); err != nil {
		return 0, err
	}
	if p.exact {
		p.pair()
	}
	n := 0
	for _, s := range p.seats {
		for range s.take {
			if err := p.add(s.job); err != nil {
				return 0, err
			}
		}
		if s.paired {
			if _, err := p.ctx.Add(0, s.job.cells, s.seq, false); err != nil {
				return 0, err
			}
		}
		n += s.take
	}
	return n, nil
}

// allot says how many tokens of each job are in the batch. In one pool the next tokens of
// the decoding jobs and pieces of prompts go through the model side by side. In streams
// llama.cpp would take them apart again, as all sequences must have as many tokens there:
// prompts and decoding take turns. For reproducible jobs prompts go one by one, in pieces.
func (p *pool) allot() error {
	decode, prompts := p.takeTurns()
	if decode && !prompts { // the move is over when the step has been decoded
		if err := p.closeGap(); err != nil {
			return err
		}
	}
	room := p.ctx.Room()
	if decode {
		for _, s := range p.seats {
			if j := s.job; j != nil && !j.prefilling() && j.room() > 0 && room > 0 {
				s.take = 1
				room--
			}
		}
	}
	if !prompts {
		return nil
	}
	for _, s := range p.oldest() {
		j := s.job
		if !j.prefilling() || !j.goesOn() {
			continue
		}
		if p.exact {
			s.take = j.piece()
			break
		}
		n := min(j.pending(), j.room())
		if cut := n > room; cut && p.streams > 0 && n <= p.ctx.Options().Batch {
			continue // the next batch has it whole, and llama.cpp no piece that is like no other
		}
		s.take = min(n, room)
		room -= s.take
	}
	return nil
}

// promptsInTurn is how many batches of prompts may go before the decoding jobs have their
// next step. The more sequences decode together the less each costs, so the seats are to
// be filled first; but short jobs, of which there are always more, must not keep a long
// one from its tokens.
const promptsInTurn = 8

// takeTurns decides what the batch is of: in one pool always both.
func (p *pool) takeTurns() (decode, prompts bool) {
	for _, s := range p.seats {
		if j := s.job; j != nil && j.goesOn() {
			decode = decode || !j.prefilling()
			prompts = prompts || j.prefilling()
		}
	}
	if p.streams == 0 || !decode || !prompts {
		p.prompts = 0
		return decode, prompts
	}
	if p.prompts++; p.prompts <= promptsInTurn {
		return false, true
	}
	p.prompts = 0
	return true, false
}

// gapPatience is how many decoding steps a free seat between others waits for a job that
// has not come yet. A move is a copy of a stream, which takes no longer than a few steps
// where that has mostMoved cells at most.
const (
	gapPatience = 4
	mostMoved   = 8192
)

// closeGap moves the job in the last seat of streams to the first free one, where that
// leaves a smaller gap: llama.cpp decodes neighbours together, and what is beyond a gap by
// itself.
func (p *pool) closeGap() error {
	if p.streams == 0 || p.vectors || p.uncut || p.longest() > mostMoved {
		return nil
	}
	free := slices.IndexFunc(p.seats, func(s *seat) bool { return s.job == nil && s.shared == 0 })
	last := len(p.seats) - 1
	for last > free && p.seats[last].job == nil {
		last--
	}
	if free < 0 || last <= free {
		p.gapped = 0
		return nil
	}
	if p.gapped++; p.gapped <= gapPatience {
		return nil
	}
	p.gapped = 0
	return p.move(p.seats[last], p.seats[free])
}

// oldest are the seats with a job, those that sat down first at the beginning.
func (p *pool) oldest() []*seat {
	p.order = p.order[:0]
	for _, s := range p.seats {
		if s.job != nil {
			p.order = append(p.order, s)
		}
	}
	for i := 1; i < len(p.order); i++ { // nearly sorted from step to step, and short
		for k := i; k > 0 && p.order[k].since < p.order[k-1].since; k-- {
			p.order[k], p.order[k-1] = p.order[k-1], p.order[k]
		}
	}
	return p.order
}

// add puts the next token of a job into the batch.
func (p *pool) add(j *job) error {
	last := j.cells == len(j.tokens)-1
	i, err := p.ctx.Add(j.tokens[j.cells], j.cells, j.seat.seq, last || p.vectors)
	if err != nil {
		return err
	}
	if last {
		j.index = i
	}
	j.cells++
	return nil
}

// decode runs the batch. Where one pool is full of what free seats have, that goes.
func (p *pool) decode() error {
	err := p.ctx.Decode()
	if errors.Is(err, llama.ErrNoCells) {
		freed, forget := p.forgetCached()
		if forget != nil || !freed {
			return errors.Join(err, forget)
		}
		err = p.ctx.Decode()
	}
	if err != nil {
		return err
	}
	for _, s := range p.seats {
		if s.paired {
			if err := p.forgetFrom(s.seq, s.job.cells); err != nil {
				return err
			}
		}
	}
	if s := p.left; s != nil {
		p.left = nil
		return p.ctx.Forget(s.seq)
	}
	return nil
}
