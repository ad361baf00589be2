package worker

import (
	"context"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/queue"
)

// firstTicket is the lease in KV tokens with which the first job is fetched,
// before any job has told what jobs need here.
const firstTicket = 256

// takeJobs leases memory, fetches the jobs that fit, and starts them, until ctx
// is done. Jobs run with work, and are counted by jobs.
func (w *Worker) takeJobs(ctx, work context.Context, jobs *sync.WaitGroup, stop func()) error {
	for {
		tickets, err := w.reserve(ctx)
		if err != nil || len(tickets) == 0 {
			return err
		}
		deliveries, err := w.fetch(ctx, len(tickets))
		for _, unused := range tickets[len(deliveries):] {
			unused.Release()
			<-w.slots
		}
		for i, d := range deliveries {
			j := w.admit(work, d, tickets[i])
			jobs.Go(func() {
				if err := w.process(work, j); err != nil {
					stop()
				}
			})
		}
		if err != nil {
			return err
		}
	}
}

// reserve waits for a slot in the engine and memory for one job, and takes as
// many more as there are at this moment. It returns none when ctx is done.
func (w *Worker) reserve(ctx context.Context) ([]*budget.Lease, error) {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil
	}
	size := w.perCell.Mul(w.ticket.Load())
	first, err := w.ledger.Acquire(ctx, size, budget.Normal)
	if err != nil {
		<-w.slots
		if ctx.Err() != nil {
			return nil, nil
		}
		return nil, fmt.Errorf("reserve memory for a job: %w", err)
	}
	tickets := []*budget.Lease{first}
	for {
		select {
		case w.slots <- struct{}{}:
		default:
			return tickets, nil
		}
		more, ok := w.ledger.TryAcquire(size)
		if !ok {
			<-w.slots
			return tickets, nil
		}
		tickets = append(tickets, more)
	}
}

// fetch gets up to n jobs. It returns none when it was told to give its tickets
// back (yield), or when ctx is done.
func (w *Worker) fetch(ctx context.Context, n int) ([]*queue.Delivery, error) {
	idle, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.idle = cancel
	w.mu.Unlock()
	deliveries, err := w.taker.Fetch(idle, n)
	w.mu.Lock()
	w.idle = nil
	w.mu.Unlock()
	if err != nil && idle.Err() == nil {
		return deliveries, fmt.Errorf("fetch jobs: %w", err)
	}
	return deliveries, nil
}

// yield has an idle fetch give its tickets back. It reports whether there was one.
func (w *Worker) yield() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle == nil {
		return false
	}
	w.idle()
	w.idle = nil
	return true
}

// learn moves the size of tickets towards what jobs turned out to need.
func (w *Worker) learn(tokens int) {
	old := w.ticket.Load()
	next := min(max(old+(int64(tokens)-old)/8, 64), int64(w.plan.Cells))
	w.ticket.Store(next)
	if old != next {
		w.log.Debug("the size of tickets has changed", zap.Int64("tokens", next))
	}
}
