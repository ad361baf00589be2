package schedule

import "slices"

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
	left := p.remainder()
	kept := 0
	if prompts { // sets could fill every batch
		kept = promptShare
	}
	left.tokens -= kept
	if decode {
		p.allotDecode(&left)
	}
	left.tokens += kept
	if prompts {
		p.allotPrompts(&left)
	}
	return nil
}

// left is what of a batch is not given to a job yet.
type left struct{ tokens, outputs, ids int }

func (p *pool) remainder() left {
	o := p.ctx.Options()
	return left{tokens: p.ctx.Room(), outputs: max(o.Outputs, o.Sequences), ids: len(p.ids)}
}

// give takes n tokens for a job, the last ones with outputs, if there is room for all.
func (l *left) give(j *job, n int) bool {
	outputs, ids := 0, j.ids()
	if n == j.pending() {
		outputs = j.outs()
	}
	if n > l.tokens || outputs > l.outputs || ids > l.ids {
		return false
	}
	l.tokens, l.outputs, l.ids = l.tokens-n, l.outputs-outputs, l.ids-ids
	return true
}

// allotDecode gives the decoding jobs their next tokens, and those whose sets are decoded anew
// their next set, if they were left out. Where sets leave no room for all, those come first that
// were left out most often.
func (p *pool) allotDecode(left *left) {
	p.ready = p.ready[:0]
	for _, s := range p.seats {
		switch again := p.decodesAgain(s); {
		case p.decodes(s), again && s.late > 0:
			p.ready = append(p.ready, s)
		case !again:
			s.late = 0
		}
	}
	slices.SortStableFunc(p.ready, func(a, b *seat) int { return b.late - a.late }) // mostly none was
	for i, s := range p.ready {
		n := s.job.unit()
		// In streams all sequences must have as many tokens: llama.cpp would take a set apart
		// otherwise, and its members would not see each other.
		if alike := p.streams == 0 || i == 0 || n == p.ready[0].job.unit(); alike && left.give(s.job, n) {
			s.take, s.late = n, 0
		} else {
			s.late++
		}
	}
}

// decodes reports whether only the newest tokens of a seat's job are to be decoded, and can be.
func (p *pool) decodes(s *seat) bool {
	j := s.job
	return j != nil && j.goesOn() && (!j.prefilling() || p.streams == 0 && j.pending() == j.newest())
}

// decodesAgain reports whether sets of a seat's job are decoded anew in one pool, of which each must
// go whole.
func (p *pool) decodesAgain(s *seat) bool {
	j := s.job
	return p.streams == 0 && j != nil && j.goesOn() && j.again() && j.cells >= j.prompt && !p.decodes(s)
}

// allotPrompts gives what is left of the batch to prompts, the oldest job's first.
func (p *pool) allotPrompts(left *left) {
	others := false
	for _, s := range p.oldest() {
		j := s.job
		if !j.prefilling() || !j.goesOn() || s.take > 0 {
			continue
		}
		if p.exact {
			s.take = j.piece()
			return
		}
		n := min(j.pending(), j.room())
		if cut := n > left.tokens; cut && p.streams > 0 && n <= p.ctx.Options().Batch {
			continue // the next batch has it whole, and llama.cpp no piece that is like no other
		}
		alone := p.streams > 0 && j.again() // its sets, see allotDecode
		if alone && others {
			continue
		}
		s.take = j.fit(left, min(n, left.tokens))
		if p.decodesAgain(s) {
			if s.late++; s.take > 0 {
				s.late = 0
			}
		}
		if others = others || s.take > 0; alone && s.take > 0 {
			return
		}
	}
}

// fit takes up to n of the job's next tokens. Where there is no room for the outputs of the
// newest ones, these wait.
func (j *job) fit(left *left, n int) int {
	n = j.whole(n)
	if n > 0 && !left.give(j, n) {
		if n = j.whole(n - j.newest()); n > 0 && !left.give(j, n) {
			return 0
		}
	}
	return max(0, n)
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
