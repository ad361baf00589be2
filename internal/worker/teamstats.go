package worker

import (
	"strings"
	"time"

	"tempo/api"
	"tempo/internal/budget"
)

// Stats is [Worker.Stats] of the only model. Of several it is the sum: the memory of
// those that are loaded, with this process as overhead, and the counts of all; of bounds
// on the width the smallest. See [Team.EachStats].
func (t *Team) Stats() api.MemoryStats {
	if t.only != nil {
		return t.only.Stats()
	}
	sum := api.MemoryStats{Worker: t.opts.Name, Device: t.opts.Device.ID, Model: strings.Join(t.Models(), ", "), Time: time.Now()}
	level := budget.OK
	for _, m := range t.members {
		s, loaded := m.stats()
		sum.GaveWay += s.GaveWay
		sum.Tokens += s.Tokens
		sum.Narrowed += s.Narrowed
		if loaded == nil {
			continue
		}
		sum.Memory, sum.Estimate = plus(sum.Memory, s.Memory), plus(sum.Estimate, s.Estimate)
		sum.Host, level = s.Host, max(level, loaded.ledger.Pressure())
		sum.Running += s.Running
		sum.Waiting += s.Waiting
		sum.MaxParallelTokens += s.MaxParallelTokens
		sum.MaxCacheTokens += s.MaxCacheTokens
		if n := s.WidthBound; n > 0 && (sum.WidthBound == 0 || n < sum.WidthBound) {
			sum.WidthBound = n
		}
	}
	sum.Pressure = level.String()
	sum.Limit, sum.Estimate.Limit = int64(t.opts.Limit), int64(t.opts.Limit)
	sum.Overhead += t.common.own.Load()
	return sum
}

// plus adds what is held; Limit is the caller's.
func plus(a, b api.Memory) api.Memory {
	return api.Memory{
		Weights: a.Weights + b.Weights, KVCache: a.KVCache + b.KVCache, ParallelBatch: a.ParallelBatch + b.ParallelBatch,
		Overhead: a.Overhead + b.Overhead, Peak: a.Peak + b.Peak, Reserved: a.Reserved + b.Reserved,
	}
}

// EachStats is [Worker.Stats] of each model that is loaded, and of each that was, as it
// was then.
func (t *Team) EachStats() []api.MemoryStats {
	if t.only != nil {
		return []api.MemoryStats{t.only.Stats()}
	}
	var all []api.MemoryStats
	for _, m := range t.members {
		if s, _ := m.stats(); s.Worker != "" {
			all = append(all, s)
		}
	}
	return all
}

// Parallel is [Worker.Parallel] of the only model; of several that of the first, as it
// was planned at the start.
func (t *Team) Parallel() Parallel {
	if t.only != nil {
		return t.only.Parallel()
	}
	return t.members[0].preview.Parallel
}

// OwnShare is what this process itself may hold of the limit, in bytes; see
// [Worker.OwnShare].
func (t *Team) OwnShare() budget.Bytes {
	if t.only != nil {
		return t.only.OwnShare()
	}
	return t.booked
}

// HeldBeside is what the other models are known to hold, in bytes, as far as a driver
// that tells nothing of single processes is concerned.
func (t *Team) HeldBeside(model string) budget.Bytes {
	if t.common == nil {
		return 0
	}
	return t.common.heldBeside(model)
}
