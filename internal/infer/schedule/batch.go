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
		for end := s.take; end > 0; {
			added, err := p.add(s.job)
			if err != nil {
				return 0, err
			}
			end -= added
		}
		if s.paired {
			if _, err := p.ctx.Add(0, s.job.cells, s.seq, false); err != nil {
				return 0, err
			}
		}
		n += s.take
	}
	if p.attends {
		p.attend()
	}
	return n, nil
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

// add puts the next token, or set, of a job into the batch, and returns how many that are.
func (p *pool) add(j *job) (int, error) {
	if j.sets != nil && j.cells >= j.prompt {
		return p.addSet(j)
	}
	last := j.cells == len(j.tokens)-1
	i, err := p.ctx.Add(j.tokens[j.cells], j.cells, j.seat.seq, last || p.vectors)
	if err != nil {
		return 0, err
	}
	if last {
		j.index = i
	}
	j.cells++
	return 1, nil
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
