package budget

import (
	"fmt"
	"sort"
)

// cellStep is the multiple to which llama.cpp pads the cells of a KV stream.
const cellStep = 256

// Fit says what a context with this many sequences and cells (in all) would
// hold: a dry run of llama.cpp. More of either must not need less memory.
type Fit func(sequences, cells int) (Footprint, error)

// PlanRequest is what [PlanPool] is asked for.
type PlanRequest struct {
	Limit Bytes
	// Act is the share of Limit that may be planned for (over 0, up to 1);
	// 0 means DefaultThresholds' 0.95. The rest is for what no dry run sees.
	Act float64
	// Fixed is held besides what Fit counts: the worker's own process, an
	// embedded server, the CUDA context, another model's weights.
	Fixed Footprint
	// Sequences is the wanted number of jobs at once (at least 1).
	Sequences int
	// Cells is the wanted number of KV cells over all sequences; the plan never
	// has more, but for llama.cpp's padding to 256. At least MinContext.
	Cells int
	// MinContext is what the smallest useful job needs, prompt and output, in
	// tokens (at least 1).
	MinContext int
}

// Plan is a pool that fits.
type Plan struct {
	Sequences int
	Cells     int       // over all sequences, which share them; a multiple of 256
	Footprint Footprint // with Fixed
	Reason    string    // one line: what was wanted, what it became and why
}

// PlanPool returns the largest plan whose total stays within Limit · Act: all
// that is wanted; else fewer cells, down to what one job of MinContext needs;
// else, with those, fewer sequences and then again as many cells as fit. It
// returns *TooLargeError if one sequence with the fewest cells does not fit, in
// particular when the weights alone do not. fit is called at most
// log2(Sequences) + log2(Cells/256) + 8 times; its errors are wrapped.
func PlanPool(r PlanRequest, fit Fit) (Plan, error) {
	if r.Act == 0 {
		r.Act = DefaultThresholds().Act
	}
	if err := r.validate(); err != nil {
		return Plan{}, err
	}
	p := planner{PlanRequest: r, fit: fit, budget: r.Limit.Scale(r.Act)}
	p.fewest = (r.MinContext + cellStep - 1) / cellStep
	p.wanted = max(r.Cells/cellStep, p.fewest)

	sequences, err := p.largest(1, r.Sequences, func(n int) (bool, error) { return p.fits(n, p.fewest) })
	if err != nil {
		return Plan{}, err
	}
	if sequences == 0 {
		return Plan{}, p.tooLarge()
	}
	steps, err := p.largest(p.fewest, p.wanted, func(n int) (bool, error) { return p.fits(sequences, n) })
	if err != nil {
		return Plan{}, err
	}
	return p.plan(sequences, steps)
}

func (r PlanRequest) validate() error {
	switch {
	case !(r.Act > 0 && r.Act <= 1):
		return fmt.Errorf("plan pool: share of the limit is %v, must be over 0 and at most 1", r.Act)
	case r.Sequences < 1:
		return fmt.Errorf("plan pool: %d sequences, must be at least 1", r.Sequences)
	case r.MinContext < 1:
		return fmt.Errorf("plan pool: smallest context is %d tokens, must be at least 1", r.MinContext)
	case r.Cells < r.MinContext:
		return &hintedError{
			err:  fmt.Errorf("plan pool: %d cache tokens, one job needs %d", r.Cells, r.MinContext),
			hint: fmt.Sprintf("raise --max-cache-tokens to at least %d", r.MinContext),
		}
	}
	return nil
}

// planner is one call of PlanPool. Cells are counted in steps of cellStep.
type planner struct {
	PlanRequest
	fit    Fit
	budget Bytes // Limit · Act
	fewest int   // steps for MinContext
	wanted int   // steps for Cells
}

func (p *planner) size(sequences, steps int) (Footprint, error) {
	cells := steps * cellStep
	f, err := p.fit(sequences, cells)
	if err != nil {
		return Footprint{}, fmt.Errorf("size %d sequences with %d cells: %w", sequences, cells, err)
	}
	return f.Plus(p.Fixed), nil
}

func (p *planner) fits(sequences, steps int) (bool, error) {
	f, err := p.size(sequences, steps)
	return err == nil && f.Total() <= p.budget, err
}

// largest returns the largest n of low to high for which fits holds, low-1 if
// there is none. It tries high first, because that is the usual answer.
func (p *planner) largest(low, high int, fits func(int) (bool, error)) (int, error) {
	if high < low {
		return low - 1, nil
	}
	if ok, err := fits(high); err != nil {
		return 0, err
	} else if ok {
		return high, nil
	}
	var err error
	n := sort.Search(high-low, func(i int) bool {
		if err != nil {
			return true
		}
		var ok bool
		ok, err = fits(low + i)
		return !ok
	})
	return low + n - 1, err
}

func (p *planner) plan(sequences, steps int) (Plan, error) {
	f, err := p.size(sequences, steps)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Sequences: sequences, Cells: steps * cellStep, Footprint: f}
	held := fmt.Sprintf("%v of %v (%.0f %% of the limit %v)", f.Total(), p.budget, 100*p.Act, p.Limit)
	if sequences < p.Sequences || steps < p.wanted {
		plan.Reason = fmt.Sprintf("%d of %d sequences and %d of %d cells take %s", sequences, p.Sequences, plan.Cells, p.Cells, held)
	} else {
		plan.Reason = fmt.Sprintf("all %d sequences and %d cells take %s", sequences, plan.Cells, held)
	}
	return plan, nil
}

// hintMargin is for what processes hold at the next start, which is never quite the
// same.
const hintMargin = 1.03

// tooLarge says why the smallest plan does not fit, and what would make it fit.
func (p *planner) tooLarge() error {
	f, err := p.size(1, p.fewest)
	if err != nil {
		return err
	}
	e := &TooLargeError{
		What:     fmt.Sprintf("one job with %d tokens of context in %.0f %% of %v (%v)", p.MinContext, 100*p.Act, p.Limit, f),
		Need:     f.Total(),
		Capacity: p.budget,
		Hints:    []string{raiseLimit(f.Total().Scale(hintMargin / p.Act))},
	}
	shorter, err := p.largest(1, p.fewest-1, func(n int) (bool, error) { return p.fits(1, n) })
	if err != nil {
		return err
	}
	if shorter > 0 {
		e.Hints = append(e.Hints, fmt.Sprintf("use a context of at most %d tokens", shorter*cellStep))
	}
	if weights := p.budget.Sub(f.Total().Sub(f.Weights)); weights > 0 && weights < f.Weights {
		e.Hints = append(e.Hints, fmt.Sprintf("use a smaller or more strongly quantised model (weights of at most %v, this one has %v)", weights, f.Weights))
	}
	return e
}
