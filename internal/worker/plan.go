package worker

import (
	"context"
	"fmt"
	"os"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

const (
	// usualJob is how many KV tokens a job is taken to need when the pool is sized:
	// prompt and output of nearly all jobs in most files. As many jobs as can run each
	// get a stream of that size, and room in a stream that no job uses costs no time.
	usualJob = 2048
	// smallestJob is what must fit at least for a worker to be of any use.
	smallestJob = 256
	// perThread is how many sequences a CPU thread is given at most where nobody
	// said how many: more are slower in a shared pool (320 tokens/s at 16, 242 at
	// 48 with SmolLM2-135M on 2 threads).
	perThread = 8
	// fewTokens is how many tokens of a step leave no room for sets to speak of.
	fewTokens = 2
	// processGrowth is what the worker's and the engine's own process may take
	// beyond what they hold at the start: jobs and results on their way, the Go
	// heap between two collections, llama.cpp's scratch memory.
	processGrowth = 64 * budget.MiB
	// firstCUDA is what a CUDA process is taken to hold until it is measured: the
	// context, cuBLAS' workspaces and the loaded kernels.
	firstCUDA = 600 * budget.MiB
)

// pool is what the engine's memory depends on: a line through two dry runs with
// the same sequences. It sizes pools while the engine runs and cannot be asked.
type pool struct {
	sequences int
	smallest  int              // cells that the smallest useful pool has
	floor     budget.Footprint // held with smallest cells
	perCell   budget.Bytes     // what a cell takes in the KV pool; leases count in it
	cellCost  budget.Bytes     // what one more cell costs in all
}

// total is what is held with so many cells, 0 = with the model unloaded.
func (p pool) total(cells int) budget.Bytes {
	if cells == 0 {
		return p.floor.Overhead
	}
	return p.floor.Total().Add(p.cellCost.Mul(int64(max(cells-p.smallest, 0))))
}

// cellStep is the multiple to which llama.cpp pads a pool.
const cellStep = 256

// cells is the largest pool within n bytes in all, 0 if the smallest is over n.
func (p pool) cells(n budget.Bytes) int {
	spare := n.Sub(p.floor.Total())
	if spare < 0 {
		return 0
	}
	return p.smallest + int(spare/p.cellCost)/cellStep*cellStep
}

// planPool finds the largest pool within limit that jobs can use.
func (w *Worker) planPool(ctx context.Context, limit budget.Bytes) error {
	fixed, err := w.fixed()
	if err != nil {
		return err
	}
	dryRun := w.dryRun(ctx)
	parallel, err := w.parallelTokens(limit, fixed, dryRun)
	if err != nil {
		return err
	}
	w.wanted = w.opts.MaxCacheTokens
	if w.wanted == 0 {
		w.wanted = max(w.facts.Context, parallel*min(usualJob, w.facts.Context))
	}
	smallest := min(smallestJob, w.facts.Context)
	cells, err := w.within(limit, w.wanted, dryRun)
	if err != nil {
		return err
	}
	w.plan, err = budget.PlanPool(budget.PlanRequest{
		Limit: limit, Act: w.opts.Thresholds.Act, Fixed: fixed,
		Sequences: parallel, Cells: cells, MinContext: smallest,
	}, dryRun)
	if err != nil {
		return fmt.Errorf("plan the memory of %s: %w", w.opts.Model, err)
	}
	w.log.Info("memory is planned", zap.String("plan", w.plan.Reason))
	if n, ample := w.plan.Sequences, w.ampleTokens(); n <= fewTokens && n < ample {
		w.log.Warn("memory is so short that a step has hardly any tokens: sets of parallel generation have no more, and no more jobs run at once",
			zap.Int("max_parallel_tokens", n), zap.Int("with_memory_for_all", ample))
	}
	return w.measureLine(fixed, dryRun)
}

// dryRun asks the engine for sizes, and for each only once.
func (w *Worker) dryRun(ctx context.Context) budget.Fit {
	known := map[infer.Shape]budget.Footprint{}
	return func(sequences, cells int) (budget.Footprint, error) {
		shape := infer.Shape{Sequences: sequences, Cells: cells}
		if f, ok := known[shape]; ok {
			return f, nil
		}
		f, err := w.engine.DryRun(ctx, shape)
		if err != nil {
			return f, err
		}
		f.KVCache = wholeCells(f.KVCache, cells)
		if w.opts.Device.Kind == budget.CPU {
			f.Overhead = f.Overhead.Add(cellRecord.Mul(int64(cells)))
		}
		known[shape] = f
		return f, nil
	}
}

// cellRecord is what llama.cpp keeps of each cell beside the pool, in a dry run too.
const cellRecord budget.Bytes = 64

// within is the wanted number of cells, or what a limit could ever hold, if that is
// less: even a dry run takes memory for each cell that it is asked for.
func (w *Worker) within(limit budget.Bytes, wanted int, dryRun budget.Fit) (int, error) {
	one, err := dryRun(1, cellStep)
	if err != nil {
		return 0, fmt.Errorf("size a small pool: %w", err)
	}
	two, err := dryRun(1, 2*cellStep)
	if err != nil {
		return 0, fmt.Errorf("size a small pool: %w", err)
	}
	perCell := max(two.KVCache.Sub(one.KVCache)/cellStep, 0).Add(cellRecord)
	most := max(int(max(limit, 0)/perCell), min(smallestJob, w.facts.Context))
	if most < wanted {
		w.log.Debug("more cache tokens are wanted than the limit could hold", zap.Int("wanted", wanted), zap.Int("at_most", most))
	}
	return min(wanted, most), nil
}

// measureLine sizes the smallest pool, and with it the cost of a cell.
func (w *Worker) measureLine(fixed budget.Footprint, dryRun budget.Fit) error {
	p := w.plan
	smallest := (min(smallestJob, w.facts.Context) + cellStep - 1) / cellStep * cellStep
	floor, err := dryRun(p.Sequences, smallest)
	if err != nil {
		return fmt.Errorf("size the smallest pool: %w", err)
	}
	line := pool{sequences: p.Sequences, smallest: smallest, floor: floor.Plus(fixed)}
	line.perCell = p.Footprint.KVCache / budget.Bytes(p.Cells)
	line.cellCost = line.perCell
	if more := budget.Bytes(p.Cells - smallest); more > 0 {
		line.cellCost = max(p.Footprint.Total().Sub(line.floor.Total()).Add(more-1)/more, 1)
	}
	w.pool = line
	return nil
}

// fixed is what the processes hold before the engine loads anything.
func (w *Worker) fixed() (budget.Footprint, error) {
	if w.opts.Device.Kind != budget.CPU {
		return budget.Footprint{Overhead: firstCUDA}, nil
	}
	if w.common != nil { // it is booked for all models at once
		return budget.Footprint{Overhead: w.facts.Process.Add(processGrowth)}, nil
	}
	self, err := w.opts.Measure(os.Getpid())
	if err != nil {
		return budget.Footprint{}, fmt.Errorf("measure this process: %w", err)
	}
	w.own = self.Add(processGrowth).Add(w.opts.ExtraOverhead)
	return budget.Footprint{Overhead: w.own.Add(w.facts.Process)}, nil
}

// OwnShare is what this process itself may hold of the limit, in bytes: the part of
// the overhead that was booked for it. It is 0 on a GPU, where the process takes
// nothing. Start must have returned.
func (w *Worker) OwnShare() budget.Bytes { return w.own }

// wholeCells rounds the size of a pool up to as many bytes for each of its cells.
// Engines tell the size rounded, and the leases of a pool in which a cell seemed a
// little smaller than it is would add up to more cells than there are.
func wholeCells(pool budget.Bytes, cells int) budget.Bytes {
	n := budget.Bytes(cells)
	return max(pool.Add(n-1)/n, 1).Mul(int64(cells))
}

// parallelTokens is how many tokens a decode step may generate: what the user
// said, or TEMPO's rule over what is left of the limit once the model is in. Each
// has a token in every step, so that a step bounds them too.
func (w *Worker) parallelTokens(limit budget.Bytes, fixed budget.Footprint, dryRun budget.Fit) (int, error) {
	if n := w.opts.MaxParallelTokens; n > 0 {
		return min(n, w.opts.Spec.Batch), nil
	}
	smallest := min(smallestJob, w.facts.Context)
	one, err := dryRun(1, smallest)
	if err != nil {
		return 0, fmt.Errorf("size one job: %w", err)
	}
	two, err := dryRun(2, 2*smallest)
	if err != nil {
		return 0, fmt.Errorf("size two jobs: %w", err)
	}
	w.oneJob, w.perToken = one.Plus(fixed).Total(), two.Total().Sub(one.Total())
	n, available := w.autoParallelTokens(limit)
	w.log.Info("max_parallel_tokens is automatic", zap.Int("max_parallel_tokens", n),
		zap.Int64("available_bytes", int64(available)), zap.Int64("token_bytes", int64(w.perToken)))
	return n, nil
}

// ampleTokens is how many tokens a decode step might generate, were there memory for as many.
func (w *Worker) ampleTokens() int {
	n := w.opts.MaxParallelTokens
	if n == 0 {
		n = w.withinCores(budget.AutoParallelTokens(0, 0))
	}
	return min(n, w.opts.Spec.Batch)
}

// withinCores is n, or how many tokens a step may have on so many cores, if that is less.
func (w *Worker) withinCores(n int) int {
	if w.opts.Device.Kind == budget.CPU {
		return min(n, perThread*w.opts.Spec.Threads)
	}
	return n
}

// autoParallelTokens is TEMPO's rule under a limit, and what it took for available.
func (w *Worker) autoParallelTokens(limit budget.Bytes) (n int, available budget.Bytes) {
	available = max(limit.Scale(w.opts.Thresholds.Act).Sub(w.oneJob), 0)
	n = w.withinCores(budget.AutoParallelTokens(available, w.perToken))
	return min(n, w.opts.Spec.Batch), available
}
