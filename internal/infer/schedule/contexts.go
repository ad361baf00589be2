package schedule

import (
	"errors"
	"fmt"
	"strings"

	"tempo/internal/budget"
	"tempo/internal/infer/llama"
)

// Footprint is what contexts with these options take: the KV cache, and the compute
// buffers in the layout that takes most. In a model that was opened for a dry run
// nothing is allocated.
func Footprint(model *llama.Model, opts Options) (budget.Footprint, error) {
	s := &Scheduler{model: model, opts: opts}
	err := s.allocate(false)
	return s.Footprint(), errors.Join(err, s.closePools())
}

// Footprint is what the contexts take at most, in whatever layout. It must not be called
// while the scheduler changes its shape.
func (s *Scheduler) Footprint() budget.Footprint {
	return budget.Footprint{KVCache: s.cache, ParallelBatch: s.compute}
}

// allocate opens each layout that may be taken, to know the most that it takes, and
// leaves the pools in the one for jobs of which nothing is known. With warm each is run
// at its worst.
func (s *Scheduler) allocate(warm bool) error {
	s.cache, s.compute = 0, 0
	first := s.choose(nil)
	all := [][]layout{first}
	if s.opts.Layout != Streams && first[0].streams > 0 {
		all = [][]layout{{{cells: s.opts.Cells}}, first}
	}
	for _, l := range all {
		if err := s.open(l); err != nil {
			return err
		}
		for _, p := range s.pools {
			s.cache = max(s.cache, p.ctx.Cache())
			s.compute = max(s.compute, p.ctx.Compute())
			if !warm {
				continue
			}
			if err := p.ctx.WarmUp(); err != nil {
				return err
			}
		}
	}
	return nil
}

// open makes the pools anew; what they had is gone. Where the buffers of two contexts
// together pass what is booked, one pool takes the place of both.
func (s *Scheduler) open(layouts []layout) error {
	if err := s.closePools(); err != nil {
		return err
	}
	s.model.Trim() // small pools come from the C library's heap
	sum := budget.Bytes(0)
	for _, l := range layouts {
		ctx, err := s.context(l)
		if err != nil {
			return err
		}
		s.pools = append(s.pools, newPool(l, ctx))
		sum = sum.Add(ctx.Compute())
	}
	if len(layouts) > 1 && sum > s.compute {
		return s.open([]layout{{cells: s.opts.Cells}})
	}
	return nil
}

// context makes one context. Without flash attention the scores of all tokens that go
// through at once are in memory, so that there are fewer.
func (s *Scheduler) context(l layout) (*llama.Context, error) {
	opts := llama.ContextOptions{
		Cells: l.cells, Sequences: l.streams, Streams: l.streams > 0, Exact: l.exact,
		Batch: s.opts.Batch, Threads: s.opts.Threads, TypeK: s.opts.TypeK, TypeV: s.opts.TypeV,
	}
	if l.streams == 0 {
		opts.Sequences = s.opts.Sequences
	}
	if l.exact {
		opts.Micro = exactPiece
	}
	return s.model.NewContext(opts)
}

// describe says what the layouts are, for people.
func describe(layouts []layout) string {
	var parts []string
	for _, l := range layouts {
		switch {
		case l.streams == 0:
			parts = append(parts, fmt.Sprintf("one pool of %d tokens", l.cells))
		case l.single:
			parts = append(parts, fmt.Sprintf("one reproducible stream of %d tokens", l.longest()))
		case l.exact:
			parts = append(parts, fmt.Sprintf("%d reproducible streams of %d tokens", l.streams, l.longest()))
		default:
			parts = append(parts, fmt.Sprintf("%d streams of %d tokens", l.streams, l.longest()))
		}
	}
	return strings.Join(parts, ", ")
}
