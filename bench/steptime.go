package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"tempo/api"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/setup"
)

// stepTime is a row of the time that a step takes outside of llama_decode.
type stepTime struct {
	name     string
	model    func(a *arena) (string, error)
	sampling api.Sampling
	how      string // the tokens are selected
}

const (
	stepJobs       = 64 // at once
	stepIn         = 32 // tokens, few: selection is what is measured
	stepOut        = 32
	outsideAllowed = 3    // percent
	leastOutside   = 0.01 // percent; a row divides by it
)

func stepTimes() []stepTime {
	return []stepTime{
		{"outside-example/greedy", (*arena).exampleModel, greedy(), "greedy"},
		{"outside-example/sampled", (*arena).exampleModel, sampled(), "temperature 0.8, top_p 0.95"},
		{"outside-256k/greedy", (*arena).wideModel, greedy(), "greedy"},
		{"outside-256k/sampled", (*arena).wideModel, sampled(), "temperature 0.8, top_p 0.95"},
	}
}

// exampleModel is the model of make run.
func (a *arena) exampleModel() (string, error) {
	if a.example == "" {
		return "", &setup.NotSetUpError{Parts: []setup.Part{setup.Model}}
	}
	return a.example, nil
}

// wideModel has 256k tokens in its vocabulary, and is otherwise small: what the
// vocabulary costs is the larger for it.
func (a *arena) wideModel() (string, error) {
	s := gguf.Tiny()
	s.Name = "random 256k"
	s.Layers, s.Heads, s.KVHeads, s.Embedding, s.FeedForward = 8, 8, 4, 512, 1536
	s.Vocab, s.Context, s.Type, s.Tied = 256<<10, 8192, gguf.Q8_0, true
	return a.generated("llama-256k-vocabulary-q8_0", s)
}

// stepTimer is an engine that tells how many steps it has made, and how long they
// took inside and outside of llama_decode.
type stepTimer interface {
	StepTimes() (steps int64, decode, outside time.Duration)
}

// stepTime measures one row on the engine in this process.
func (a *arena) stepTime(ctx context.Context, s stepTime) (rows []row, err error) {
	model, err := s.model(a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	words, err := readVocabulary(a.libDir, model, a.log)
	if err != nil {
		return nil, err
	}
	c, err := config.Load(nil, nil)
	if err != nil {
		return nil, err
	}
	spec := infer.Spec{Model: model, LibDir: a.libDir, GPU: -1, Threads: a.threads, Batch: c.Engine.BatchSize}
	d, err := startDirect(ctx, spec, infer.Shape{Sequences: stepJobs, Cells: stepJobs * padded(stepIn+stepOut)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	timer, ok := any(d.engine).(stepTimer)
	if !ok {
		return nil, fmt.Errorf("%s: the engine does not tell the times of its steps", s.name)
	}
	shares := make([]float64, 0, a.runs)
	for round := range a.runs + 1 {
		share, err := outsideShare(ctx, d, timer, distinct(stepIn, stepOut, s.sampling)(words, rand.New(rand.NewPCG(uint64(round), 2)), stepJobs))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if round > 0 { // the first warms up
			shares = append(shares, share)
		}
	}
	ours := max(median(shares), leastOutside)
	return []row{{
		name:    s.name,
		Work:    fmt.Sprintf("time outside llama_decode in a step, %s, %d jobs at once, %d tokens in and %d out, %s on the CPU with %d threads", s.how, stepJobs, stepIn, stepOut, filepath.Base(model), a.threads),
		Against: "bound", Unit: "% of a step", Ours: ours, Theirs: outsideAllowed, Ratio: outsideAllowed / ours, AtLeast: 1, Runs: a.runs,
	}}, nil
}

// outsideShare is the share of the steps' time, in percent, that is spent outside of
// llama_decode while the jobs run.
func outsideShare(ctx context.Context, d contestant, timer stepTimer, jobs []job) (float64, error) {
	before, decode, outside := timer.StepTimes()
	if _, err := d.run(ctx, jobs); err != nil {
		return 0, err
	}
	after, decodeAfter, outsideAfter := timer.StepTimes()
	out := outsideAfter - outside
	all := decodeAfter - decode + out
	if after == before || all <= 0 {
		return 0, fmt.Errorf("the engine tells of %d steps that took %v", after-before, all)
	}
	return 100 * float64(out) / float64(all), nil
}
