package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"tempo/internal/budget"
)

// firstTicket is the lease in KV tokens with which the first job is fetched,
// before any job has told what jobs need here.
const firstTicket = 256

// smallestTicket is the least that is leased for a job that is not here.
const smallestTicket = 64

// takeJobs leases memory, fetches the jobs that fit, and starts them, until ctx
// is done. Jobs run with work, and are counted by jobs.
func (w *Worker) takeJobs(ctx, work context.Context, jobs *sync.WaitGroup, stop func()) error {
	for {
		t := w.beginTurn(ctx)
		if t == nil {
			return nil
		}
		admitted, err := w.takeTurn(t.ctx, work)
		w.endTurn(t)
		for _, j := range admitted {
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

// takeTurn fetches as many jobs as there are slots and memory for, and admits
// them. It gives up what it has leased when ctx is done.
func (w *Worker) takeTurn(ctx, work context.Context) ([]*job, error) {
	tickets, err := w.reserve(ctx)
	if err != nil || len(tickets) == 0 {
		return nil, err
	}
	deliveries, err := w.taker.Fetch(ctx, len(tickets))
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("fetch jobs: %w", err)
	} else {
		err = nil
	}
	var admitted []*job
	for i, d := range deliveries {
		admitted = append(admitted, w.admit(work, d, tickets[i]))
	}
	for _, unused := range tickets[len(deliveries):] {
		unused.release()
		w.slots.leave()
	}
	queued := 0
	if n := len(deliveries); n > 0 {
		queued = deliveries[n-1].Queued
	}
	w.slots.queue(queued, w.crowded())
	return admitted, err
}

// crowded reports whether the most jobs that can be here would not easily have room in the KV
// cache. More of them ahead of their time would only take it from each other.
func (w *Worker) crowded() bool {
	most, _ := w.slots.counts()
	return w.pool.perCell.Mul(int64(most+mostAhead(most))*w.ticket.Load()) > w.ledger.Snapshot().Room.Scale(0.75)
}

// ticket is memory for a job that is not here yet.
type ticket struct {
	kv      *budget.Lease // in the device's KV pool
	buffers *budget.Lease // of host memory, for the request and the result
}

func (t ticket) release() {
	t.kv.Release()
	t.buffers.Release()
}

// reserve waits for a slot in the engine and memory for one job, on the device and
// the host at once, and takes as many more as there are at this moment. It returns
// none when ctx is done, or when the pool has shrunk meanwhile.
func (w *Worker) reserve(ctx context.Context) ([]ticket, error) {
	if err := w.slots.enter(ctx); err != nil {
		return nil, nil //nolint:nilerr // it is to end
	}
	size := w.ticketSize()
	leases, err := w.acquire(ctx, size, budget.Normal, w.request(size)...)
	if err != nil {
		w.slots.leave()
		var large *budget.TooLargeError
		if ctx.Err() != nil || errors.Is(err, errInVain) || errors.As(err, &large) {
			return nil, nil // the next turn asks for less
		}
		return nil, fmt.Errorf("reserve memory for a job: %w", err)
	}
	tickets := []ticket{{leases[0], leases[1]}}
	for w.slots.tryEnter() {
		more, ok := w.group.TryAcquire(w.request(size)...)
		if !ok {
			w.slots.leave()
			break
		}
		tickets = append(tickets, ticket{more[0], more[1]})
	}
	return tickets, nil
}

// request is what a ticket asks for.
func (w *Worker) request(kv budget.Bytes) []budget.Request {
	return []budget.Request{{Ledger: w.ledger, Bytes: kv}, {Ledger: w.host, Bytes: ticketBuffers}}
}

// turn is one round of the intake. Only in a turn is memory leased for jobs that
// are not here yet.
type turn struct {
	ctx  context.Context //nolint:containedctx // ends the turn alone
	end  context.CancelFunc
	over chan struct{} // closed when its leases are released, or belong to jobs
}

// beginTurn waits while the intake is held. It returns nil when ctx is done.
func (w *Worker) beginTurn(ctx context.Context) *turn {
	for {
		w.mu.Lock()
		if ctx.Err() == nil && w.holders == 0 {
			w.turn = &turn{over: make(chan struct{})}
			w.turn.ctx, w.turn.end = context.WithCancel(ctx)
			defer w.mu.Unlock()
			return w.turn
		}
		free := w.unheld
		w.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-free:
		case <-ctx.Done():
		}
	}
}

func (w *Worker) endTurn(t *turn) {
	t.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn = nil
	close(t.over)
}

// holdIntake has the intake give up what it has leased for jobs to come, and
// lease nothing until release is called: a job that is here already needs it, and
// an idle fetch could wait for ever. It returns when that is so; a fetch on its way
// takes up to a quarter of a second to end.
func (w *Worker) holdIntake() (release func()) {
	w.mu.Lock()
	if w.holders++; w.holders == 1 {
		w.unheld = make(chan struct{})
	}
	t := w.turn
	w.mu.Unlock()
	if t != nil {
		t.end()
		<-t.over
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.holders--; w.holders == 0 {
			close(w.unheld)
		}
	}
}

// ticketSize is what to lease for a job that is not here: what jobs turned out to
// need, or what there is room for, if that is less.
func (w *Worker) ticketSize() budget.Bytes {
	room := int64(w.ledger.Snapshot().Room / w.pool.perCell)
	return w.pool.perCell.Mul(min(w.ticket.Load(), max(room, smallestTicket)))
}

// learn moves the size of tickets towards what jobs turned out to need.
func (w *Worker) learn(tokens int) {
	old := w.ticket.Load()
	next := min(max(old+(int64(tokens)-old)/8, smallestTicket), max(w.cells.Load(), smallestTicket))
	w.ticket.Store(next)
	if old != next {
		w.log.Debug("the size of tickets has changed", zap.Int64("tokens", next))
	}
}
