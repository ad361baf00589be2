package schedule

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/internal/infer/llama"
)

// In a pool for reproducible jobs every sequence goes through the model in the same
// pieces always: its prompt in whole pieces and the rest of it, by itself, and then
// token by token, together with others. Attention adds up in another order where a
// sequence has more tokens in a batch; the difference is small and mostly lost when
// numbers are rounded to the KV cache's type, but not always. Whether the rows of
// different sequences are independent of each other depends on the type of the
// weights; see probe.

// exactPiece is how many tokens of a prompt are a piece, the same on every worker. From
// 64 on the kernels gain nothing more, and the scores of attention, which are in memory
// without flash attention, would take more room.
const exactPiece = 64

// wholePieces is how many of n tokens are in whole pieces.
func wholePieces(n int) int { return n / exactPiece * exactPiece }

// piece is how many of a job's tokens go through the model next, in one piece. What it
// has generated is decoded again as it was the first time.
func (j *job) piece() int {
	if left := j.prompt - j.cells; left > 0 {
		return min(left, exactPiece)
	}
	return 1
}

// allotPieces takes either the next piece of the oldest prompt or the next token of
// every job that is through with its prompt, in turn.
func (p *pool) allotPieces() {
	var prompt *seat
	decoding := false
	for _, s := range p.oldest() {
		switch j := s.job; {
		case j.room() < j.piece():
		case j.cells >= j.prompt:
			decoding = true
		case prompt == nil:
			prompt = s
		}
	}
	p.prefilled = prompt != nil && !(decoding && p.prefilled)
	if p.prefilled {
		prompt.take = prompt.job.piece()
		return
	}
	for _, s := range p.seats {
		if j := s.job; j != nil && j.cells >= j.prompt && j.room() > 0 {
			s.take = 1
		}
	}
}

// probe finds out, once, whether this model's kernels on this machine calculate a
// sequence the same bit for bit whatever other sequences are in the batch. Those for
// weights in some types add up in another order where there are more rows; then
// reproducible jobs run one at a time. p is empty, and is so afterwards.
func (s *Scheduler) probe(p *pool) error {
	began := time.Now()
	r := prober{pool: p, vocabulary: s.model.Vocabulary()}
	alone, err := r.run(0)
	if err != nil {
		return err
	}
	same := true
	for _, mates := range []int{1, 2, 4, 6, 11, p.streams - 1} {
		if mates >= p.streams {
			continue
		}
		other, err := r.run(mates)
		if err != nil {
			return err
		}
		same = same && slices.Equal(alone, other)
	}
	if err := r.forget(); err != nil {
		return err
	}
	s.probed, s.single = true, !same
	if s.single {
		s.log.Warn("with this model on this machine a sequence's numbers depend on what else is in the batch: reproducible jobs run one at a time",
			zap.Duration("took", time.Since(began)))
	} else {
		s.log.Info("with this model on this machine a sequence's numbers do not depend on what else is in the batch", zap.Int("piece_tokens", exactPiece), zap.Duration("took", time.Since(began)))
	}
	return nil
}

// What the probe decodes: a prompt in pieces, and then so many tokens one by one, past
// the 256 cells to which llama.cpp rounds attention where a stream has as many.
const (
	probePrompt = 250
	probeMate   = 20 // prompt of each of the others
	probeSteps  = 12
)

// prober decodes sequence 0 of a pool beside others.
type prober struct {
	*pool
	vocabulary int
	there      int // sequences that have their prompt, and nothing more
}

func (r *prober) token(seq, pos int) llama.Token {
	return llama.Token((7 + 31*pos + 1009*seq) % r.vocabulary)
}

func (r *prober) prompt(seq int) int {
	if seq > 0 {
		return probeMate
	}
	return min(probePrompt, r.longest()-probeSteps)
}

// run returns the logits of sequence 0 at each step beside so many mates.
func (r *prober) run(mates int) (found []float32, err error) {
	for ; r.there <= mates; r.there++ {
		if err := r.read(r.there); err != nil {
			return nil, err
		}
	}
	for step := range probeSteps {
		r.ctx.Clear()
		for seq := range 1 + mates {
			pos := r.prompt(seq) + step
			if _, err := r.ctx.Add(r.token(seq, pos), pos, seq, true); err != nil {
				return nil, err
			}
		}
		if err := r.ctx.Decode(); err != nil {
			return nil, err
		}
		logits, err := r.ctx.Logits(0)
		if err != nil {
			return nil, err
		}
		found = append(found, logits...)
	}
	for seq := range 1 + mates {
		cut, err := r.ctx.Trim(seq, r.prompt(seq))
		if err != nil {
			return nil, err
		}
		if !cut { // a state has no single tokens: the prompts are read again
			return found, r.forget()
		}
	}
	return found, nil
}

// read decodes the prompt of a sequence in pieces.
func (r *prober) read(seq int) error {
	for pos := 0; pos < r.prompt(seq); {
		r.ctx.Clear()
		for range min(exactPiece, r.prompt(seq)-pos) {
			if _, err := r.ctx.Add(r.token(seq, pos), pos, seq, false); err != nil {
				return err
			}
			pos++
		}
		if err := r.ctx.Decode(); err != nil {
			return err
		}
	}
	return nil
}

// forget empties the pool.
func (r *prober) forget() error {
	for seq := range r.there {
		if err := r.ctx.Forget(seq); err != nil {
			return err
		}
	}
	r.there = 0
	return nil
}
