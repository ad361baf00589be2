package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// Options say what a worker works with. Zero values mean the default that stands
// with each field.
type Options struct {
	Name   string // unique among the workers of a queue
	Model  string // served name of the model
	Spec   infer.Spec
	Device budget.Device
	// Limit is the most memory in bytes that the worker may ever hold on the device.
	// In force is what the device has beside others, if that is less.
	Limit budget.Bytes
	// Reserve is left free on the device.
	Reserve budget.Bytes
	// ReadDevice reads the device's memory anew; nil = nobody else uses the device,
	// and Limit is in force.
	ReadDevice func() (budget.Device, error)
	// HostMemory bounds what jobs take of the host's memory, in bytes: requests and
	// results on their way, and on a GPU the KV of jobs that gave way; 0 = 64 MiB.
	HostMemory budget.Bytes
	// Thresholds are the shares of Limit at which the worker warns and acts.
	Thresholds budget.Thresholds
	// MaxParallelTokens bounds the tokens that one decode step generates, over
	// all jobs; 0 = TEMPO's automatic limit.
	MaxParallelTokens int
	// MaxCacheTokens bounds the KV tokens of all jobs together; 0 = what the
	// jobs can use and the limit allows.
	MaxCacheTokens int
	// Measure reads the device memory of a process.
	Measure func(pid int) (budget.Bytes, error)
	// MeasureTaken reads what a process has taken of what the device calls free;
	// nil = what Measure reads.
	MeasureTaken func(pid int) (budget.Bytes, error)
	// ExtraOverhead is memory in bytes that this process will take beyond what it
	// holds when Start is called and the usual growth: a batch that it reads, a
	// queue that it runs. It is booked as overhead on a CPU.
	ExtraOverhead budget.Bytes
	// DrainTimeout is how long running jobs may go on after Run's context is
	// done, before they are given back; 0 = 5 s.
	DrainTimeout time.Duration
	// MaxAttempts is how often a job is tried; the next delivery gets an error
	// result. It ends jobs that kill their worker again and again; 0 = 5.
	MaxAttempts int
	// StatsInterval is the time between two publications of memory statistics;
	// 0 = 2 s.
	StatsInterval time.Duration
	// WatchInterval is the time between two looks at the device; 0 = 1 s.
	WatchInterval time.Duration
	// RenewClaim is the time between two signs of life of the claim on the device,
	// which ends 30 s after the last; 0 = 8 s.
	RenewClaim time.Duration
	// RetryStart is the time between two tries to start where other workers have
	// claimed too much of the device; 0 = 5 s.
	RetryStart time.Duration
	// GrowAfter is how long there must be room before a pool that was made smaller
	// grows again; 0 = 15 s.
	GrowAfter time.Duration
	// Turn is how long a model of a Team that has jobs may keep others waiting for its
	// place, or ten times its load if that is longer; 0 = 1 min.
	Turn time.Duration
	// AtOnce is how many models of a Team may work at the same time; 0 = all.
	AtOnce int
	// Layers tells the memory of each layer with a pool of so many cells; nil = the
	// statistics do not show it.
	Layers func(sequences, cells int) []api.LayerMemory
}

// Queue is what a worker needs of the queue.
type Queue interface {
	HasResult(ctx context.Context, batch, job string) (bool, error)
	PublishStats(ctx context.Context, s api.MemoryStats) error
	PublishModelStats(ctx context.Context, s api.MemoryStats) error
	Announce(ctx context.Context, w api.Worker) error
	Withdraw(ctx context.Context, id string) error
	Claim(ctx context.Context, device, worker string, decide func(others []api.Claim) (api.Claim, error)) error
	Claims(ctx context.Context, device string) ([]api.Claim, error)
	Unclaim(ctx context.Context, device, worker string) error
}

// Taker gives out the jobs of a queue.
type Taker interface {
	Run(ctx context.Context) error
	Fetch(ctx context.Context, n int) ([]*queue.Delivery, error)
}

// Worker answers the jobs of one model on one device. Alone it is all that there is
// in the process; in a [Team] it is there for as long as its model is loaded.
type Worker struct {
	opts    Options
	log     *zap.Logger
	queue   Queue
	taker   Taker
	engine  infer.Engine
	monitor *budget.Monitor
	common  *common // what the models of a team share; nil = it has the device alone

	retired context.Context    //nolint:containedctx // see retire
	retire  context.CancelFunc // has Run take no more jobs, and end when those that run have ended

	// Set by Start.
	facts    infer.Facts
	plan     budget.Plan // what was planned at the start
	wanted   int         // cells that jobs could use
	pool     pool
	oneJob   budget.Bytes // held with one job in the smallest pool
	perToken budget.Bytes // what one more token in a step takes
	group    *budget.Group
	ledger   *budget.Ledger // the device's
	host     *budget.Ledger
	own      budget.Bytes // see OwnShare
	overhead budget.Bytes // booked for the processes after the load
	started  time.Time
	slots    *slots // of one place for each job that may be in the engine

	stand *stand // nil where nobody shares the device

	others        []api.Claim  // of other workers on the device; belongs to Start, then to keep
	promised      budget.Bytes // in this worker's own claim, 0 = it has none; belongs to Start, then to keep
	said          budget.Bytes // the last limit that was logged; belongs to Start, then to keep
	fell, falling budget.Bytes // by what the limit fell in the last round, and in each of the last two; belongs to keep
	taken         budget.Bytes // what mine measured last; belongs to Start, then to keep

	cells   atomic.Int64         // of the pool now; 0 = the model is not loaded
	yields  chan chan<- struct{} // see yield; each gets an answer by being closed
	growing under                // jobs that make others give way
	sets    *narrower            // the bound on sets of parallel jobs
	alone   *semaphore.Weighted  // of weight everybody; a job in the engine has 1 of it, one that must be alone all
	tokens  atomic.Int64         // generated since Start
	gaveWay atomic.Int64         // jobs that made room for others since Start
	ticket  atomic.Int64         // KV tokens to lease before a job is known

	mu        sync.Mutex
	running   []*job        // in order of arrival; guarded by mu
	busy      bool          // jobs have come since the worker was idle last; guarded by mu
	lastJob   time.Time     // when a job came or left last; guarded by mu
	workSince time.Time     // when jobs began to come after a pause; guarded by mu
	turn      *turn         // of the intake, nil between two; guarded by mu
	holders   int           // who hold the intake; guarded by mu
	unheld    chan struct{} // closed when the last of them lets go; guarded by mu
	fatal     error         // why the engine is gone for good; guarded by mu
}

func (o Options) withDefaults() Options {
	if o.DrainTimeout == 0 {
		o.DrainTimeout = 5 * time.Second
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 5
	}
	if o.HostMemory == 0 {
		o.HostMemory = processGrowth
	}
	if o.WatchInterval == 0 {
		o.WatchInterval = time.Second
	}
	if o.RenewClaim == 0 {
		o.RenewClaim = 8 * time.Second
	}
	if o.RetryStart == 0 {
		o.RetryStart = 5 * time.Second
	}
	if o.GrowAfter == 0 {
		o.GrowAfter = 15 * time.Second
	}
	if o.Turn == 0 {
		o.Turn = time.Minute
	}
	if o.StatsInterval == 0 {
		o.StatsInterval = 2 * time.Second
	}
	if o.Thresholds == (budget.Thresholds{}) {
		o.Thresholds = budget.DefaultThresholds()
	}
	return o
}

// New makes a worker. It does not own engine, taker or monitor: closing the
// engine and watching its processes with the monitor is up to the caller; but Run
// closes an engine that keeps it from ending. A nil log is silent.
func New(opts Options, q Queue, taker Taker, engine infer.Engine, monitor *budget.Monitor, log *zap.Logger) *Worker {
	if log == nil {
		log = zap.NewNop()
	}
	opts = opts.withDefaults()
	w := &Worker{
		opts: opts, queue: q, taker: taker, engine: engine, monitor: monitor,
		log: log.Named("worker").With(zap.String("worker", opts.Name)), alone: semaphore.NewWeighted(everybody),
		yields: make(chan chan<- struct{}),
	}
	w.sets = newNarrower(engine.Narrow, w.widestSet, w.log)
	w.retired, w.retire = context.WithCancel(context.Background())
	return w
}

// Model is the served name of the worker's model.
func (w *Worker) Model() string { return w.opts.Model }

// announceEvery is the time between two signs of life; the queue forgets a
// worker after three.
const announceEvery = 10 * time.Second

// Run takes and answers jobs until ctx is done; then it takes no more, lets the
// running jobs end for DrainTimeout and gives the rest back; it closes the engine
// if that does not let go of them. Start must have returned. It returns an error if
// the engine is gone for good.
func (w *Worker) Run(ctx context.Context) error {
	// The queue's heartbeats and the jobs outlive ctx until the drain is over.
	outlive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	work, giveUp := context.WithCancelCause(outlive)
	defer giveUp(nil)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	intake, closeIntake := context.WithCancel(ctx)
	defer closeIntake()
	defer context.AfterFunc(w.retired, closeIntake)() //nolint:contextcheck // it is no request, but a signal

	var services errgroup.Group
	for name, run := range w.services() {
		services.Go(func() error {
			err := run(outlive)
			stop() // without one of them the worker cannot go on
			if err != nil && outlive.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	var jobs sync.WaitGroup
	err := w.takeJobs(intake, work, &jobs, stop)
	if w.retired.Err() != nil {
		waitOr(ctx, &jobs)
	}
	w.drain(&jobs, giveUp)
	w.logMemory("after generation")
	end()
	// A pool that is being resized is not waited for: nobody needs it any more.
	force := time.AfterFunc(letGo, w.endEngine)
	err = errors.Join(err, services.Wait()) // they need mu to end
	force.Stop()
	if w.common == nil {
		w.withdraw(context.WithoutCancel(ctx)) // only now: they would claim and announce again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(err, w.fatal)
}

// services are what goes on beside the jobs.
func (w *Worker) services() map[string]func(context.Context) error {
	all := map[string]func(context.Context) error{
		"take jobs": w.taker.Run, "measure memory": w.monitor.Run, "publish statistics": w.publishStats,
		"keep within the memory limit": w.keep,
	}
	if w.common == nil { // else the team announces all its models
		all["announce"] = w.announce
	}
	return all
}

// waitOr waits for the jobs, until ctx is done.
func waitOr(ctx context.Context, jobs *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		jobs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// letGo is how long an engine may take to let go of jobs that were ended: the
// step that it is in.
const letGo = 2 * time.Second

// drain waits for the running jobs, and after DrainTimeout ends them. An engine
// that does not let go of them is stuck, or in a step that takes too long to wait
// for: then the engine is ended.
func (w *Worker) drain(jobs *sync.WaitGroup, giveUp context.CancelCauseFunc) {
	if n := w.count(); n > 0 {
		w.log.Info("draining: no more jobs are taken", zap.Int("running", n), zap.Duration("timeout", w.opts.DrainTimeout))
	}
	stop := time.AfterFunc(w.opts.DrainTimeout, func() { giveUp(errDrained) })
	defer stop.Stop()
	force := time.AfterFunc(w.opts.DrainTimeout+letGo, w.endEngine)
	defer force.Stop()
	jobs.Wait()
}

// endEngine ends an engine that keeps the worker from ending.
func (w *Worker) endEngine() {
	w.log.Warn("the engine does not let go and is ended", zap.Int("running", w.count()))
	if err := w.engine.Close(); err != nil {
		w.log.Warn("the engine did not end well", zap.Error(err))
	}
}

func (w *Worker) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running)
}

// announce tells the queue what this worker has, again and again.
func (w *Worker) announce(ctx context.Context) error {
	return announce(ctx, w.queue, w.self, w.log)
}

func announce(ctx context.Context, q Queue, self func() api.Worker, log *zap.Logger) error {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	failing := false
	for {
		err := q.Announce(ctx, self())
		if err != nil && !failing && ctx.Err() == nil {
			log.Warn("this worker could not be announced; it is tried again", zap.Error(err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// self is what this worker says of itself. While it has not loaded yet, it has no
// capacity.
func (w *Worker) self() api.Worker {
	return self(w.opts, []string{w.opts.Model}, int(w.cells.Load()), w.context(), w.started)
}

func self(o Options, models []string, capacity, context int, started time.Time) api.Worker {
	host, err := os.Hostname()
	if err != nil {
		host = "" // for people only
	}
	return api.Worker{
		ID: o.Name, Host: host, PID: os.Getpid(), Models: models, Device: o.Device.ID,
		Capacity: capacity, Context: context, Started: started,
	}
}

// Close takes back what Start has claimed, where Run is not called. It does not
// close the engine.
func (w *Worker) Close() {
	if w.stand != nil && w.stand.giveUp != nil {
		w.stand.giveUp()
	}
}

// withdraw takes back what the worker has claimed and announced. Its memory is
// seen on the device for as long as it is there.
func (w *Worker) withdraw(ctx context.Context) {
	if w.queue == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if w.stand != nil {
		w.stand.end(ctx)
	}
	if w.common != nil { // the team is still there
		return
	}
	if err := w.queue.Withdraw(ctx, w.opts.Name); err != nil {
		w.log.Debug("this worker could not be withdrawn; its entry expires", zap.Error(err))
	}
}
