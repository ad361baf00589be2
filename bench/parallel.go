package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"tempo/api"
	"tempo/internal/infer"
)

// Parallel generation: so many prompts, and answers of so many positions.
const (
	setJobs      = 3 // in a run, one after the other
	setPositions = 64
	setCells     = 16 * 2048
	setSequences = 16
	// setThreshold is one that more tokens reach than a set may have, with random weights.
	setThreshold = 0.0002
	// setGoal is how many times as many tokens a job of width 8 is to generate as 8 sequences
	// with prompts of their own.
	setGoal, setGoalWidth = 2, 8
)

// parallelBench measures the tokens, of all members of all sets, that a job with so many tokens at
// each position generates, against as many sequences of one token at each position in the same
// engine; what it costs that members do not see each other; and what it costs to read attention.
func parallelBench(ctx context.Context, o options) (rows []row, err error) {
	a, err := openArena(o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if a.model == "" {
		if a.model, err = a.generated("llama-143m-q8_0", contestModel()); err != nil {
			return nil, err
		}
	}
	p := &parallelRuns{arena: a}
	if p.words, err = readVocabulary(a.libDir, a.model, a.log); err != nil {
		return nil, err
	}
	spec := infer.Spec{Model: a.model, LibDir: a.libDir, GPU: -1, Threads: a.threads, Batch: 512}
	shape := infer.Shape{Sequences: setSequences, Cells: setCells}
	for _, d := range []**direct{&p.sets, &p.sequences} { // each keeps its layout
		if *d, err = startDirect(ctx, spec, shape); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, (*d).close()) }()
	}
	for _, w := range []struct{ width, prompt int }{
		{1, promptTokens}, {2, promptTokens}, {4, promptTokens}, {8, promptTokens}, {16, promptTokens}, {8, 4 * promptTokens},
	} {
		p.prompt = w.prompt
		more, err := p.against(ctx, w.width)
		if rows = append(rows, more...); err != nil {
			return rows, err
		}
	}
	p.prompt = promptTokens
	more, err := p.variants(ctx)
	return append(rows, more...), err
}

type parallelRuns struct {
	*arena
	words           *vocabulary
	sets, sequences *direct
	prompt          int // tokens
	seed            uint64
}

// prompts makes n prompts that nobody has seen.
func (p *parallelRuns) prompts(n int) []string {
	p.seed++
	r := rand.New(rand.NewPCG(p.seed, 0))
	list := make([]string, n)
	for i := range list {
		list[i] = p.words.text(r, p.prompt)
	}
	return list
}

// against compares a job of a width with as many sequences: with prompts of their own, at once
// and one after the other, and with the same prompt.
func (p *parallelRuns) against(ctx context.Context, width int) (rows []row, err error) {
	work := fmt.Sprintf("one job of %d tokens at each position, %d tokens in, %d positions out", width, p.prompt, setPositions)
	name := fmt.Sprintf("width-%d", width)
	if p.prompt != promptTokens {
		name += fmt.Sprintf("-after-%d", p.prompt)
	}
	sides := []struct {
		name, against string
		side          side
	}{
		{"own-prompts", fmt.Sprintf("%d sequences at once, each with a prompt of its own", width), p.together(width, false)},
		{"one-prompt", fmt.Sprintf("%d sequences at once, all of one prompt, which is read once", width), p.together(width, true)},
		{"in-turn", fmt.Sprintf("%d sequences one after the other, each with a prompt of its own", width), p.inTurn(width)},
	}
	turns := []side{p.wide(width, &api.Parallel{})}
	for _, s := range sides {
		turns = append(turns, s.side)
	}
	medians, err := takeTurns(ctx, p.runs, turns...)
	if err != nil {
		return nil, fmt.Errorf("width %d: %w", width, err)
	}
	for i, s := range sides {
		r := row{name: name + "/" + s.name, Work: work, Against: s.against, Unit: "tokens/s"}
		if width == setGoalWidth && i == 0 {
			r.AtLeast = setGoal
		}
		rows = append(rows, r.with(medians[0], medians[i+1], p.runs))
	}
	return rows, nil
}

// variants compares kinds of jobs with the plain one of the same width.
func (p *parallelRuns) variants(ctx context.Context) (rows []row, err error) {
	// Nothing is below 0: attention is read, and all stay.
	read := &api.RetroactiveRemoval{AttentionThreshold: 0, Window: 8}
	const width = 4
	for _, v := range []struct {
		name, what string
		parallel   api.Parallel
	}{
		{"isolated", "members that do not see each other", api.Parallel{Isolate: true}},
		{"top", "the next distribution from the most probable member", api.Parallel{Mix: api.MixTop}},
		{"attention", "attention read for retroactive removal, window 8, nothing removed", api.Parallel{Removal: read}},
	} {
		r := row{
			name: "cost/" + v.name, Work: fmt.Sprintf("one job of %d tokens at each position: %s", width, v.what),
			Against: "the same job without that", Unit: "tokens/s",
		}
		if r, err = compare(ctx, r, p.runs, p.wide(width, &v.parallel), p.wide(width, &api.Parallel{})); err != nil {
			return rows, fmt.Errorf("%s: %w", v.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// wide runs jobs of a width one after the other.
func (p *parallelRuns) wide(width int, kind *api.Parallel) side {
	return func(ctx context.Context) (float64, error) {
		kind := *kind
		kind.Threshold, kind.MaxTokens = setThreshold, width
		if kind.Mix == "" {
			kind.Mix = api.MixWeighted
		}
		d := p.sets
		generated, started := 0, time.Now()
		for i, prompt := range p.prompts(setJobs) {
			job := job{prompt: prompt, out: setPositions}.request()
			job.Sampling.Temperature, job.Parallel = 1, &kind
			out, err := d.engine.Generate(ctx, infer.Request{ID: fmt.Sprint(i), Job: job, Lease: &plenty{}})
			if err != nil {
				return 0, err
			}
			generated += out.Parallel.Tokens
		}
		took := time.Since(started)
		if generated != setJobs*setPositions*width {
			return 0, fmt.Errorf("%d tokens were generated instead of %d: lower the threshold", generated, setJobs*setPositions*width)
		}
		return float64(generated) / took.Seconds(), nil
	}
}

// together runs as many sequences at once.
func (p *parallelRuns) together(width int, alike bool) side {
	return func(ctx context.Context) (float64, error) {
		var sum tally
		for range setJobs {
			prompts := p.prompts(width)
			jobs := make([]job, width)
			for i := range jobs {
				if jobs[i] = (job{prompt: prompts[i], in: p.prompt, out: setPositions, sampling: sampled()}); alike {
					jobs[i].prompt = prompts[0]
				}
			}
			t, err := p.sequences.run(ctx, jobs)
			if err == nil {
				err = t.check(jobs)
			}
			if err != nil {
				return 0, err
			}
			sum.generated, sum.took = sum.generated+t.generated, sum.took+t.took
		}
		return sum.rate(), nil
	}
}

// inTurn runs as many sequences one after the other.
func (p *parallelRuns) inTurn(width int) side {
	one := p.together(1, false)
	return func(ctx context.Context) (float64, error) {
		sum := 0.0 // of the time that a token takes
		for range width {
			rate, err := one(ctx)
			if err != nil {
				return 0, err
			}
			sum += 1 / rate
		}
		return float64(width) / sum, nil
	}
}
