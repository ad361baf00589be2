package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Backlog says whether there are jobs for a taker.
type Backlog int

// Backlogs, each more than the one before.
const (
	NoJobs Backlog = iota
	// JobsElsewhere are with other workers, or were given back to come again later:
	// the server does not tell one from the other.
	JobsElsewhere
	JobsWaiting // for anybody to take them
)

// Backlog looks for jobs in the active batches without taking any, so that a worker
// knows whether it is worth loading a model. What this taker has is not counted. It
// asks the server once for each batch, until one has jobs that wait.
func (t *Taker) Backlog(ctx context.Context) (Backlog, error) {
	taken, mine := 0, len(t.openMessages())
	for _, l := range t.inOrder() {
		waiting, pending, err := l.count(ctx)
		switch {
		case errors.Is(err, errEnded):
			continue
		case err != nil:
			return NoJobs, fmt.Errorf("look for jobs: %w", err)
		case waiting > 0:
			return JobsWaiting, nil
		}
		taken += pending
	}
	if taken > max(mine, len(t.openMessages())) { // its own may come and go meanwhile
		return JobsElsewhere, nil
	}
	return NoJobs, nil
}

// Changed is closed when the active batches are others than now.
func (t *Taker) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// inOrder is the lanes, the most urgent first.
func (t *Taker) inOrder() []*lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*lane, 0, len(t.lanes))
	for _, l := range t.lanes {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lane) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.name, b.name))
	})
	return all
}

// count is how many jobs wait in a lane, and how many somebody has.
func (l *lane) count(ctx context.Context) (waiting, taken int, err error) {
	consumer, err := l.open(ctx)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := l.t.c.bound(ctx, tryTimeout)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err != nil {
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			l.reset() // somebody has removed it: the next look makes it anew, if its batch goes on
			return 0, 0, nil
		}
		return 0, 0, err //nolint:wrapcheck // Backlog wraps it
	}
	return int(info.NumPending), info.NumAckPending, nil
}
