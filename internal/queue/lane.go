package queue

import (
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
	// failLimit takes restLimit's place for a lane that fails. If each try takes all of
	// tryTimeout, the other lanes still have half of the time.
	failLimit = tryTimeout
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
	name   string          // of the consumer
	filter string          // of the consumer
	life   context.Context //nolint:containedctx // the batch's: done when that has ended
	end    context.CancelCauseFunc

	// Guarded by t.mu:
	rank     int           // of the batch's priority
	used     int64         // its account, see price: what it gave, as far as that is known; see rota
	weight   int64         // of the batch, at least 1
	paused   bool          // no jobs are to be taken of it
	inFlight int           // most jobs that all workers together may have of it
	moved    bool          // inFlight has changed since the consumer was made
	cost     int64         // of a job of it in tokens, on average (≥ leastCost)
	fresh    bool          // it has given no job yet
	since    uint64        // Taker.count when it came, or when its last turn began
	rest     time.Duration // how long it rested last; 0 = it had jobs
	until    time.Time     // when its rest is over

	mu       sync.Mutex         // also held while the consumer is made
	consumer jetstream.Consumer // nil = to be made; guarded by mu
}

// Fetch takes at least 1 and at most n jobs (n ≥ 1), and waits for them until ctx
// is done; then it returns ctx's error, up to a quarter of a second later. Jobs
// that it has taken by then are returned without an error.
//
// Jobs of a higher priority come first; one call in four begins with the normal ones,
// and one in sixteen with the low ones, so that they never starve. Inside a priority
// the active batches take turns of 64 Ki tokens, or of 30 s if those are over before
// (less where many batches wait). A batch that has run dry gives its turn away at once,
// and one that has just come is next, after 10 s or 64 jobs at most. All get equal shares of the
// tokens of which [Delivery.Served] tells. Fetch takes no job ahead of need.
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
	for _, rank := range t.order() {
		lanes := t.awake(rank)
		for len(lanes) > 0 && len(got) < n && ctx.Err() == nil {
			l, share := t.next(rank, lanes, n-len(got))
			jobs, all, _ := l.take(ctx, share, 0) // the lane has logged the error, and rests
			got = append(got, jobs...)
			if !all {
				lanes = slices.DeleteFunc(lanes, func(o *lane) bool { return o == l })
			}
		}
	}
	return got
}

// order begins a round, and returns the ranks in the order of this round.
func (t *Taker) order() [ranks]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	t.round++
	switch {
	case t.round%16 == 0:
		return [ranks]int{2, 0, 1}
	case t.round%4 == 0:
		return [ranks]int{1, 0, 2}
	}
	return [ranks]int{0, 1, 2}
}

// awake returns the lanes of a rank that do not rest.
func (t *Taker) awake(rank int) []*lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lanes []*lane
	now := time.Now()
	for _, l := range t.lanes {
		if l.rank == rank && !l.paused && !l.until.After(now) {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// next is the lane of a rank to ask, and for how many jobs.
func (t *Taker) next(rank int, lanes []*lane, want int) (l *lane, share int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rotas[rank].next(lanes, want, time.Now())
}

// linger waits when all lanes rest: with a pull on the lane whose rest is over
// first, until that moment. Pulls are never cancelled, as a job could be on its way.
func (t *Taker) linger(ctx context.Context, n int) []*Delivery {
	t.mu.Lock()
	changed := t.changed
	var next *lane
	var until time.Time
	for _, l := range t.lanes {
		if !l.paused && (next == nil || l.until.Before(until)) {
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
	got, _, err := next.take(ctx, n, wait)
	if err != nil { // its batch has ended, perhaps, and another begins
		pauseUnless(ctx, changed, wait)
	}
	return got
}

// take takes up to n jobs; if there are none it waits for the first ones. all says
// whether the lane had as many: if not, it has run dry.
func (l *lane) take(ctx context.Context, n int, wait time.Duration) (got []*Delivery, all bool, err error) {
	msgs, err := l.pull(ctx, n, wait)
	l.note(len(msgs), err)
	if err != nil {
		l.t.log.Debug("no jobs from a batch", zap.String("consumer", l.name), zap.Error(err))
	}
	// What was taken is dealt with, also when ctx is done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryTimeout)
	defer cancel()
	for _, m := range msgs {
		if d := l.t.receive(ctx, m); d != nil {
			d.life = l.life
			l.t.charge(l, d)
			got = append(got, d)
		}
	}
	return got, len(msgs) == n, err
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
	if l.life.Err() != nil {
		return nil, errEnded
	}
	l.t.mu.Lock()
	inFlight, moved := l.inFlight, l.moved
	l.moved = false
	l.t.mu.Unlock()
	if l.consumer != nil && !moved {
		return l.consumer, nil
	}
	l.consumer = nil
	ctx, cancel := l.t.c.bound(ctx, tryTimeout)
	defer cancel()
	// MaxDeliver stays unlimited: a job that was given back often would be lost to
	// all. Attempts are counted here.
	consumer, err := l.t.c.js.CreateOrUpdateConsumer(ctx, streamJobs, jetstream.ConsumerConfig{
		Durable: l.name, FilterSubject: l.filter, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: l.t.opts.AckWait, MaxAckPending: inFlight,
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

func (l *lane) close(why error) {
	l.mu.Lock()
	l.end(why)
	l.mu.Unlock()
}

// note notes how many jobs the lane gave. If it gave none it rests; err says that this
// was a failure.
func (l *lane) note(jobs int, err error) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	now := time.Now()
	if jobs > 0 {
		l.t.count++
		l.t.rotas[l.rank].gives(l, jobs, l.t.count, now)
		l.rest, l.until = 0, time.Time{}
		return
	}
	limit := restLimit
	if err != nil {
		limit = failLimit
	}
	l.rest = min(max(2*l.rest, restFirst), limit)
	l.until = now.Add(l.rest)
}
