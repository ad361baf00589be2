package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"tempo/internal/infer"
)

const (
	sameAtOnce   = 32 // jobs, at most
	sameAsServer = 95 // of 100 greedy answers are to be llama-server's
	costAtOnce   = 16
	costJobs     = 32
)

// same compares answers to the same prompts.
type same struct {
	*arena
	*questions
	rows []row
}

// sameBench counts which answers are the same: as llama-server's, as those of the same
// jobs alone, as before; and measures what it costs to be reproducible.
func sameBench(ctx context.Context, o options) (rows []row, err error) {
	a, err := openArena(o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if a.model == "" {
		if a.model, err = a.exampleModel(); err != nil {
			return nil, err
		}
	}
	if a.peers, err = ensurePeers(ctx, a.libDir, o.out); err != nil {
		return nil, err
	}
	return a.same(ctx)
}

func (a *arena) same(ctx context.Context) (rows []row, err error) {
	q, err := readQuestions(a.libDir, a.model, a.jobs, a.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.close()) }()
	s := &same{arena: a, questions: q}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"greedy", s.greedyAnswers}, {"seed", s.seededAnswers}, {"reproducible", s.reproducibleAnswers}, {"cost", s.cost}} {
		started := time.Now()
		if err := part.run(ctx); err != nil {
			return s.rows, fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Fprintf(a.out, "%s took %v\n", part.name, time.Since(started).Round(time.Second))
	}
	return s.rows, nil
}

// pool is the shape in which every job has a stream.
func (s *same) pool() infer.Shape {
	return infer.Shape{Sequences: sameAtOnce, Cells: sameAtOnce * padded(s.slot)}
}

func (s *same) start(ctx context.Context, shape infer.Shape, batch int) (*direct, error) {
	return startDirect(ctx, infer.Spec{Model: s.model, LibDir: s.libDir, GPU: -1, Threads: s.threads, Batch: batch}, shape)
}

// fresh has the jobs answered in their order by an engine that nobody has asked before.
func (s *same) fresh(ctx context.Context, jobs []*infer.Request, atOnce int) (found []*infer.Output, err error) {
	d, err := s.start(ctx, s.pool(), s.batch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.ask(ctx, jobs, inOrder(len(jobs)), atOnce)
}

// peerCase is a way in which llama-server is asked.
type peerCase struct {
	name, settings string
	extra          map[string]any // fields of each request
}

// peerCases are llama-server as it is, where what a slot has of the prompt before is not
// read again, so that its answer depends on that prompt; and without that.
func peerCases() []peerCase {
	return []peerCase{
		{"llama-server", "default settings", nil},
		{"llama-server-uncached", "default settings, cache_prompt false in each request", map[string]any{"cache_prompt": false}},
	}
}

// greedyAnswers compares greedy answers with llama-server's, and those of jobs that run
// together with those of the same jobs alone.
func (s *same) greedyAnswers(ctx context.Context) error {
	alone, err := s.besideServers(ctx)
	if err != nil {
		return err
	}
	for _, atOnce := range []int{8, sameAtOnce} {
		found, err := s.fresh(ctx, s.greedy(), atOnce)
		if err != nil {
			return err
		}
		s.count(row{
			name: fmt.Sprintf("greedy/%d-at-once", atOnce), Work: fmt.Sprintf("the tokens of greedy answers, %d jobs at once", atOnce),
			Against: "the same jobs alone",
		}, func(i int) string { return differentTokens(answerOf(alone[i]), answerOf(found[i])) })
	}
	return nil
}

// besideServers has the greedy jobs answered one at a time, by Tempo, whose answers it
// returns, and by llama-server in each way.
func (s *same) besideServers(ctx context.Context) (ours []*infer.Output, err error) {
	d, err := s.start(ctx, s.pool(), s.batch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	jobs := s.greedy()
	if ours, err = d.ask(ctx, jobs, inOrder(len(jobs)), 1); err != nil {
		return nil, err
	}
	for i, out := range ours {
		if out.PromptTokens != len(s.prompts[i]) {
			return nil, fmt.Errorf("%s: Tempo counts %d tokens in the prompt, it has %d", s.names[i], out.PromptTokens, len(s.prompts[i]))
		}
	}
	for _, c := range peerCases() {
		theirs, err := s.askServer(ctx, c.extra)
		if err != nil {
			return nil, err
		}
		s.count(row{
			name: "greedy/" + c.name, Work: "the tokens of greedy answers, one job at a time",
			Against: "llama-server --parallel 1, " + c.settings + ", prompts as tokens", AtLeast: sameAsServer / 100.0,
		}, func(i int) string { return differentTokens(theirs[i], answerOf(ours[i])) })
	}
	return ours, nil
}

// seededAnswers has jobs with a seed, which are not reproducible, answered twice.
func (s *same) seededAnswers(ctx context.Context) (err error) {
	d, err := s.start(ctx, s.pool(), s.batch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	jobs := s.seeded()
	first, err := d.ask(ctx, jobs, inOrder(len(jobs)), 1)
	if err != nil {
		return err
	}
	again, err := d.ask(ctx, jobs, inOrder(len(jobs)), 1)
	if err != nil {
		return err
	}
	s.count(bound("seed/alone-twice", "the tokens of sampled answers with a seed, not reproducible, one job at a time, asked twice"),
		func(i int) string { return differentTokens(answerOf(first[i]), answerOf(again[i])) })
	return nil
}

// reproducibleAnswers compares reproducible answers with those that the same jobs have
// alone: in company and in another order, with what earlier jobs have left in the cache,
// and in a pool of another size beside jobs that are not reproducible.
func (s *same) reproducibleAnswers(ctx context.Context) error {
	jobs := s.reproducible()
	alone, err := s.fresh(ctx, jobs, 1)
	if err != nil {
		return err
	}
	// few is neither of the numbers before, and other no multiple of anything there.
	const few = 12
	other := infer.Shape{Sequences: few, Cells: few*padded(s.slot) + 5*padded(1)}
	for _, c := range []struct {
		shape  infer.Shape
		batch  int
		beside string
		atOnce []int
	}{
		{s.pool(), s.batch, "", []int{1, 8, sameAtOnce}},
		{other, s.batch / 4, fmt.Sprintf(", in a pool of %d tokens instead of %d, beside jobs that are not reproducible", other.Cells, s.pool().Cells), []int{few}},
	} {
		asked := jobs
		if c.beside != "" {
			asked = beside(jobs)
		}
		err := s.inCompany(ctx, c.shape, c.batch, asked, c.atOnce, func(atOnce int, found []*infer.Output) {
			name := fmt.Sprintf("reproducible/%d-at-once", atOnce)
			if c.beside != "" {
				name = "reproducible/other-pool"
			}
			s.count(bound(name, fmt.Sprintf("text and log probabilities of reproducible answers, half of them sampled, bit for bit as alone: %d at once in any order%s", atOnce, c.beside)),
				func(i int) string { return differentBits(alone[i], found[i]) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inCompany has an engine answer the jobs in any order, several times, each time with
// another number of them at once.
func (s *same) inCompany(ctx context.Context, shape infer.Shape, batch int, jobs []*infer.Request, atOnce []int, each func(int, []*infer.Output)) (err error) {
	d, err := s.start(ctx, shape, batch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	for _, n := range atOnce {
		found, err := d.ask(ctx, jobs, rand.New(rand.NewPCG(uint64(n), 5)).Perm(len(jobs)), n)
		if err != nil {
			return err
		}
		each(n, found)
	}
	return nil
}

// cost measures what it costs to be reproducible, in two engines: one that has had
// such jobs keeps the layout for them a while.
func (s *same) cost(ctx context.Context) (err error) {
	words, err := readVocabulary(s.libDir, s.model, s.log)
	if err != nil {
		return err
	}
	var sides []side
	for _, reproducible := range []bool{true, false} {
		d, err := s.start(ctx, infer.Shape{Sequences: costAtOnce, Cells: costAtOnce * padded(promptTokens+outTokens)}, s.batch)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.close()) }()
		sides = append(sides, costSide(d, words, reproducible))
	}
	r, err := compare(ctx, row{
		name: fmt.Sprintf("cost/%d-at-once", costAtOnce), Unit: "tokens/s", Against: "the same jobs, not reproducible",
		Work: fmt.Sprintf("%d reproducible jobs, %d tokens in, distinct, and %d out, greedy, %d at once, %s on the CPU with %d threads, in one process",
			costJobs, promptTokens, outTokens, costAtOnce, filepath.Base(s.model), s.threads),
	}, s.runs, sides[0], sides[1])
	if err != nil {
		return err
	}
	s.rows = append(s.rows, r)
	return nil
}

// costSide has an engine answer other jobs in each round.
func costSide(d *direct, words *vocabulary, reproducible bool) side {
	round := uint64(0)
	return func(ctx context.Context) (float64, error) {
		jobs := distinct(promptTokens, outTokens, greedy())(words, rand.New(rand.NewPCG(round, 4)), costJobs)
		round++
		requests := make([]*infer.Request, len(jobs))
		for i, j := range jobs {
			job := j.request()
			job.IgnoreEOS, job.Reproducible = true, reproducible
			requests[i] = &infer.Request{Job: job}
		}
		started := time.Now()
		found, err := d.ask(ctx, requests, inOrder(len(jobs)), costAtOnce)
		if err != nil {
			return 0, err
		}
		t := tally{took: time.Since(started)}
		for _, out := range found {
			t.prompt += out.PromptTokens
			t.generated += out.CompletionTokens
		}
		return t.rate(), t.check(jobs)
	}
}

// bound is a row of answers all of which must be the same.
func bound(name, work string) row { return row{name: name, Work: work, Against: "bound", AtLeast: 1} }

// count adds a row of how many answers are the same, and says of the others how they
// are different ("" = the same).
func (s *same) count(r row, different func(i int) string) {
	n, equal := len(s.names), 0
	var others []string
	for i, name := range s.names {
		if diff := different(i); diff != "" {
			others = append(others, "  "+name+": "+diff+"\n")
			continue
		}
		equal++
	}
	r.Unit = fmt.Sprintf("prompts of %d", n)
	r.Work += fmt.Sprintf("; %s on the CPU with %d threads, %d to %d tokens in and up to %d out", filepath.Base(s.model), s.threads, s.shortest, s.slot-sameOut, sameOut)
	s.rows = append(s.rows, r.with(float64(equal), float64(n), 1))
	fmt.Fprintf(s.out, "%s: %d of %d are different\n%s", r.name, n-equal, n, strings.Join(others, ""))
}
