package local

import (
	"context"
	"errors"

	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/infer/schedule"
)

// DryRun asks llama.cpp what a context of this shape would allocate.
func (e *Engine) DryRun(_ context.Context, shape infer.Shape) (budget.Footprint, error) {
	e.setting.Lock()
	defer e.setting.Unlock()
	if e.dry == nil {
		return budget.Footprint{}, infer.ErrNotOpen
	}
	size, err := e.measure(shape)
	if err != nil {
		return budget.Footprint{}, err
	}
	size.Weights = e.estimate
	return size.Footprint, nil
}

// measure has llama.cpp size the contexts of a shape, once: the load asks for what the
// plan has asked for before.
func (e *Engine) measure(shape infer.Shape) (schedule.Size, error) {
	shape.Grant, shape.Ample = 0, 0 // they make no difference
	if size, ok := e.measured[shape]; ok {
		return size, nil
	}
	size, err := schedule.Measure(e.dry, e.options(shape))
	if err != nil {
		return size, e.contextError(err)
	}
	e.measured[shape] = size
	return size, nil
}

func (e *Engine) options(shape infer.Shape) schedule.Options {
	return schedule.Options{
		Cells: shape.Cells, Sequences: shape.Sequences, Ample: shape.Ample, Batch: e.spec.Batch, Threads: e.spec.Threads,
		TypeK: e.spec.CacheTypeK, TypeV: e.spec.CacheTypeV, Layout: e.spec.Layout,
		Longest: e.facts.Context, Inexact: e.inexact(), NoRemoval: e.size.NoRemoval, Compute: e.compute, Attends: e.attends,
	}
}

// inexact says why there can be no reproducible jobs on this device, nil if there
// can.
func (e *Engine) inexact() error {
	if e.spec.GPU >= 0 {
		return errors.New("a GPU's kernels give other numbers in other batches")
	}
	return nil
}

// computeLine finds out how much compute buffers take with more or fewer cells than in
// this shape, while the model of the dry runs is there.
func (e *Engine) computeLine(shape infer.Shape) error {
	e.compute, e.attends = nil, nil
	half := shape
	half.Cells = max(shape.Cells/2/256*256, 256)
	whole, err := e.measure(shape)
	if err != nil {
		return err
	}
	less, err := e.measure(half)
	if err != nil {
		return err
	}
	e.size = whole
	e.compute = func(cells int) budget.Bytes {
		most := budget.Bytes(0)
		for i, w := range whole.Parts {
			most = max(most, along(less.Parts[i], w, cells))
		}
		return most
	}
	if e.size.NoRemoval == nil {
		e.attends = func(cells int) int { return attended(less.Attends, whole.Attends, cells, e.compute(cells)) }
		if e.attends(shape.Cells) == 0 {
			e.size.NoRemoval = errors.New("there is no memory to read attention beside what the other jobs take")
		}
	}
	return nil
}

// attended is how many of so many cells, in steps of 256, the pool may have whose compute buffers
// are on the line through two measurements, where those are to stay within booked.
func attended(less, whole schedule.Part, cells int, booked budget.Bytes) int {
	const step = 256
	for cells = cells / step * step; cells > 0 && along(less, whole, cells) > booked; {
		cells -= step
	}
	return cells
}

// along is what the compute buffers of one layout take with so many cells, on the line
// through two measurements.
func along(less, whole schedule.Part, cells int) budget.Bytes {
	if whole.Most > 0 {
		cells = min(cells, whole.Most)
	}
	if whole.Cells == less.Cells || whole.Compute == 0 || less.Compute == 0 {
		return max(whole.Compute, less.Compute)
	}
	rise := float64(cells-less.Cells) / float64(whole.Cells-less.Cells)
	return less.Compute.Add(whole.Compute.Sub(less.Compute).Scale(rise))
}

// contextError says what to do about a context that could not be made.
func (e *Engine) contextError(err error) error {
	if e.spec.CacheTypeV != "" {
		return startError(err, adviceCache)
	}
	return startError(err, adviceMemory)
}
