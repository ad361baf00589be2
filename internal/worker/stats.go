package worker

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
)

// publishStats measures and publishes the device's memory every StatsInterval
// until ctx is done.
func (w *Worker) publishStats(ctx context.Context) error {
	tick := time.NewTicker(w.opts.StatsInterval)
	defer tick.Stop()
	level := budget.OK
	for {
		w.remeasure()
		level = w.warn(level)
		if err := w.queue.PublishStats(ctx, w.Stats()); err != nil && ctx.Err() == nil {
			w.log.Warn("memory statistics could not be published", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// remeasure puts the monitor's newest reading into the ledger.
func (w *Worker) remeasure() {
	reading, err := w.monitor.Last()
	if err != nil || reading.Time.IsZero() {
		return // the monitor has said so in the log
	}
	m := w.ledger.Snapshot().Measured
	w.measured(m, reading.Total)
}

// warn says when the pressure on the device has changed.
func (w *Worker) warn(before budget.Level) budget.Level {
	now := w.ledger.Pressure()
	if now == before {
		return now
	}
	m := w.memory()
	fields := []zap.Field{
		zap.Stringer("level", now), zap.Int64("total_bytes", m.Total()), zap.Int64("limit_bytes", m.Limit),
		zap.Float64("share", float64(m.Total())/float64(m.Limit)),
	}
	if now > before {
		w.log.Warn("memory nears its limit", fields...)
	} else {
		w.log.Info("memory is back below its thresholds", fields...)
	}
	return now
}

// memory is the device's memory now.
func (w *Worker) memory() api.Memory {
	s := w.ledger.Snapshot()
	reading, _ := w.monitor.Last() // an old reading is better than none
	m := memoryOf(s.Measured, s.Limit)
	m.Peak = int64(reading.Peak)
	m.Reserved = int64(s.Reserved)
	return m
}

func memoryOf(f budget.Footprint, limit budget.Bytes) api.Memory {
	return api.Memory{
		Weights: int64(f.Weights), KVCache: int64(f.KVCache), ParallelBatch: int64(f.ParallelBatch),
		Overhead: int64(f.Overhead), Limit: int64(limit),
	}
}

// Stats is the worker's memory now beside what was estimated before the load.
func (w *Worker) Stats() api.MemoryStats {
	estimate := memoryOf(w.plan.Footprint, w.opts.Limit)
	estimate.Peak = estimate.Total()
	return api.MemoryStats{
		Worker: w.opts.Name, Device: w.opts.Device.ID, Model: w.opts.Model, Time: time.Now(),
		Memory: w.memory(), Estimate: estimate,
		Running: w.count(), Waiting: w.ledger.Snapshot().Waiting, Tokens: w.tokens.Load(),
		MaxParallelTokens: w.plan.Sequences, MaxCacheTokens: w.plan.Cells,
	}
}
