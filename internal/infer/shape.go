package infer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
)

// Load loads the model in the engine process and from then on replaces the
// process when it dies.
func (h *Host) Load(ctx context.Context, shape Shape) (f budget.Footprint, err error) {
	h.shaping.Lock()
	defer h.shaping.Unlock()
	p, err := h.engine(ctx)
	if err != nil {
		return f, err
	}
	return h.first(ctx, p, shape)
}

// first is the first load. shaping is held.
func (h *Host) first(ctx context.Context, p *process, shape Shape) (budget.Footprint, error) {
	if err := h.fill(ctx, p, shape); err != nil {
		return budget.Footprint{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return budget.Footprint{}, ErrStopped
	}
	h.shape, h.loaded = shape, true
	h.watching.Go(func() { h.replace(h.life, p) })
	return p.holds, nil
}

// Reshape has the engine process take the shape, and remembers it for those that
// replace it. Once the engine is asked, ctx no longer matters. If the engine dies
// of it, the jobs in it end with a *DiedError, and what Reshape returns is what its
// successor has.
func (h *Host) Reshape(ctx context.Context, shape Shape) (f budget.Footprint, err error) {
	h.shaping.Lock()
	defer h.shaping.Unlock()
	// At once: should the engine be down, its successor must not take the old one.
	old, loaded := h.remember(shape)
	for {
		p, err := h.engine(ctx)
		if err != nil {
			h.remember(old)
			return f, err
		}
		if !loaded {
			return h.first(ctx, p, shape)
		}
		if p.shape == shape { // it has come up with it
			return p.holds, nil
		}
		err = h.change(context.WithoutCancel(ctx), p, shape)
		var busy *BusyError
		switch {
		case err == nil:
			return p.holds, nil
		case errors.As(err, &busy):
			h.remember(old)
			return f, err
		}
		h.log.Error("the engine broke when its shape was changed", zap.Int("pid", p.pid), zap.Error(err))
		_ = p.end() // a successor comes, or why there is none
		ctx = context.WithoutCancel(ctx)
	}
}

// Narrow tells the engine process, and remembers it for those that replace it: also where
// it returns a *DiedError, or ctx's error, the next one begins with it.
func (h *Host) Narrow(ctx context.Context, width int) error {
	h.mu.Lock()
	failed := h.failed
	if failed == nil {
		h.width = width
	}
	h.mu.Unlock()
	if failed != nil {
		return failed
	}
	p, err := h.engine(ctx)
	if err != nil {
		return err
	}
	return p.call(ctx, methodNarrow, width, nil)
}

// remember notes the shape of the engines to come, and returns the last one and
// whether there was one.
func (h *Host) remember(shape Shape) (old Shape, loaded bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loaded {
		old, h.shape = h.shape, shape
	}
	return old, h.loaded
}

// fill has an engine that is open, and no more, take the shape.
func (h *Host) fill(ctx context.Context, p *process, shape Shape) error {
	h.bound(p, shape.Grant)
	method := methodLoad
	if shape.Empty() {
		method = methodReshape
	}
	if err := h.take(ctx, p, method, shape); err != nil {
		return err
	}
	h.mu.Lock()
	width := h.width
	h.mu.Unlock()
	if width == 0 {
		return nil
	}
	return p.call(ctx, methodNarrow, width, nil)
}

// change has a loaded engine take another shape. Its bound follows: before what
// takes more, after what takes less.
func (h *Host) change(ctx context.Context, p *process, shape Shape) error {
	old := p.shape.Grant
	more := shape.Grant == 0 || old != 0 && shape.Grant > old
	if more {
		h.bound(p, shape.Grant)
	}
	p.changing.Store(true)
	err := h.take(ctx, p, methodReshape, shape)
	var busy *BusyError
	if err == nil || errors.As(err, &busy) { // after anything else it ends, and no job is at fault
		p.changing.Store(false)
	}
	switch {
	case err == nil && !more:
		h.bound(p, shape.Grant)
	case err != nil && more:
		h.bound(p, old)
	}
	return err
}

// take makes the call, within LoadTimeout. An engine that does not answer is ended.
func (h *Host) take(ctx context.Context, p *process, method string, shape Shape) error {
	within, cancel := context.WithTimeout(ctx, h.opts.LoadTimeout)
	defer cancel()
	var f budget.Footprint
	err := p.call(within, method, shape, &f)
	if err == nil {
		p.shape, p.holds = shape, f
		return nil
	}
	if within.Err() != nil && ctx.Err() == nil {
		p.stop(0)
		return hung("load the model", h.opts.LoadTimeout)
	}
	return err
}

// hung says that an engine process has not answered.
func hung(what string, after time.Duration) *StartError {
	return &StartError{
		What: what, Err: fmt.Errorf("the engine process has not answered for %v and was ended", after),
		Advice: "see whether the disk with the model is slow or the device hangs; --log-level debug shows llama.cpp's lines",
	}
}

// bound bounds the memory of a process, on a CPU: CUDA reserves address space far
// beyond what it uses.
func (h *Host) bound(p *process, grant budget.Bytes) {
	if h.spec.GPU >= 0 || grant == 0 && p.bounded() == 0 {
		return
	}
	if err := bound(p.pid, grant, h.spec.Threads); err != nil {
		if !p.dead() {
			h.log.Warn("the engine's memory is not bounded by the system, only watched", zap.Error(err))
		}
		return
	}
	p.grant.Store(int64(grant))
}
