package schedule

import (
	"context"
	"math"
	"time"

	"tempo/internal/infer"
	"tempo/internal/infer/llama"
)

// vectors is what makes a job one for embeddings: its texts, one after the other in its
// seat, and the vectors that they came to.
type vectors struct {
	texts   [][]llama.Token
	pooling llama.Pooling
	sum     []float64   // of the text that it is at
	done    [][]float32 // of the texts before
}

// Embed runs one job for embeddings: the vector of each text, of length 1. As Submit
// otherwise. Texts must not be empty; the lease is for the longest.
func (s *Scheduler) Embed(ctx context.Context, req infer.Request, texts [][]llama.Token) (*infer.Output, error) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{
		req: req, ctx: ctx, index: -1, leased: req.Lease.Tokens(), done: make(chan outcome, 1),
		vectors: &vectors{texts: texts, pooling: s.model.Pooling()},
	}
	for _, t := range texts {
		j.limit = max(j.limit, len(t))
	}
	j.next()
	return s.await(ctx, cancel, j)
}

// next turns to the next text.
func (j *job) next() {
	v := j.vectors
	j.tokens = v.texts[len(v.done)]
	j.prompt, j.cells, v.sum = len(j.tokens), 0, nil
}

// collect takes the vectors of the step's tokens, and ends the texts that are through.
func (s *Scheduler) collect(p *pool) error {
	now := time.Now()
	at := 0
	for _, seat := range p.seats {
		j := seat.job
		if j == nil || seat.take == 0 {
			continue
		}
		for i := range seat.take {
			v, err := p.ctx.Embedding(at + i)
			if err != nil {
				return err
			}
			j.vectors.add(v, j.cells-seat.take+i == 0, j.cells-seat.take+i == j.prompt-1)
		}
		at += seat.take
		if j.first.IsZero() {
			j.first = now
		}
		if j.cells < j.prompt {
			continue
		}
		j.vectors.done = append(j.vectors.done, unit(j.vectors.sum))
		if len(j.vectors.done) == len(j.vectors.texts) {
			if err := s.leave(j, j.embeddings(now), nil); err != nil {
				return err
			}
			continue
		}
		j.next()
		if err := p.ctx.Forget(seat.seq); err != nil {
			return err
		}
		seat.tokens = j.tokens
		p.tree.Put(seat.seq, seat.tokens)
	}
	return nil
}

// add takes a token's vector into account.
func (v *vectors) add(vector []float32, first, last bool) {
	if v.sum == nil {
		v.sum = make([]float64, len(vector))
	}
	if v.pooling == llama.PoolFirst && !first || v.pooling == llama.PoolLast && !last {
		return
	}
	for i, x := range vector {
		v.sum[i] += float64(x)
	}
}

// unit is the vector in the same direction of length 1.
func unit(sum []float64) []float32 {
	square := 0.0
	for _, x := range sum {
		square += x * x
	}
	scale := 1 / math.Sqrt(max(square, math.SmallestNonzeroFloat64))
	out := make([]float32, len(sum))
	for i, x := range sum {
		out[i] = float32(x * scale)
	}
	return out
}

// embeddings is the job's result after its last text.
func (j *job) embeddings(now time.Time) *infer.Output {
	tokens := 0
	for _, t := range j.vectors.texts {
		tokens += len(t)
	}
	return &infer.Output{
		Embeddings: j.vectors.done, PromptTokens: tokens,
		Started: j.started, Prefill: j.first.Sub(j.started), Decode: now.Sub(j.first),
	}
}
