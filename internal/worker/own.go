package worker

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
)

// What this process itself takes of a CPU's memory, it takes for all models of a team:
// it is booked and claimed once, for as long as the team is there.

// ownModel stands for a model's name in the claim for the process itself.
const ownModel = "none: the worker itself"

// share sets up what the models have together, and claims the process's own part.
func (t *Team) share(ctx context.Context) error {
	if err := t.shareLocally(); err != nil {
		return err
	}
	if t.booked == 0 || t.opts.ReadDevice == nil {
		return nil
	}
	t.own = &stand{queue: t.queue, device: t.opts.Device.MemoryID, worker: t.opts.Name, every: t.opts.RenewClaim, log: t.log}
	if err := t.own.set(ctx, func([]api.Claim) (api.Claim, error) { return t.ownClaim() }); err != nil {
		return err
	}
	t.own.begin(ctx)
	return nil
}

// shareLocally is share without a claim.
func (t *Team) shareLocally() error {
	if t.opts.Device.Kind == budget.CPU {
		now, err := t.opts.Measure(os.Getpid())
		if err != nil {
			return fmt.Errorf("measure this process: %w", err)
		}
		t.booked = now.Add(processGrowth).Add(t.opts.ExtraOverhead)
	}
	if t.booked >= t.opts.Limit {
		return &budget.TooLargeError{
			What: "the worker's own process on " + t.opts.Device.ID, Need: t.booked, Capacity: t.opts.Limit,
			Hints: []string{"raise --max-memory-gb"},
		}
	}
	var err error
	if t.common, err = newCommon(t.opts, t.Models()); err != nil {
		return err
	}
	t.common.own.Store(int64(t.booked))
	return nil
}

// ownClaim is what the others are told of the process itself.
func (t *Team) ownClaim() (api.Claim, error) {
	measure := t.opts.MeasureTaken
	if measure == nil {
		measure = t.opts.Measure
	}
	held, err := measure(os.Getpid())
	if err != nil {
		return api.Claim{}, fmt.Errorf("measure this process: %w", err)
	}
	return api.Claim{Model: ownModel, Bytes: t.common.own.Load(), Held: int64(held)}, nil
}

// watchOwn measures this process until ctx is done. What it holds beyond what is booked
// for it is taken from the models' room.
func (t *Team) watchOwn(ctx context.Context) error {
	if t.booked == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(t.opts.WatchInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := t.lookOwn(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			t.log.Warn("what the worker itself holds cannot be followed; it is tried again", zap.Error(err))
		}
		failing = err != nil
	}
}

func (t *Team) lookOwn(ctx context.Context) error {
	now, err := t.opts.Measure(os.Getpid())
	if err != nil {
		return fmt.Errorf("measure this process: %w", err)
	}
	t.common.own.Store(int64(max(now, t.booked)))
	if t.own == nil {
		return nil
	}
	c, err := t.ownClaim()
	if err != nil {
		return err
	}
	last, stands := t.own.told()
	if off := c.Held - last.Held; stands && c.Bytes == last.Bytes && max(off, -off) <= int64(claimStep) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return t.own.set(ctx, func([]api.Claim) (api.Claim, error) { return c, nil })
}
