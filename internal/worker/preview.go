package worker

import (
	"context"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

// Preview is what Start would do with the memory that there is now.
type Preview struct {
	Facts    infer.Facts
	Limit    budget.Bytes // in force
	Reason   string       // what bounds it
	Parallel Parallel
	Plan     budget.Plan
}

// Parallel is the most tokens that a step generates, and the numbers behind it.
type Parallel struct {
	Tokens    int
	Automatic bool // TEMPO's rule has set it, else the user
	// What the rule was given, and what it said before it was bounded by the CPU's
	// threads and the size of a step; 0 where it was not asked.
	Available, TokenBytes budget.Bytes
	Rule                  int
}

// Preview opens the model and plans its memory beside the claims of other workers.
// It claims, books and loads nothing, and stands in the place of Start. What it has
// found until an error, like a *budget.TooLargeError, is returned with it.
func (w *Worker) Preview(ctx context.Context, others []api.Claim) (p Preview, err error) {
	if w.facts, err = w.engine.Open(ctx, w.opts.Spec); err != nil {
		return p, err
	}
	p.Facts = w.facts
	if p.Limit, p.Reason, err = w.limitNow(others, 0); err != nil {
		return p, err
	}
	if err = w.planPool(ctx, p.Limit); err != nil {
		return p, err
	}
	p.Plan, p.Parallel = w.plan, w.parallel(p.Limit)
	return p, nil
}

// Parallel tells how max_parallel_tokens follows from the limit in force. Start
// must have returned.
func (w *Worker) Parallel() Parallel { return w.parallel(w.ledger.Snapshot().Limit) }

func (w *Worker) parallel(limit budget.Bytes) Parallel {
	p := Parallel{Tokens: w.plan.Sequences, Automatic: w.opts.MaxParallelTokens == 0}
	if p.Automatic {
		_, p.Available = w.autoParallelTokens(limit)
		p.TokenBytes, p.Rule = w.perToken, budget.AutoParallelTokens(p.Available, w.perToken)
	}
	return p
}
