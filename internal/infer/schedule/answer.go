package schedule

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"tempo/api"
	"tempo/internal/grammar"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/sample"
)

// bind makes the grammar that a job's answers keep to, nil if there is none. It is
// called outside of Run: a large schema takes a while.
func (s *Scheduler) bind(job *api.Request) (*llama.Grammar, error) {
	gbnf, err := job.Grammar, error(nil)
	if job.Schema != nil {
		gbnf, err = grammar.FromSchema(job.Schema)
	}
	var g *llama.Grammar
	if err == nil && gbnf != "" {
		g, err = s.grammars().NewGrammar(gbnf)
	}
	if err != nil {
		return nil, &infer.RequestError{Param: grammarParam(job), Message: err.Error(), Advice: hint(err, "correct the grammar")}
	}
	return g, nil
}

// grammarParam is the field that bounds a job's answers.
func grammarParam(job *api.Request) string {
	if job.Schema != nil {
		return "response_format"
	}
	return "grammar"
}

func hint(err error, otherwise string) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return otherwise
}

// begin prepares the next of a job's answers.
func (s *Scheduler) begin(j *job) {
	seed := s.seed(j) + uint64(len(j.choices))
	a := answer{text: newText(j.req.Job.Stop)}
	if j.sets == nil {
		a.sampler = sample.New(s.sampling(j, seed), s.model.Vocabulary())
	}
	if j.grammar != nil {
		a.grammar = j.grammar.Clone()
	}
	j.answer.close()
	j.answer = a
}

func (a *answer) close() {
	if a.grammar != nil {
		a.grammar.Close()
		a.grammar = nil
	}
}

// seed is the one that is asked for. Else it is the request's, but for a reproducible job it
// depends on the prompt alone.
func (s *Scheduler) seed(j *job) uint64 {
	switch named := j.req.Job.Sampling.Seed; {
	case named != nil:
		return uint64(*named)
	case j.exact():
		return seedOf(j.tokens[:j.prompt])
	}
	return uint64(j.req.Seed)
}

func seedOf(prompt []llama.Token) uint64 {
	h, b := fnv.New64a(), make([]byte, 4)
	for _, t := range prompt {
		binary.LittleEndian.PutUint32(b, uint32(t))
		_, _ = h.Write(b) // never fails
	}
	return h.Sum64()
}

func (s *Scheduler) sampling(j *job, seed uint64) sample.Options {
	p := j.req.Job.Sampling
	o := sample.Options{
		Temperature: p.Temperature, TopK: p.TopK, TopP: p.TopP, MinP: p.MinP,
		RepeatPenalty: p.RepeatPenalty, FrequencyPenalty: p.FrequencyPenalty, PresencePenalty: p.PresencePenalty,
		Bias: p.LogitBias, Seed: seed, Logprobs: j.req.Job.Logprobs, Top: j.req.Job.TopLogprobs,
	}
	if j.req.Job.IgnoreEOS {
		o.Ban = s.model.EndTokens()
	}
	return o
}

// pick chooses a token, or a set, for every job that has an output, on several cores.
func (s *Scheduler) pick() error {
	s.picking, s.choosing = s.picking[:0], s.choosing[:0]
	for _, j := range s.jobs {
		if j.index < 0 || j.vectors != nil {
			continue
		}
		if j.answer.text == nil {
			s.begin(j)
		}
		if err := s.output(j); err != nil {
			return err
		}
	}
	s.workers.Each(len(s.picking), s.pickOne)
	s.workers.Each(len(s.choosing), s.chooseOne)
	now := time.Now()
	for _, p := range s.picking {
		accept := s.accept
		if p.sets != nil {
			accept = s.acceptSet
		}
		if p.row > 0 { // the job had its turn with the first
			continue
		}
		if err := accept(p.job, now); err != nil {
			return err
		}
	}
	return nil
}

// output takes a job's logits from the step. llama.cpp sorts them on the first call: not from
// several goroutines.
func (s *Scheduler) output(j *job) error {
	if j.sets == nil {
		logits, err := j.pool.ctx.Logits(j.index)
		if err != nil {
			return err
		}
		s.picking = append(s.picking, picking{job: j, logits: logits})
		return nil
	}
	if err := j.sets.read(j); err != nil {
		return err
	}
	s.beginSet(j)
	s.choosing = append(s.choosing, j)
	for row := range j.sets.rows {
		s.picking = append(s.picking, picking{job: j, row: row})
	}
	return nil
}

// picking is an output of a job.
type picking struct {
	*job
	logits []float32
	row    int // of a set
}

// pick draws the job's next token from the step's output, or does what concerns one row of a set
// alone.
func (p picking) pick() {
	a := &p.answer
	switch {
	case p.sets != nil:
		if p.sets.err == nil {
			p.sets.mixture.Measure(p.row)
		}
	case a.err != nil:
	case a.grammar == nil:
		a.picked, a.err = a.sampler.Next(p.logits, nil)
	default:
		a.picked, a.err = a.sampler.Next(p.logits, bounds{a.grammar})
	}
}

// bounds are a grammar as the sampler wants it.
type bounds struct{ *llama.Grammar }

func (b bounds) Mask(logits []float32) { b.Grammar.Mask(logits) }

// accept adds the token that was picked to the job's answer, and ends the answer if it
// was the last.
func (s *Scheduler) accept(j *job, now time.Time) error {
	a := &j.answer
	switch {
	case errors.Is(a.err, sample.ErrNoToken):
		return s.leave(j, nil, nothingLeft(j.req.Job))
	case a.err != nil:
		return s.leave(j, nil, fmt.Errorf("choose a token: %w", a.err))
	}
	if j.first.IsZero() {
		j.first = now
	}
	t := a.picked.Token
	j.made++
	ends := s.model.Ends(t)
	if a.grammar != nil && !ends {
		if err := a.grammar.Accept(t); err != nil {
			return s.leave(j, nil, err)
		}
	}
	stopped := false
	if !ends {
		piece := s.model.Piece(t)
		if j.req.Job.Logprobs {
			a.logs = append(a.logs, s.logprobs(piece, a.picked))
		}
		stopped = a.text.add(piece)
	}
	j.tokens = append(j.tokens, t)
	switch {
	case ends, stopped:
		return s.finish(j, "stop", now)
	case len(j.tokens) >= j.longest:
		return s.finish(j, "length", now)
	}
	s.ask(j)
	return nil
}

// nothingLeft says that no token may come next.
func nothingLeft(job *api.Request) error {
	if job.Grammar == "" && job.Schema == nil {
		return &infer.RequestError{Param: "logit_bias", Message: "logit_bias leaves no token that may come next", Advice: "ban fewer tokens"}
	}
	return &infer.RequestError{
		Param:   grammarParam(job),
		Message: "the grammar asks for what no token of this model can write next (logit_bias counts too)",
		Advice:  "loosen the grammar, or ban fewer tokens",
	}
}

func (s *Scheduler) logprobs(piece []byte, p sample.Picked) infer.TokenLogprobs {
	t := infer.TokenLogprobs{TokenLogprob: infer.TokenLogprob{Piece: piece, Logprob: finite(p.Logprob)}}
	for _, l := range p.Top {
		t.Top = append(t.Top, infer.TokenLogprob{Piece: s.model.Piece(l.Token), Logprob: finite(l.Logprob)})
	}
	return t
}

// finite is what can be written as JSON: a probability of 0 becomes one that is as
// good as 0.
func finite(logprob float32) float32 { return max(logprob, api.MinLogprob) }

// finish ends an answer. The next one begins at the end of the prompt, whose last
// token is decoded again, for its logits.
func (s *Scheduler) finish(j *job, reason string, now time.Time) error {
	a := &j.answer
	j.choices = append(j.choices, infer.Choice{
		Text: a.text.String(), FinishReason: reason, Tokens: len(j.tokens) - j.prompt, Logprobs: a.text.covered(a.logs),
	})
	s.usual.add(len(j.tokens) - j.prompt)
	if len(j.choices) >= max(j.req.Job.N, 1) {
		return s.leave(j, j.output(now), nil)
	}
	j.tokens = j.tokens[:j.prompt:j.prompt]
	keep := j.prompt - 1
	if j.pool.exact {
		keep = j.pool.wholePieces(keep)
	}
	left, err := j.pool.trim(j.seat, min(j.cells, keep))
	if err != nil {
		return err
	}
	j.cells = left
	s.begin(j)
	return nil
}
