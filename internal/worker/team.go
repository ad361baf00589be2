package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// Model is a model that a Team serves, and what it is served with.
type Model struct {
	Name string // served
	Spec infer.Spec
	// Engine makes an engine. A team makes one for each load and closes it to unload,
	// since only the end of its process gives back all that the process held.
	Engine func() infer.Engine
	// Monitor measures the processes of the model's engines; where there is one model
	// on a CPU, this process too.
	Monitor *budget.Monitor
	Taker   ModelTaker // of this model's jobs alone
	// Layers is Options.Layers of this model.
	Layers func(sequences, cells int) []api.LayerMemory
}

// ModelTaker is a Taker that also tells whether there are jobs.
type ModelTaker interface {
	Taker
	Backlog(ctx context.Context) (queue.Backlog, error)
	Changed() <-chan struct{}
}

// Team serves one or several models on one device. With one it is a [Worker], no more
// and no less. Of several each has a Worker while it is loaded, with an engine process,
// a ledger and a claim of its own; what they share is in common, and who is loaded
// is decided in turns: see [Team.look].
type Team struct {
	opts    Options // Model, Spec and Layers are each model's own
	log     *zap.Logger
	queue   Queue
	members []*member
	started time.Time

	only   *Worker      // of the only model; nil where there are several
	engine infer.Engine // its engine

	common *common      // of several models
	booked budget.Bytes // for this process itself; 0 on a GPU
	own    *stand       // the claim for it; nil = there is none
	wake   chan struct{}
	fatal  chan error // why the team cannot go on; of room for each member
}

// NewTeam makes a team of at least one model. Options.Model, Spec and Layers are not
// used. A nil log is silent.
func NewTeam(opts Options, q Queue, models []Model, log *zap.Logger) *Team {
	if log == nil {
		log = zap.NewNop()
	}
	t := &Team{opts: opts.withDefaults(), log: log, queue: q, wake: make(chan struct{}, 1), fatal: make(chan error, len(models))}
	for _, m := range models {
		t.members = append(t.members, &member{Model: m, team: t, log: log.With(zap.String("model", m.Name))})
	}
	if len(models) == 1 {
		m := models[0]
		t.engine = m.Engine()
		t.only = New(t.members[0].options(), q, m.Taker, t.engine, m.Monitor, log)
	}
	t.log = log.Named("worker").With(zap.String("worker", opts.Name))
	return t
}

// Model is the served name of the first model.
func (t *Team) Model() string { return t.members[0].Name }

// Models are the served names of all models.
func (t *Team) Models() []string {
	names := make([]string, len(t.members))
	for i, m := range t.members {
		names[i] = m.Name
	}
	return names
}

// Start is [Worker.Start] where there is one model. Of several it opens and plans each
// and loads none: jobs say which is wanted. A model that cannot be opened, or that does
// not fit into the limit even alone, is an error that names it, since nobody who gives
// a worker a model means that its jobs should wait for ever.
func (t *Team) Start(ctx context.Context) error {
	t.started = time.Now()
	if t.only != nil {
		return t.only.Start(ctx)
	}
	err := t.share(ctx)
	for _, m := range t.members {
		if err == nil {
			err = m.begin(ctx)
		}
	}
	if err != nil {
		t.withdraw(context.WithoutCancel(ctx))
		return err
	}
	t.log.Info("models are loaded when there are jobs for them", zap.Strings("models", t.Models()))
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if err := t.queue.Announce(asking, t.self()); err != nil { // Run says it again
		t.log.Debug("this worker could not be announced yet", zap.Error(err))
	}
	return nil
}

// claims are those of others on the device.
func (t *Team) claims(ctx context.Context) ([]api.Claim, error) {
	if t.opts.ReadDevice == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	others, err := t.queue.Claims(ctx, t.opts.Device.MemoryID)
	if err != nil {
		return nil, fmt.Errorf("read the claims on the device: %w", err)
	}
	return others, nil
}

// Preview is [Worker.Preview] of each model, in their order, as if it were loaded
// alone. What was found until an error is returned with it, the faulty one last.
func (t *Team) Preview(ctx context.Context, others []api.Claim) ([]Preview, error) {
	if t.only != nil {
		p, err := t.only.Preview(ctx, others)
		return []Preview{p}, err
	}
	if err := t.shareLocally(); err != nil {
		return nil, err
	}
	var all []Preview
	for _, m := range t.members {
		err := m.examine(ctx, others)
		all = append(all, m.preview)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// Run takes and answers jobs until ctx is done, and then ends as [Worker.Run] does.
// Start must have returned. It returns an error if the only model's engine is gone for
// good; of several models, if none is left or the device is lost.
func (t *Team) Run(ctx context.Context) error {
	if t.only != nil {
		return t.only.Run(ctx)
	}
	// Signs of life of claims and jobs go on until the last job has left.
	outlive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var services errgroup.Group
	serve := func(name string, run func(context.Context) error) {
		services.Go(func() error {
			err := run(outlive)
			stop() // without one of them the team cannot go on
			if err != nil && outlive.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	for _, m := range t.members {
		serve("take jobs for "+m.Name, m.Taker.Run)
	}
	serve("announce", func(ctx context.Context) error { return announce(ctx, t.queue, t.self, t.log) })
	serve("measure this process", t.watchOwn)
	err := t.takeTurns(ctx)
	stop()
	for _, m := range t.members {
		m.wait()
	}
	end()
	err = errors.Join(err, services.Wait())
	t.withdraw(context.WithoutCancel(ctx))
	return err
}

// self is what the team says of itself: all models that are not left alone after a failure, and what
// those that are loaded can take.
func (t *Team) self() api.Worker {
	var names []string
	capacity, longest := 0, 0
	for _, m := range t.members {
		s := m.state()
		if !s.down() {
			names = append(names, m.Name)
			longest = max(longest, m.longest)
		}
		if s.worker != nil {
			capacity += int(s.worker.cells.Load())
		}
	}
	return self(t.opts, names, capacity, longest, t.started)
}

// Close ends all engines and takes back what Start has claimed, where Run is not called
// or has returned.
func (t *Team) Close() error {
	if t.only != nil {
		t.only.Close()
		return t.engine.Close()
	}
	if t.own != nil {
		t.own.giveUp()
	}
	return nil
}

// withdraw takes back what the team has claimed and announced.
func (t *Team) withdraw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if t.own != nil {
		t.own.end(ctx)
	}
	if err := t.queue.Withdraw(ctx, t.opts.Name); err != nil {
		t.log.Debug("this worker could not be withdrawn; its entry expires", zap.Error(err))
	}
}
