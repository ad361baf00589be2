package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
)

// stake plans the memory within what the device has for this worker and claims it
// in the same step, so that two workers never plan with the same bytes. It returns
// the limit.
func (w *Worker) stake(ctx context.Context) (budget.Bytes, error) {
	if w.opts.ReadDevice == nil {
		limit, _, err := w.planBeside(ctx, nil)
		return limit, err
	}
	w.stand = &stand{queue: w.queue, device: w.opts.Device.MemoryID, worker: w.claimant(), every: w.opts.RenewClaim, log: w.log}
	for deadline := time.Now().Add(claimLife); ; {
		limit, err := w.tryStake(ctx)
		var large *budget.TooLargeError
		if !errors.As(err, &large) || w.common != nil || len(w.others) == 0 || time.Now().After(deadline) {
			if err == nil {
				w.stand.begin(ctx)
			}
			return limit, err
		}
		w.log.Warn("other workers have claimed the device's memory; waiting in case one of them is gone",
			zap.Int("others", len(w.others)), zap.Error(err))
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(w.opts.RetryStart):
		}
	}
}

// tryStake plans and claims once.
func (w *Worker) tryStake(ctx context.Context) (limit budget.Bytes, err error) {
	var planErr error // without the claim around it, which is not at fault
	err = w.stand.set(ctx, func(others []api.Claim) (c api.Claim, _ error) {
		limit, c, planErr = w.planBeside(ctx, others)
		return c, planErr
	})
	if planErr != nil {
		return 0, planErr
	}
	return limit, err
}

// planBeside plans the memory beside the claims of others, and returns the limit
// and the claim to it.
func (w *Worker) planBeside(ctx context.Context, others []api.Claim) (budget.Bytes, api.Claim, error) {
	limit, why, err := w.limitNow(others, 0)
	if err != nil {
		return 0, api.Claim{}, err
	}
	w.others, w.said = others, limit
	w.log.Info("memory limit", zap.Int64("limit_bytes", int64(limit)), zap.String("reason", why))
	if err := w.planPool(ctx, limit); err != nil {
		if large, ok := errors.AsType[*budget.TooLargeError](err); ok && limit < w.opts.Limit { // the flag is not what binds
			large.Hints = append([]string{fmt.Sprintf("free at least %v on the device: %s", large.Need.Sub(large.Capacity), why)}, large.Hints[1:]...)
		}
		return 0, api.Claim{}, err
	}
	total := w.plan.Footprint.Total()
	if w.common != nil && !w.common.pledge(w.opts.Model, total) {
		return 0, api.Claim{}, errTaken
	}
	return limit, w.claim(total, w.taken, total), nil
}

// claimLife is how long the claim of a worker that was killed stands, and a little.
const claimLife = 35 * time.Second

// claim is what the others are told. target is what is held once the load or the
// resizing that is under way is done, 0 = none is.
func (w *Worker) claim(promised, held, target budget.Bytes) api.Claim {
	return api.Claim{Model: w.opts.Model, Bytes: int64(promised), Held: int64(held), Target: int64(target)}
}

// limitNow is what this worker may hold on the device beside the others. promised is
// what stands in its claim, 0 if it has none.
func (w *Worker) limitNow(others []api.Claim, promised budget.Bytes) (budget.Bytes, string, error) {
	most := w.opts.Limit
	if w.common != nil {
		most = w.common.room(w.opts.Model)
	}
	if w.opts.ReadDevice == nil {
		return most, "set by the caller", nil
	}
	dev, err := w.opts.ReadDevice()
	if err != nil {
		return 0, "", fmt.Errorf("read the device's memory: %w", err)
	}
	mine, err := w.mine()
	if err != nil {
		return 0, "", err
	}
	claimed := make([]budget.Claimed, len(others))
	for i, o := range others {
		claimed[i] = budget.Claimed{Promised: budget.Bytes(o.Bytes), Held: budget.Bytes(o.Held), Target: budget.Bytes(o.Target)}
	}
	limit, why := budget.EffectiveLimit(budget.LimitRequest{
		Maximum: most, Device: dev, Mine: mine, Promised: promised, Others: claimed, Reserve: w.opts.Reserve,
	})
	if beside := w.opts.Limit.Sub(most); beside > 0 {
		why = fmt.Sprintf("%s; this worker and its other models have %v of the %v of max_memory_gb", why, beside, w.opts.Limit)
	}
	return limit, why, nil
}

// mine measures what this worker's processes have taken of what the device calls
// free.
func (w *Worker) mine() (budget.Bytes, error) {
	sum, err := w.measureTaken()
	if err != nil {
		return 0, fmt.Errorf("measure what this worker holds: %w", err)
	}
	if w.ledger != nil { // a driver that does not tell one process from another counts others' in
		sum = min(sum, promise(w.ledger.Snapshot()))
	}
	w.taken = sum
	return sum, nil
}

func (w *Worker) measureTaken() (budget.Bytes, error) {
	reading, err := w.monitor.Last()
	// Reading a large process takes the system milliseconds in which it does not
	// decode: once is enough where MeasureTaken reads it too.
	if w.opts.MeasureTaken == nil || reading.Time.IsZero() || err != nil {
		if reading, err = w.monitor.Sample(); err != nil {
			return 0, err
		}
	}
	if w.opts.MeasureTaken == nil {
		return reading.Total, nil
	}
	var sum budget.Bytes
	for pid := range reading.Processes {
		n, err := w.opts.MeasureTaken(pid)
		if err != nil && !errors.Is(err, budget.ErrProcessNotFound) {
			return 0, err
		}
		sum = sum.Add(n)
	}
	return sum, nil
}

// follow takes the limit from what the device has now, and says so when it has
// moved by more than a twentieth. While the queue is away, what it said last of the
// other workers stands.
func (w *Worker) follow(ctx context.Context) error {
	if w.opts.ReadDevice == nil && w.common == nil {
		return nil
	}
	unreachable := w.readClaims(ctx)
	limit, why, err := w.limitNow(w.others, w.promised)
	if err != nil {
		return errors.Join(err, unreachable)
	}
	if w.common != nil {
		limit = w.common.spare(w, limit)
	}
	before := w.ledger.Snapshot().Limit
	w.ledger.SetLimit(limit)
	fell := max(before.Sub(limit), 0)
	w.falling, w.fell = min(fell, w.fell), fell // once is noise
	if moved := limit.Sub(w.said); max(moved, -moved) > w.said.Scale(0.05) {
		w.said = limit
		w.log.Info("the memory limit has moved", zap.Int64("limit_bytes", int64(limit)),
			zap.Int64("before_bytes", int64(before)), zap.String("reason", why))
	}
	w.retune(limit)
	if w.stand != nil && unreachable == nil && (w.promised == 0 || len(w.others) > 0 || w.stale()) {
		return w.renew(ctx, 0)
	}
	return unreachable
}

// askLimit bounds one request to the queue: the device is watched meanwhile.
const askLimit = time.Second

// readClaims reads who shares the device, and whether this worker's own claim
// stands. If it cannot, what was read last stays.
func (w *Worker) readClaims(ctx context.Context) error {
	if w.stand == nil { // nobody shares the device
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	claims, err := w.queue.Claims(ctx, w.opts.Device.MemoryID)
	if err != nil {
		return fmt.Errorf("read the claims on the device: %w", err)
	}
	w.others, w.promised = nil, 0
	for _, c := range claims {
		if c.Own && c.Worker == w.claimant() {
			w.promised = budget.Bytes(c.Bytes)
		} else {
			w.others = append(w.others, c)
		}
	}
	return nil
}

// claimant is the name under which the worker claims memory: of those in a team each
// has a claim of its own, beside the others as beside those of other workers.
func (w *Worker) claimant() string {
	if w.common == nil {
		return w.opts.Name
	}
	return w.opts.Name + "/" + w.opts.Model
}

// claimStep is how much what is held may differ from what the claim says.
const claimStep = 16 * budget.MiB

// stale reports whether the claim does not say any more what is so.
func (w *Worker) stale() bool {
	w.stand.mu.Lock()
	c := w.stand.last
	w.stand.mu.Unlock()
	off := budget.Bytes(c.Held).Sub(w.taken)
	return budget.Bytes(c.Bytes) != promise(w.ledger.Snapshot()) || c.Target != 0 || max(off, -off) > claimStep
}

// promise is what the worker may come to hold.
func promise(s budget.Snapshot) budget.Bytes { return s.Charged().Total() }

// renew claims what the ledger says now, and tells what is held once the resizing
// that follows is done, 0 = none follows.
func (w *Worker) renew(ctx context.Context, target budget.Bytes) error {
	if w.stand == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return w.stand.set(ctx, func([]api.Claim) (api.Claim, error) {
		return w.claim(promise(w.ledger.Snapshot()), w.taken, target), nil
	})
}

// errTaken says that others have claimed memory of the device in the meantime.
var errTaken = errors.New("another worker was faster")

// renewMore is renew for what the ledger has booked in addition: it claims it only
// if there is still room for it beside the others, and returns errTaken otherwise.
func (w *Worker) renewMore(ctx context.Context, target budget.Bytes) error {
	if w.stand == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return w.stand.set(ctx, func(others []api.Claim) (api.Claim, error) {
		limit, _, err := w.limitNow(others, w.promised)
		if err != nil {
			return api.Claim{}, err
		}
		more := promise(w.ledger.Snapshot())
		if more > limit {
			return api.Claim{}, errTaken
		}
		return w.claim(more, w.taken, target), nil
	})
}

// retune recomputes the automatic max_parallel_tokens for a limit. The engine was
// loaded for as many sequences as were planned, so it never passes those.
func (w *Worker) retune(limit budget.Bytes) {
	if w.opts.MaxParallelTokens > 0 {
		return
	}
	n, available := w.autoParallelTokens(limit)
	n = min(n, w.pool.sequences)
	if before, _ := w.slots.counts(); n != before {
		w.slots.set(n, w.early(n))
		w.log.Info("max_parallel_tokens follows what is available", zap.Int("max_parallel_tokens", n),
			zap.Int("before", before), zap.Int64("available_bytes", int64(available)), zap.Int64("token_bytes", int64(w.perToken)))
	}
}
