package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tempo/api"
)

const (
	defaultAckWait = 30 * time.Second
	// maxActive bounds the batches that a taker serves at once; the others wait.
	// Which ones they are follows from BATCHES alone.
	maxActive = 200
)

// TakerOptions say which jobs a worker takes.
type TakerOptions struct {
	Worker string   // as it is announced
	Models []string // served names
	Batch  string   // only jobs of this batch; "" = of all
	// AckWait is how long after the last sign of life a job is given to somebody
	// else; 0 = 30 s. All workers of a queue should have the same.
	AckWait time.Duration
}

// Taker takes jobs for one worker. Run must be running while Fetch is called and
// while there are deliveries that are neither completed nor given back: it sends
// their signs of life.
type Taker struct {
	c      *Client
	opts   TakerOptions
	holder holder // this process
	log    *zap.Logger

	mu        sync.Mutex
	batches   map[string]api.Batch // not ended, with jobs for Models; guarded by mu
	ending    map[string]api.Batch // that somebody is ending; guarded by mu
	lanes     map[string]*lane     // of the active batches, by consumer name; guarded by mu
	consumers map[string]bool      // names that exist on JOBS, as far as known; guarded by mu
	changed   chan struct{}        // closed and replaced when lanes changes; guarded by mu
	round     uint64               // counts rounds of Fetch; guarded by mu
	count     uint64               // counts turns and arrivals of lanes; guarded by mu
	rotas     [ranks]rota          // by rank; guarded by mu
	charges   map[*Delivery]charge // of open deliveries; guarded by mu
	open      map[string]*Delivery // by subject: deliveries that need signs of life; guarded by mu
}

// NewTaker makes a taker. A nil log is silent.
func (c *Client) NewTaker(o TakerOptions, log *zap.Logger) *Taker {
	if o.AckWait == 0 {
		o.AckWait = defaultAckWait
	}
	if log == nil {
		log = zap.NewNop()
	}
	host, _ := os.Hostname() // it is the same empty one everywhere else
	return &Taker{
		c: c, opts: o, holder: holder{o.Worker, host, os.Getpid()}, log: log.Named("taker").With(zap.String("worker", o.Worker)),
		batches: map[string]api.Batch{}, ending: map[string]api.Batch{}, lanes: map[string]*lane{}, consumers: map[string]bool{},
		changed: make(chan struct{}), charges: map[*Delivery]charge{}, open: map[string]*Delivery{},
	}
}

// Run follows the batches and sends signs of life for the open deliveries, until
// ctx is done; then it returns nil.
func (t *Taker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.followBatches(ctx) })
	group.Go(func() error { return t.heartbeat(ctx) })
	group.Go(func() error { return t.tendBatches(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// heartbeat sends signs of life, often enough that one may get lost.
func (t *Taker) heartbeat(ctx context.Context) error {
	tick := time.NewTicker(t.opts.AckWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, m := range t.openMessages() {
			if err := m.InProgress(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
				t.log.Debug("a sign of life was not sent", zap.String("subject", m.Subject()), zap.Error(err))
			}
		}
	}
}

func (t *Taker) openMessages() []jetstream.Msg {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]jetstream.Msg, 0, len(t.open))
	for _, d := range t.open {
		list = append(list, d.msg)
	}
	return list
}

// followBatches keeps the lanes in step with the bucket BATCHES.
func (t *Taker) followBatches(ctx context.Context) error {
	if err := t.listConsumers(ctx); err != nil {
		return err
	}
	return t.c.follow(ctx, "KV_"+bucketBatches, "$KV."+bucketBatches+".>", func(m jetstream.Msg) error {
		id, err := Untoken(lastToken(m.Subject()))
		if err != nil {
			t.log.Error("a key of the bucket BATCHES is not an id", zap.String("key", m.Subject()), zap.Error(err))
			return nil
		}
		if removed(m) {
			return t.end(ctx, id, t.batch(id).Tempo.Models, nil)
		}
		var b api.Batch
		if err := json.Unmarshal(m.Data(), &b); err != nil {
			t.log.Error("a value of the bucket BATCHES is not a batch", zap.String("key", m.Subject()), zap.Error(err))
			return nil
		}
		switch {
		case b.Status == api.Completed:
			return t.end(ctx, id, b.Tempo.Models, nil)
		case b.Status.Ended():
			return t.end(ctx, id, b.Tempo.Models, &EndedError{Batch: id, Status: b.Status})
		case b.Status.Runs():
			t.activate(b)
		default:
			t.deactivate(id, b.Tempo.Models, &EndedError{Batch: id, Status: endOf(b)})
			t.mu.Lock()
			t.ending[id] = b
			t.mu.Unlock()
		}
		return nil
	})
}

// listConsumers finds the consumers that exist, so that those of batches that
// ended while no worker looked are removed.
func (t *Taker) listConsumers(ctx context.Context) error {
	return t.c.retry(ctx, "list consumers", func(ctx context.Context) error {
		s, err := t.c.stream(ctx, streamJobs)
		if err != nil {
			return err
		}
		names := s.ConsumerNames(ctx)
		for name := range names.Name() {
			t.mu.Lock()
			t.consumers[name] = true
			t.mu.Unlock()
		}
		return names.Err()
	})
}

func (t *Taker) batch(id string) api.Batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.batches[id]
}

// activate adds a batch, or takes over what has changed in it.
func (t *Taker) activate(b api.Batch) {
	if !slices.ContainsFunc(b.Tempo.Models, t.serves) || (t.opts.Batch != "" && t.opts.Batch != b.ID) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.batches[b.ID] = b
	t.arrange()
}

func (t *Taker) serves(model string) bool { return slices.Contains(t.opts.Models, model) }

// deactivate takes no more jobs of a batch, and ends the lives of those that are here.
func (t *Taker) deactivate(id string, models []string, why error) {
	var lanes []*lane
	t.mu.Lock()
	delete(t.batches, id)
	delete(t.ending, id)
	for _, model := range models {
		if l := t.lanes[consumerName(model, id)]; l != nil {
			lanes = append(lanes, l)
		}
	}
	t.arrange()
	t.mu.Unlock()
	for _, l := range lanes {
		l.close(why) // from here on it makes no consumer
	}
}

// end removes a batch, its consumers, and what is left of its jobs: a consumer
// that is gone takes no acks, and nobody wants the jobs any more.
func (t *Taker) end(ctx context.Context, id string, models []string, why error) error {
	t.deactivate(id, models, why)
	for _, model := range models {
		name := consumerName(model, id)
		if !t.serves(model) || !t.forgetConsumer(name) {
			continue
		}
		if err := t.c.clear(ctx, model, id); err != nil {
			return err
		}
		t.log.Debug("batch has ended", zap.String("batch", id), zap.String("model", model))
	}
	return nil
}

func (t *Taker) forgetConsumer(name string) (known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known = t.consumers[name]
	delete(t.consumers, name)
	return known
}

// arrange makes the lanes of the active batches: the first maxActive by priority
// and age, those that are paused last. t.mu must be held.
func (t *Taker) arrange() {
	batches := make([]api.Batch, 0, len(t.batches))
	for _, b := range t.batches {
		batches = append(batches, b)
	}
	slices.SortFunc(batches, func(a, b api.Batch) int {
		return cmp.Or(compareBool(a.Tempo.Paused, b.Tempo.Paused), cmp.Compare(rank(a.Tempo.Priority), rank(b.Tempo.Priority)),
			cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	lanes := map[string]*lane{}
	for _, b := range batches[:min(len(batches), maxActive)] {
		for _, model := range b.Tempo.Models {
			if !t.serves(model) {
				continue
			}
			name := consumerName(model, b.ID)
			l, r := t.lanes[name], rank(b.Tempo.Priority)
			if l == nil {
				t.count++
				l = &lane{t: t, name: name, filter: jobsOf(model, b.ID), rank: r, cost: firstCost, fresh: true, since: t.count}
				l.life, l.end = context.WithCancelCause(context.Background())
			} else if l.rank != r { // what it had used counts among others
				l.rank, l.used = r, t.rotas[r].clock
			}
			l.paused, l.weight = b.Tempo.Paused, int64(cmp.Or(b.Tempo.Weight, api.DefaultWeight))
			if most := cmp.Or(b.Tempo.MaxInFlight, maxAckPending); most != l.inFlight {
				l.inFlight, l.moved = most, true
			}
			lanes[name] = l
		}
	}
	t.lanes = lanes
	close(t.changed)
	t.changed = make(chan struct{})
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// ranks is how many there are.
const ranks = 3

// rank orders priorities, the most urgent first.
func rank(p api.Priority) int {
	switch p {
	case api.High:
		return 0
	case api.Low:
		return 2
	default:
		return 1
	}
}
