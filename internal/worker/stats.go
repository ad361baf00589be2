package worker

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
)

// publishStats publishes the device's memory every StatsInterval until ctx is done.
func (w *Worker) publishStats(ctx context.Context) error {
	publish := w.queue.PublishStats
	if w.common != nil {
		publish = w.queue.PublishModelStats
	}
	tick := time.NewTicker(w.opts.StatsInterval)
	defer tick.Stop()
	failing := false
	for {
		err := publish(ctx, w.Stats())
		if err != nil && !failing && ctx.Err() == nil {
			w.log.Warn("memory statistics could not be published; it is tried again", zap.Error(err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// logMemory logs the device's memory at a stage of the worker's life. What is not measured yet
// counts as held as it is booked.
func (w *Worker) logMemory(stage string) {
	s := w.ledger.Snapshot()
	w.log.Info("memory", zap.String("stage", stage),
		zap.Int64("held_bytes", int64(s.Held)), zap.Int64("limit_bytes", int64(s.Limit)), zap.Int64("peak_bytes", w.memory().Peak),
		zap.Int64("reserved_bytes", int64(s.Reserved)), zap.Stringer("pressure", s.Pressure))
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
	s := w.ledger.Snapshot()
	estimate := memoryOf(w.plan.Footprint, s.Limit)
	estimate.Peak = estimate.Total()
	parallel, _ := w.slots.counts()
	host := w.host.Snapshot()
	return api.MemoryStats{
		Worker: w.opts.Name, Device: w.opts.Device.ID, Model: w.opts.Model, Time: time.Now(),
		Memory: w.memory(), Estimate: estimate,
		Pressure: w.ledger.Pressure().String(),
		Host:     api.HostMemory{Limit: int64(host.Limit), Reserved: int64(host.Reserved), Peak: int64(host.PeakReserved)},
		Running:  w.count(), Waiting: s.Waiting, GaveWay: w.gaveWay.Load(), Tokens: w.tokens.Load(),
		MaxParallelTokens: parallel, MaxCacheTokens: int(w.cells.Load()), Layers: w.layers(),
		WidthBound: w.sets.bound(), Narrowed: w.sets.steps.Load(),
	}
}

// layers is the memory of each layer, if it was asked for.
func (w *Worker) layers() []api.LayerMemory {
	if w.opts.Layers == nil {
		return nil
	}
	return w.opts.Layers(w.pool.sequences, int(w.cells.Load()))
}
