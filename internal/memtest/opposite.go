package memtest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"tempo/internal/budget"
	"tempo/internal/node"
)

const (
	// less is the share by which the limit is below the smallest.
	less = 0.01
	// noise is how much what processes hold differs from one start to the next: Go's
	// heap and stacks.
	noise = 16 * budget.MiB
)

// tries is how often a start that was accepted is tried again: what this process holds
// is a part of what is needed, and can have become less by more than the limit is.
const tries = 4

// opposite starts a worker with a limit that is a little too small, which must be
// refused before anything is allocated.
func (t *test) opposite(ctx context.Context) Outcome {
	o := &t.result.Opposite
	for _, l := range t.result.Load.Lines[:2] { // weights and KV cache
		o.Loaded = o.Loaded.Add(l.Measured)
	}
	var refusal *budget.TooLargeError
	for i := 1; ; i++ {
		probe, err := t.refused(ctx, budget.MiB) // says what a start needs
		if err != nil {
			return failure(err)
		}
		o.Smallest = probe.Need.Scale(1 / t.config.Memory.Act)
		o.Limit = o.Smallest.Scale(1 - less)
		refusal, err = t.refused(ctx, o.Limit)
		o.Peak, _ = t.sampler.phase()
		if err == nil {
			break
		}
		if !errors.Is(err, errAccepted) || i == tries {
			return failure(err)
		}
	}
	o.Need, o.Available = refusal.Need, refusal.Capacity
	switch {
	case o.Need <= 0 || o.Available <= 0 || o.Need <= o.Available:
		return Outcome{Status: Failed, Problem: fmt.Sprintf("the refusal makes no sense: it needs %v and has %v", o.Need, o.Available)}
	case o.Peak > o.Allowed:
		return Outcome{Status: Failed, Problem: fmt.Sprintf(
			"the refused start held %v, though an engine's process alone would have made it %v at most", o.Peak, o.Allowed)}
	}
	return Outcome{Status: OK}
}

// errAccepted says that a worker came up that should not have.
var errAccepted = errors.New("the start was not refused")

// refused starts with a limit and returns the refusal.
func (t *test) refused(ctx context.Context, limit budget.Bytes) (*budget.TooLargeError, error) {
	c := *t.config
	c.Memory.MaxGB = limit.GiB()
	debug.FreeOSMemory() // so that all tries begin with the same
	t.result.Opposite.Before = t.sampler.begin().total()
	t.result.Opposite.Allowed = t.result.Opposite.Before.Add(t.result.Monitor.Engine).Add(noise)
	n, err := node.Start(ctx, &c, t.client, t.nodeOptions(), t.log)
	if err == nil {
		return nil, errors.Join(fmt.Errorf("start with a limit of %v: %w", limit, errAccepted), n.Close())
	}
	var refusal *budget.TooLargeError
	if !errors.As(err, &refusal) {
		return nil, fmt.Errorf("a start with a limit of %v was not refused for its memory: %w", limit, err)
	}
	return refusal, nil
}
