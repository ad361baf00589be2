package worker

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

const (
	// usualJob is how many KV tokens a job is taken to need when the pool is
	// sized: prompt and output of most jobs in most files.
	usualJob = 1024
	// smallestJob is what must fit at least for a worker to be of any use.
	smallestJob = 256
	// perThread is how many sequences a CPU thread is given at most where nobody
	// said how many: more are slower in a shared pool (320 tokens/s at 16, 242 at
	// 48 with SmolLM2-135M on 2 threads).
	perThread = 8
	// processGrowth is what the worker's and the engine's own process may take
	// beyond what they hold at the start: jobs and results on their way, the Go
	// heap between two collections, llama.cpp's scratch memory.
	processGrowth = 64 * budget.MiB
)

// Start opens the model, plans its memory, books it, loads, and compares the
// plan with what was really allocated. It returns *budget.TooLargeError if the
// limit is too small, before anything is allocated.
func (w *Worker) Start(ctx context.Context) error {
	w.started = time.Now()
	facts, err := w.engine.Open(ctx, w.opts.Spec)
	if err != nil {
		return err
	}
	w.facts = facts
	if w.ledger, err = budget.NewLedger(w.opts.Device.ID, w.opts.Limit); err != nil {
		return err
	}
	if err := w.ledger.SetThresholds(w.opts.Thresholds); err != nil {
		return err
	}
	fixed, err := w.fixed()
	if err != nil {
		return err
	}
	if w.plan, err = w.planPool(ctx, fixed); err != nil {
		return err
	}
	if err := w.book(w.plan.Footprint); err != nil {
		return err
	}
	shape := infer.Shape{Sequences: w.plan.Sequences, Cells: w.plan.Cells}
	allocated, err := w.load(ctx, shape)
	if err != nil {
		return err
	}
	w.facts.Context = min(w.facts.Context, w.plan.Cells)
	w.perCell = w.plan.Footprint.KVCache / budget.Bytes(w.plan.Cells)
	w.ticket.Store(int64(min(firstTicket, w.plan.Cells)))
	w.slots = make(chan struct{}, w.plan.Sequences)
	return w.compare(allocated)
}

// fixed is what the processes hold before the engine loads anything.
func (w *Worker) fixed() (budget.Footprint, error) {
	if w.opts.Device.Kind != budget.CPU {
		// The CUDA context, cuBLAS' workspaces and the loaded kernels.
		return budget.Footprint{Overhead: 600 * budget.MiB}, nil
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

// loadSample is the time between two measurements while the model is loaded.
const loadSample = 100 * time.Millisecond

// load loads the model, and measures memory meanwhile: the peak may be there.
func (w *Worker) load(ctx context.Context, shape infer.Shape) (budget.Footprint, error) {
	loading, loaded := context.WithCancel(ctx)
	var measuring sync.WaitGroup
	measuring.Go(func() {
		tick := time.NewTicker(loadSample)
		defer tick.Stop()
		for {
			_, _ = w.monitor.Sample() // compare says if it cannot be measured
			select {
			case <-loading.Done():
				return
			case <-tick.C:
			}
		}
	})
	defer measuring.Wait()
	defer loaded()
	return w.engine.Load(ctx, shape)
}

// planPool finds the largest pool within the limit that jobs can use.
func (w *Worker) planPool(ctx context.Context, fixed budget.Footprint) (budget.Plan, error) {
	dryRun := func(sequences, cells int) (budget.Footprint, error) {
		f, err := w.engine.DryRun(ctx, infer.Shape{Sequences: sequences, Cells: cells})
		f.KVCache = wholeCells(f.KVCache, cells)
		return f, err
	}
	parallel, err := w.parallelTokens(fixed, dryRun)
	if err != nil {
		return budget.Plan{}, err
	}
	parallel = min(parallel, w.opts.Spec.Batch) // each has a token in every step
	cells := w.opts.MaxCacheTokens
	if cells == 0 {
		cells = max(w.facts.Context, parallel*min(usualJob, w.facts.Context))
	}
	plan, err := budget.PlanPool(budget.PlanRequest{
		Limit: w.opts.Limit, Act: w.opts.Thresholds.Act, Fixed: fixed,
		Sequences: parallel, Cells: cells, MinContext: min(smallestJob, w.facts.Context),
	}, dryRun)
	if err != nil {
		return plan, fmt.Errorf("plan the memory of %s: %w", w.opts.Model, err)
	}
	w.log.Info("memory is planned", zap.String("plan", plan.Reason))
	return plan, nil
}

// wholeCells rounds the size of a pool up to as many bytes for each of its cells.
// Engines tell the size rounded, and the leases of a pool in which a cell seemed a
// little smaller than it is would add up to more cells than there are.
func wholeCells(pool budget.Bytes, cells int) budget.Bytes {
	n := budget.Bytes(cells)
	return max(pool.Add(n-1)/n, 1).Mul(int64(cells))
}

// parallelTokens is how many tokens a decode step may generate: what the user
// said, or TEMPO's rule over what is left of the limit once the model is in.
func (w *Worker) parallelTokens(fixed budget.Footprint, dryRun budget.Fit) (int, error) {
	if n := w.opts.MaxParallelTokens; n > 0 {
		return n, nil
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
	available := w.opts.Limit.Scale(w.opts.Thresholds.Act).Sub(one.Plus(fixed).Total())
	perToken := two.Total().Sub(one.Total())
	n := budget.AutoParallelTokens(available, perToken)
	if w.opts.Device.Kind == budget.CPU {
		n = min(n, perThread*w.opts.Spec.Threads)
	}
	w.log.Info("max_parallel_tokens is automatic", zap.Int("max_parallel_tokens", n),
		zap.Int64("available_bytes", int64(available)), zap.Int64("token_bytes", int64(perToken)))
	return n, nil
}

func (w *Worker) book(f budget.Footprint) error {
	for line, n := range map[budget.Line]budget.Bytes{
		budget.Weights: f.Weights, budget.KVCache: f.KVCache, budget.ParallelBatch: f.ParallelBatch, budget.Overhead: f.Overhead,
	} {
		if err := w.ledger.Book(line, n); err != nil {
			return fmt.Errorf("book the memory of %s: %w", w.opts.Model, err)
		}
	}
	return nil
}

// compare puts what was really allocated into the ledger beside the plan, which
// charges the larger of both, and logs them. It returns *budget.TooLargeError if
// that leaves no room for jobs.
func (w *Worker) compare(allocated budget.Footprint) error {
	reading, err := w.monitor.Sample()
	if err != nil { // some drivers do not tell it
		w.log.Warn("the device's memory cannot be measured, the estimate stands", zap.Error(err))
		reading.Total = w.plan.Footprint.Total()
	}
	w.measured(allocated, reading.Total)
	w.log.Info("the model is loaded",
		zap.Stringer("estimate", w.plan.Footprint), zap.Stringer("measured", w.ledger.Snapshot().Measured),
		zap.Int64("total_bytes", int64(reading.Total)), zap.Int64("limit_bytes", int64(w.opts.Limit)),
		zap.Int("max_cache_tokens", w.plan.Cells), zap.Int("context_tokens", w.facts.Context))
	if s := w.ledger.Snapshot(); s.Room < w.perCell.Mul(w.ticket.Load()) {
		return &budget.TooLargeError{
			What: "what was measured after the load on " + w.opts.Device.ID, Need: s.Charged().Total(), Capacity: s.Limit,
			Hints: []string{"raise --max-memory-gb, or lower --max-cache-tokens: no room is left for jobs"},
		}
	}
	return nil
}

// measured puts a measurement into the ledger: the engine's buffers as
// llama.cpp allocated them, and as overhead all that the processes hold beyond.
func (w *Worker) measured(allocated budget.Footprint, total budget.Bytes) {
	allocated.KVCache = wholeCells(allocated.KVCache, w.plan.Cells)
	allocated.Overhead = max(total.Sub(allocated.Weights).Sub(allocated.KVCache).Sub(allocated.ParallelBatch), 0)
	w.ledger.SetMeasured(budget.Weights, allocated.Weights)
	w.ledger.SetMeasured(budget.KVCache, allocated.KVCache)
	w.ledger.SetMeasured(budget.ParallelBatch, allocated.ParallelBatch)
	w.ledger.SetMeasured(budget.Overhead, allocated.Overhead)
}
