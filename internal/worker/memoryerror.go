package worker

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

// MemoryError says that a job's memory can never be had on this worker: what it
// needs, what there is, and what would help in this case.
type MemoryError struct {
	Device          string
	Tokens          int // the job's, in the KV cache
	AvailableTokens int // of the whole pool
	Need, Available budget.Bytes
	Remedies        []string // the best first
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("no room for the job's %d tokens in the KV cache on %s: %v needed, %v (%d tokens) can be had",
		e.Tokens, e.Device, e.Need, e.Available, e.AvailableTokens)
}

// Hint lists the remedies.
func (e *MemoryError) Hint() string { return strings.Join(e.Remedies, "; or ") }

func (e *MemoryError) wire() *api.MemoryError {
	return &api.MemoryError{
		NeedBytes: int64(e.Need), AvailableBytes: int64(e.Available),
		NeedTokens: e.Tokens, AvailableTokens: e.AvailableTokens, Remedies: e.Remedies,
	}
}

// shrunkError says that the pool is too small for a job at present: others have
// taken memory of the device. The job goes back to the queue.
type shrunkError struct{ tokens, now, planned int }

func (e *shrunkError) Error() string {
	return fmt.Sprintf("the job needs %d tokens in the KV cache, which has shrunk from %d to %d for want of memory", e.tokens, e.planned, e.now)
}

// noMemory turns an error that says that memory for a job can never be had into
// one that tells numbers and remedies, or that the pool was large enough before it
// shrank. Other errors stay as they are.
func (w *Worker) noMemory(err error) error {
	tokens, most := 0, math.MaxInt
	var pool *infer.PoolError
	var large *budget.TooLargeError
	switch {
	case errors.As(err, &pool):
		tokens, most = pool.Need, pool.Have // where attention is read it has fewer than there are
	case errors.As(err, &large):
		tokens = int(large.Need / w.pool.perCell)
	default:
		return err
	}
	now := int(w.cells.Load())
	if room := int(w.ledger.Snapshot().Room / w.pool.perCell); room < now { // more is held beside it than was planned
		now = max(room, 0)
	}
	if tokens <= w.plan.Cells && now < w.plan.Cells {
		return &shrunkError{tokens: tokens, now: now, planned: w.plan.Cells}
	}
	cells := tokens
	if most < now { // a larger pool has more of the one that the job can have
		cells, now = tokens*now/max(most, 1), most
	}
	return &MemoryError{
		Device: w.opts.Device.ID, Tokens: tokens, AvailableTokens: now,
		Need: w.pool.perCell.Mul(int64(tokens)), Available: w.pool.perCell.Mul(int64(now)),
		Remedies: w.remedies(tokens, now, cells),
	}
}

// remedies are what would make room for a job of so many tokens, which needs a pool of so many
// cells.
func (w *Worker) remedies(tokens, now, cells int) []string {
	cells = (cells + cellStep - 1) / cellStep * cellStep
	need := w.pool.total(cells).Scale(1 / w.opts.Thresholds.Act)
	var list []string
	switch {
	case w.opts.MaxCacheTokens > 0 && need <= w.ledger.Snapshot().Limit:
		list = append(list, fmt.Sprintf("raise --max-cache-tokens to at least %d", cells))
	case w.opts.Device.Total == 0 || need.Add(w.opts.Reserve) <= w.opts.Device.Total:
		list = append(list, fmt.Sprintf("raise --max-memory-gb to at least %.2f and leave that much free on %s", math.Ceil(need.GiB()*100)/100, w.opts.Device.ID))
	default:
		list = append(list, fmt.Sprintf("use a device with at least %v (this one has %v)", need.Add(w.opts.Reserve), w.opts.Device.Total))
	}
	whole := cells < tokens+cellStep // else attention is read, which needs values that are not quantised
	if k, v := w.opts.Spec.CacheTypeK, w.opts.Spec.CacheTypeV; whole && isF16(k) && isF16(v) && (w.opts.MaxCacheTokens == 0 || w.opts.MaxCacheTokens >= tokens) {
		const share = 34.0 / 64 // a block of 32 values in q8_0 takes 34 bytes, in f16 64
		if more := int(float64(now) / share); more >= tokens {
			list = append(list, fmt.Sprintf("halve the KV cache with --cache-type-k q8_0 --cache-type-v q8_0: about %d tokens", more))
		}
	}
	if now > 1 {
		list = append(list, fmt.Sprintf("shorten the prompt to at most %d tokens", now-1))
	}
	return list
}

func isF16(cacheType string) bool { return cacheType == "" || cacheType == "f16" }
