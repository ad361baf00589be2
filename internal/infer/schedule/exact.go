package schedule

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/internal/infer/llama"
)

// In a pool for reproducible jobs every sequence goes through the model in the same
// pieces always: its prompt in whole pieces and the rest of it, by itself, and then
// token by token, together with others. Attention adds up in another order where a piece has
// 64 tokens or more; the difference is small and mostly lost when numbers are rounded to
// the KV cache's type, but not always. Whether the rows of different sequences are
// independent of each other depends on the type of the weights; see probe.

// exactPiece is how many tokens of a prompt are a piece, the same on every worker with the
// model. The kernels gain nothing more beyond. A recurrent model does without flash
// attention, see pair, and there the scores of attention are in memory.
func exactPiece(m *llama.Model) int {
	if m.Recurrent() {
		return 64
	}
	return 256
}

// wholePieces is how many of n tokens are in whole pieces.
func (p *pool) wholePieces(n int) int { return n / p.piece * p.piece }

// piece is how many of a job's tokens must go through the model together next.
func (j *job) piece() int {
	if left := j.prompt - j.cells; j.pool.exact && left > 0 {
		return min(left, j.pool.piece)
	}
	return j.unit()
}

// goesOn reports whether there is room for what goes through the model next.
func (j *job) goesOn() bool { return j.room() >= j.piece() }

// pair puts a second token beside the only one of a reproducible job that would go through
// the model alone, since no neighbour has one. With flash attention llama.cpp divides a
// single token's cells among the threads and adds up their sums, in another order than
// when there are others. The token comes after the job's own, which does not see it, and is
// forgotten after the step. A recurrent model could not forget it, and has no flash
// attention here.
func (p *pool) pair() {
	taken := func(i int) bool { return i >= 0 && i < len(p.seats) && p.seats[i].take > 0 }
	for i, s := range p.seats {
		s.paired = s.take == 1 && s.job.exact() && !p.ctx.Options().NoFlash && !taken(i-1) && !taken(i+1)
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
		s.log.Info("with this model on this machine a sequence's numbers do not depend on what else is in the batch", zap.Int("piece_tokens", p.piece), zap.Duration("took", time.Since(began)))
	}
	return nil
}

// What the probe decodes: a prompt in pieces, and then so many tokens one by one. It has more
// than 256 cells where a stream has as many: from there on a token that is alone is
// calculated otherwise. What depends on the number of rows shows in any step.
const (
	probePrompt = 260
	probeMate   = 4 // prompt of each of the others
	probeSteps  = 6
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
	return min(probePrompt, r.longest()-probeSteps-1)
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
		if err := r.decodePaired(mates == 0 && !r.ctx.Options().NoFlash, r.prompt(0)+step+1); err != nil {
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

// decodePaired runs the batch, in which sequence 0 has so many tokens in all, with another
// beside the last if it is to be paired.
func (r *prober) decodePaired(paired bool, tokens int) error {
	if paired {
		if _, err := r.ctx.Add(0, tokens, 0, false); err != nil {
			return err
		}
	}
	if err := r.ctx.Decode(); err != nil || !paired {
		return err
	}
	return r.forgetFrom(0, tokens)
}

// forgetFrom forgets the tokens of a sequence from position n on, which the model's memory
// must allow.
func (p *pool) forgetFrom(seq, n int) error {
	cut, err := p.ctx.Trim(seq, n)
	if err == nil && !cut {
		err = fmt.Errorf("forget what is after %d tokens of sequence %d: the model's memory cannot be cut", n, seq)
	}
	return err
}

// read decodes the prompt of a sequence in pieces.
func (r *prober) read(seq int) error {
	for pos := 0; pos < r.prompt(seq); {
		r.ctx.Clear()
		for range min(r.piece, r.prompt(seq)-pos) {
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
