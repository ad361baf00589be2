package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	// restFirst and restLimit bound how long a lane that was empty is not asked
	// again; each time in a row doubles it.
	restFirst = 5 * time.Millisecond
	restLimit = 250 * time.Millisecond
	// lingerLeast keeps many resting lanes from making Fetch busy.
	lingerLeast = 20 * time.Millisecond
	// maxAckPending is a consumer's bound of jobs in work over the whole fleet; a
	// worker takes only what it has memory for, so that none is wanted here.
	maxAckPending = 100_000
)

// errEnded says that the batch of a lane has ended.
var errEnded = errors.New("the batch has ended")

// lane is the way to the jobs of one batch and model.
type lane struct {
	t      *Taker
	name   string // of the consumer
	filter string // of the consumer

	// Guarded by t.mu:
	rank   int           // of the batch's priority
	served uint64        // the turn in which it last gave a job
	rest   time.Duration // how long it rested last; 0 = it had jobs
	until  time.Time     // when its rest is over

	mu       sync.Mutex         // also held while the consumer is made
	consumer jetstream.Consumer // nil = to be made; guarded by mu
	ended    bool               // guarded by mu
}

// Fetch takes at least 1 and at most n jobs (n ≥ 1), and waits for them until ctx
// is done; then it returns ctx's error, up to a quarter of a second later. Jobs
// that it has taken by then are returned without an error.
//
// It goes round robin over the active batches, those of a higher priority first;
// one call in four begins with the normal ones, and one in sixteen with the low
// ones, so that they never starve. It takes no job ahead of need.
func (t *Taker) Fetch(ctx context.Context, n int) ([]*Delivery, error) {
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for jobs: %w", context.Cause(ctx))
		}
		got := t.sweep(ctx, n)
		if len(got) == 0 {
			got = t.linger(ctx, n)
		}
		if len(got) > 0 {
			return got, nil
		}
	}
}

// sweep asks the lanes that do not rest, without waiting.
func (t *Taker) sweep(ctx context.Context, n int) []*Delivery {
	var got []*Delivery
	for _, lanes := range t.round() {
		for len(lanes) > 0 && len(got) < n {
			var again []*lane // those that gave all they were asked for
			for i, l := range lanes {
				left := len(lanes) - i
				share := (n - len(got) + left - 1) / left
				if share == 0 || ctx.Err() != nil {
					return got
				}
				jobs, _ := l.take(ctx, share, 0) // the lane has logged the error, and rests
				got = append(got, jobs...)
				if len(jobs) == share {
					again = append(again, l)
				}
			}
			lanes = again
		}
	}
	return got
}

// round returns the lanes that do not rest: by priority in the order of this
// round, and inside a priority the one first that has waited longest.
func (t *Taker) round() [][]*lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn++
	order := []int{0, 1, 2}
	switch {
	case t.turn%16 == 0:
		order = []int{2, 0, 1}
	case t.turn%4 == 0:
		order = []int{1, 0, 2}
	}
	byRank := make([][]*lane, len(order))
	now := time.Now()
	for _, l := range t.lanes {
		if !l.until.After(now) {
			byRank[l.rank] = append(byRank[l.rank], l)
		}
	}
	round := make([][]*lane, len(order))
	for i, rank := range order {
		round[i] = byRank[rank]
		slices.SortFunc(round[i], func(a, b *lane) int {
			return cmp.Or(cmp.Compare(a.served, b.served), cmp.Compare(a.name, b.name))
		})
	}
	return round
}

// linger waits when all lanes rest: with a pull on the lane whose rest is over
// first, until that moment. Pulls are never cancelled, as a job could be on its way.
func (t *Taker) linger(ctx context.Context, n int) []*Delivery {
	t.mu.Lock()
	changed := t.changed
	var next *lane
	var until time.Time
	for _, l := range t.lanes {
		if next == nil || l.until.Before(until) {
			next, until = l, l.until
		}
	}
	t.mu.Unlock()
	if next == nil {
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return nil
	}
	wait := min(max(time.Until(until), lingerLeast), restLimit)
	got, err := next.take(ctx, n, wait)
	if err != nil {
		pause(ctx, wait)
	}
	return got
}

// take takes up to n jobs; if there are none it waits for the first ones.
func (l *lane) take(ctx context.Context, n int, wait time.Duration) ([]*Delivery, error) {
	msgs, err := l.pull(ctx, n, wait)
	l.note(len(msgs) > 0)
	if err != nil {
		l.t.log.Debug("no jobs from a batch", zap.String("consumer", l.name), zap.Error(err))
	}
	// What was taken is dealt with, also when ctx is done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryTimeout)
	defer cancel()
	var got []*Delivery
	for _, m := range msgs {
		if d := l.t.receive(ctx, m); d != nil {
			got = append(got, d)
		}
	}
	return got, err
}

func (l *lane) pull(ctx context.Context, n int, wait time.Duration) ([]jetstream.Msg, error) {
	consumer, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	var batch jetstream.MessageBatch
	if wait == 0 {
		batch, err = consumer.FetchNoWait(n)
	} else {
		batch, err = consumer.Fetch(n, jetstream.FetchMaxWait(wait))
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it is only logged
	}
	var msgs []jetstream.Msg
	for m := range batch.Messages() {
		msgs = append(msgs, m)
	}
	err = batch.Error()
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrConsumerDeleted) {
		l.reset() // somebody has removed the consumer
	}
	return msgs, err //nolint:wrapcheck // it is only logged
}

// open makes the consumer, or finds the one that another worker has made.
func (l *lane) open(ctx context.Context) (jetstream.Consumer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return nil, errEnded
	case l.consumer != nil:
		return l.consumer, nil
	}
	ctx, cancel := l.t.c.bound(ctx, tryTimeout)
	defer cancel()
	// MaxDeliver stays unlimited: a job that was given back often would be lost to
	// all. Attempts are counted here.
	consumer, err := l.t.c.js.CreateOrUpdateConsumer(ctx, streamJobs, jetstream.ConsumerConfig{
		Durable: l.name, FilterSubject: l.filter, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: l.t.opts.AckWait, MaxAckPending: maxAckPending,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // it is only logged
	}
	l.consumer = consumer
	l.t.mu.Lock()
	l.t.consumers[l.name] = true
	l.t.mu.Unlock()
	return consumer, nil
}

func (l *lane) reset() {
	l.mu.Lock()
	l.consumer = nil
	l.mu.Unlock()
}

func (l *lane) close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
}

// note has the lane rest if it gave nothing.
func (l *lane) note(gave bool) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if gave {
		l.served, l.rest, l.until = l.t.turn, 0, time.Time{}
		return
	}
	l.rest = min(max(2*l.rest, restFirst), restLimit)
	l.until = time.Now().Add(l.rest)
}
