package schedule

import (
	"errors"
	"fmt"
	"strings"

	"tempo/internal/budget"
	"tempo/internal/infer/llama"
)

// Size is what contexts with some options take: the KV cache, and the compute buffers in
// the layout that takes most.
type Size struct {
	budget.Footprint
	// Parts are the compute buffers of each layout that there may be, in an order that
	// depends on the options' Layout and Inexact only.
	Parts []Part
	// Attends is that of the pool in which attention is read, which is as large as the compute
	// buffers of the others allow; zero = there is none.
	Attends Part
	// NoExact and NoVectors say why the model can have no context for reproducible jobs
	// or for embeddings; nil = it can.
	NoExact, NoVectors error
	// NoSets says why it can have none with several tokens at one position, and NoRemoval why
	// none can be removed later.
	NoSets, NoRemoval error
}

// Part is what the compute buffers of one layout take with so many cells.
type Part struct {
	Cells   int
	Most    int // cells that the layout has at most, whatever there are; 0 = all
	Compute budget.Bytes
}

// Measure finds out what contexts with these options take. The model must have been
// opened for a dry run: nothing is allocated.
func Measure(model *llama.Model, opts Options) (Size, error) {
	var size Size
	size.NoSets, size.NoRemoval = noSets(model), noRemoval(model, opts)
	usual := [][]layout{opts.divider().choose(nil)}
	if opts.Layout != Streams || size.NoSets == nil {
		usual = append(usual, []layout{{cells: opts.Cells}})
	}
	for _, l := range usual {
		if err := size.add(model, opts, l, 0); err != nil {
			return Size{}, err
		}
	}
	if size.NoRemoval == nil {
		var attending Size
		size.NoRemoval = attending.add(model, opts, []layout{{cells: opts.Cells, attends: true}}, 0)
		size.Attends = attending.Parts[0]
	}
	vectors := opts.divider().choose([]need{{vectors: true}})
	size.NoVectors = size.add(model, opts, vectors, 0)
	if size.NoVectors == nil {
		size.NoVectors = model.NoPooling()
	}
	if size.NoExact = opts.Inexact; size.NoExact != nil {
		return size, nil
	}
	// Attention takes most where all cells are one sequence's, outputs where there are many.
	longest := min(opts.Cells, max(opts.Longest, streamUnit)) / streamUnit * streamUnit
	exact := opts.divider().choose([]need{{exact: true}})
	size.NoExact = errors.Join(
		size.add(model, opts, []layout{{cells: longest, streams: 1, exact: true}}, opts.Longest),
		size.add(model, opts, exact, 0))
	return size, nil
}

// add takes a layout into account that has at most so many cells.
func (z *Size) add(model *llama.Model, opts Options, l []layout, most int) error {
	s := &Scheduler{model: model, opts: opts, probed: true, checked: true}
	err := s.open(l)
	if err == nil {
		s.see()
		if most == 0 { // the size of fewer cells is rounded too
			z.KVCache = max(z.KVCache, s.cache)
		}
		z.ParallelBatch = max(z.ParallelBatch, s.compute)
	}
	z.Parts = append(z.Parts, Part{l[0].cells, most, s.compute})
	return errors.Join(err, s.closePools())
}

// see takes into account what the pools have allocated.
func (s *Scheduler) see() {
	for _, p := range s.pools {
		s.cache = max(s.cache, p.ctx.Cache().Scale(float64(s.opts.Cells)/float64(p.cells)))
		s.compute = max(s.compute, p.ctx.Compute())
	}
}

// Footprint is what the contexts take at most, in whatever layout. It must not be called
// while the scheduler changes its shape.
func (s *Scheduler) Footprint() budget.Footprint {
	return budget.Footprint{KVCache: s.cache, ParallelBatch: s.compute}
}

// allocate makes the pools for jobs of which nothing is known. With warm each layout that
// such jobs may come to is run at its worst before.
func (s *Scheduler) allocate(warm bool) error {
	s.cache, s.compute = 0, 0
	if s.opts.Compute != nil {
		s.compute = s.opts.Compute(s.opts.Cells)
	}
	if warm && s.model.OnGPU() {
		s.tryAttention()
	}
	for _, l := range s.likely(warm && s.model.OnGPU()) {
		if err := s.open(l); err != nil {
			return err
		}
		s.see()
		for _, p := range s.pools {
			if !warm {
				break
			}
			if err := p.ctx.WarmUp(); err != nil {
				return err
			}
		}
	}
	return nil
}

// tryAttention runs the pool in which attention is read at its worst, once. If that fails, only
// the jobs that ask for it are refused.
func (s *Scheduler) tryAttention() {
	if s.checked || s.opts.NoRemoval != nil || noRemoval(s.model, s.opts) != nil || s.divider().attended == 0 {
		return
	}
	s.checked = true
	err := s.open(s.choose([]need{{tokens: 1, attends: true}}))
	if err == nil {
		err = errors.Join(s.pools[0].ctx.CheckAttention(), s.pools[0].ctx.WarmUp())
	}
	if err != nil {
		s.cannotRead(err)
	}
}

// likely are the layouts that are tried before the first job, that for jobs of which nothing is
// known last. all: also those that jobs may come to.
func (s *Scheduler) likely(all bool) (layouts [][]layout) {
	first := s.choose(nil)
	if first[0].streams > 0 && s.opts.Layout != Streams && (all || s.opts.Compute == nil) {
		layouts = append(layouts, []layout{{cells: s.opts.Cells}})
	}
	return append(layouts, first)
}

// open makes the pools anew; what they had is gone. Where two contexts cannot be had, or
// their buffers together pass what is booked, one pool takes the place of both.
func (s *Scheduler) open(layouts []layout) error {
	if err := s.make(layouts); err != nil {
		return err
	}
	p := s.pools[0]
	if p.attends && !s.checked {
		s.checked = true
		if err := p.ctx.CheckAttention(); err != nil {
			s.cannotRead(err)
		}
	}
	if !p.exact || p.streams == 1 || s.probed {
		return nil
	}
	if err := s.probe(p); err != nil || !s.single {
		return err
	}
	return s.make(s.choose([]need{{tokens: p.longest(), exact: true}}))
}

func (s *Scheduler) make(layouts []layout) error {
	if err := s.closePools(); err != nil {
		return err
	}
	s.model.Trim() // small pools come from the C library's heap
	sum := budget.Bytes(0)
	for _, l := range layouts {
		ctx, err := s.context(l)
		if err != nil && len(layouts) == 1 {
			return err
		}
		if err != nil {
			return s.makeOne()
		}
		p := newPool(l, ctx)
		p.uncut = s.model.Recurrent()
		if l.exact {
			p.piece = exactPiece(s.model)
		}
		s.pools = append(s.pools, p)
		sum = sum.Add(ctx.Compute())
	}
	if len(layouts) > 1 && sum > s.compute {
		return s.makeOne()
	}
	return nil
}

// makeOne makes one pool where there cannot be two.
func (s *Scheduler) makeOne() error {
	s.undivided = true
	return s.make([]layout{{cells: s.opts.Cells}})
}

// vectorBatch is the most tokens in a batch for embeddings. llama.cpp calculates the
// logits of all, so that more would take much memory.
const vectorBatch = 16

// context makes one context.
func (s *Scheduler) context(l layout) (*llama.Context, error) {
	opts := llama.ContextOptions{
		Cells: l.cells, Sequences: l.streams, Streams: l.streams > 0,
		Batch: s.opts.Batch, Threads: s.opts.Threads, NoFlash: s.opts.NoFlash, TypeK: s.opts.TypeK, TypeV: s.opts.TypeV,
	}
	if l.streams == 0 {
		opts.Sequences = s.opts.Sequences
	}
	if l.pooled {
		opts.Sequences = min(opts.Sequences, mostPooled)
	}
	if !l.exact && !l.vectors { // sets have several outputs in a sequence
		opts.Outputs = s.opts.Sequences
	}
	if l.attends {
		opts.Attention, opts.Batch = true, min(opts.Batch, attendBatch)
	}
	if l.vectors { // all tokens are outputs then, with logits for each that nobody reads
		opts.Embeddings, opts.Batch = true, min(opts.Batch, vectorBatch)
		opts.NoFlash = opts.NoFlash || s.opts.Inexact == nil && !llama.Quantised(opts.TypeV) // flash attention adds up in half precision
		return s.model.NewContext(opts)
	}
	if l.exact { // elsewhere a batch goes through the model in one: a set must
		opts.Micro = exactPiece(s.model)
		opts.Batch = max(opts.Batch, opts.Micro)
		opts.NoFlash = opts.NoFlash || s.model.Recurrent()
	}
	opts.Batch = max(opts.Batch, s.opts.Sequences+promptShare) // every job has its next token in each step
	return s.model.NewContext(opts)
}

// mostPooled is how many jobs can be in a pool for sets whose members are kept apart: these need
// sequences too.
const mostPooled = llama.MostSequences / 2

// attendBatch is the most tokens in a batch where attention is read. The weights of all to all
// cells are in memory then.
const attendBatch = 64

// promptShare is how many tokens of prompts have room in a batch at least.
const promptShare = 16

// describe says what the layouts are, for people.
func describe(layouts []layout) string {
	var parts []string
	for _, l := range layouts {
		switch {
		case l.attends:
			parts = append(parts, fmt.Sprintf("one pool of %d tokens whose attention is read", l.cells))
		case l.streams == 0:
			parts = append(parts, fmt.Sprintf("one pool of %d tokens", l.cells))
		case l.vectors:
			parts = append(parts, fmt.Sprintf("%d streams of %d tokens for embeddings", l.streams, l.longest()))
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
