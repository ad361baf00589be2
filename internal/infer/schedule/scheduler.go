package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/sample"
)

// Options say what a scheduler runs its jobs in.
type Options struct {
	Cells        int // tokens of all contexts together, a multiple of 256
	Sequences    int // most jobs that run at once
	Ample        int // tokens of a set, were there memory for as many; see infer.Shape
	Batch        int // most tokens in one step
	Threads      int
	TypeK, TypeV string // what keys and values are kept in, "" = f16
	Layout       string // Auto, Streams or Unified; "" = Auto
	Longest      int    // tokens of the longest job; for Measure
	NoFlash      bool   // attention adds up in full precision: slower, and nearer to exact
	Inexact      error  // why there are no reproducible jobs, nil = there are
	NoRemoval    error  // why attention is not read, nil = it is where the model allows it
	// Attends tells how many of so many cells there may be where attention is read; nil = all.
	Attends func(cells int) int
	// Compute tells the most that compute buffers may take with so many cells; nil =
	// what streams and one pool turn out to take.
	Compute func(cells int) budget.Bytes
}

// Scheduler runs jobs over the contexts of one model.
type Scheduler struct {
	model *llama.Model
	opts  Options

	grammars func() *llama.Grammars // made on the first call

	inbox chan func()   // run by Run between two steps
	ended chan struct{} // closed when Run returns
	log   *zap.Logger

	cells atomic.Int64 // opts.Cells, for all

	// What follows belongs to the goroutine of Run, and opts once that runs.
	jobs    []*job // in order of arrival
	pools   []*pool
	cache   budget.Bytes // of the cells
	compute budget.Bytes // see Footprint
	target  []layout     // into which the pools are to be divided anew, nil = as they are
	// patience is how many more steps the running jobs have before that.
	patience  int
	recent    []need    // of the last jobs to arrive, a ring
	arrived   int       // jobs that have come
	left      int       // and gone
	lastExact int       // arrived, when the last reproducible one came
	lastSets  int       // and the last with sets
	usual     usual     // length of an answer
	alike     bool      // the jobs have much in common
	together  bool      // alike, when the pools were divided last
	judged    int       // arrived, when alike was found out last
	picking   []picking // of the step
	workers   *sample.Workers
	choosing  []*job      // of them, those with sets
	pickOne   func(i int) // of picking; made once, for a step allocates nothing
	chooseOne func(i int) // of choosing
	probed    bool        // single is known
	single    bool        // reproducible jobs must run one at a time
	narrow    int         // see Narrow; 0 = no bound
	checked   bool        // unread is known
	unread    error       // why attention cannot be read, nil = it can
	undivided bool        // two contexts could not be had in this shape
	fault     error       // a context is gone: Run ends
	steps     steps
}

// New makes a scheduler and allocates its contexts; Run must be called for jobs to make
// progress, and Close when it has returned. A nil log is silent.
func New(model *llama.Model, opts Options, log *zap.Logger) (*Scheduler, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if opts.Layout == "" {
		opts.Layout = Auto
	}
	s := &Scheduler{
		model: model,
		opts:  opts,
		inbox: make(chan func()),
		ended: make(chan struct{}),
		log:   log.Named("schedule"),

		grammars: sync.OnceValue(model.Grammars),
	}
	s.cells.Store(int64(opts.Cells))
	s.pickOne = func(i int) { s.picking[i].pick() }
	s.chooseOne = func(i int) {
		e := s.choosing[i].sets
		e.choose(s.opts.Sequences)
	}
	s.workers = sample.NewWorkers(opts.Threads)
	if err := s.allocate(true); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Submit runs one job whose prompt is already tokenized, and returns when it has
// ended. limit is the most tokens that prompt and output may have together; the pool
// bounds them too. The job's lease is not asked for anything any more when Submit
// has returned.
func (s *Scheduler) Submit(ctx context.Context, req infer.Request, prompt []llama.Token, limit int) (*infer.Output, error) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{
		req: req, ctx: ctx,
		tokens: slices.Clip(prompt), prompt: len(prompt), limit: limit, index: -1,
		leased: req.Lease.Tokens(),
		done:   make(chan outcome, 1),
	}
	var err error
	if j.grammar, err = s.bind(req.Job); err != nil {
		cancel()
		return nil, err
	}
	if n := req.Job.MaxTokens; n > 0 {
		j.limit = min(limit, len(prompt)+n)
	}
	if req.Job.Parallel != nil {
		j.sets = s.newSets(req, len(prompt), j.limit)
		j.limit = j.sets.limit
		if most := req.Job.Parallel.MaxCacheTokens; most > 0 && most <= len(prompt) {
			cancel()
			return nil, &infer.RequestError{
				Param:   "tempo.max_cache_tokens",
				Message: fmt.Sprintf("tempo.max_cache_tokens is %d, and the prompt has %d tokens already", most, len(prompt)),
				Advice:  "raise it, or shorten the prompt",
			}
		}
	}
	return s.await(ctx, cancel, j)
}

// await runs a job that is made, until it has ended.
func (s *Scheduler) await(ctx context.Context, cancel context.CancelFunc, j *job) (*infer.Output, error) {
	defer j.asks.Wait()
	defer cancel()
	arrived := s.askAhead(j)
	there := s.tell(func() { s.arrive(j) })
	close(arrived)
	if !there {
		j.free()
		return nil, infer.ErrStopped
	}
	if recall := j.req.Lease.Reclaim(); recall != nil {
		j.asks.Go(func() { s.watch(j, recall) })
	}
	defer context.AfterFunc(ctx, func() { s.tell(s.dropCancelled) })()
	o := <-j.done
	return o.out, o.err
}

// tell has Run call f between two steps; false if Run has ended.
func (s *Scheduler) tell(f func()) bool {
	select {
	case s.inbox <- f:
		return true
	case <-s.ended:
		return false
	}
}

// Run schedules until ctx is done, then ends the remaining jobs with
// infer.ErrStopped. It returns an error if a llama context broke; no job can
// run after that.
func (s *Scheduler) Run(ctx context.Context) error {
	defer func() {
		close(s.ended)
		for len(s.jobs) > 0 {
			s.end(s.jobs[0], nil, infer.ErrStopped)
		}
	}()
	for s.receive(ctx) {
		if err := s.step(); err != nil {
			return err
		}
	}
	return s.fault
}

// Narrow bounds the tokens that a job may have at one position from the next step on; 0 = no
// bound. Run must have been called, or be about to be.
func (s *Scheduler) Narrow(width int) {
	s.tell(func() {
		s.narrow = width
		s.squeeze()
	})
}

// Close frees everything. Run must have returned.
func (s *Scheduler) Close() error {
	s.workers.Close()
	return s.closePools()
}

func (s *Scheduler) closePools() error {
	var errs []error
	for _, p := range s.pools {
		errs = append(errs, p.ctx.Close())
	}
	s.pools = nil
	return errors.Join(errs...)
}

// receive does what others have told it, and waits for that where no job can do
// a step. It returns false when ctx is done or a context is gone.
func (s *Scheduler) receive(ctx context.Context) bool {
	for ctx.Err() == nil && s.fault == nil {
		select {
		case f := <-s.inbox:
			f()
			continue
		default:
		}
		if s.ready() {
			return true
		}
		select {
		case f := <-s.inbox:
			f()
		case <-ctx.Done():
		}
	}
	return false
}

// arrive takes a new job in.
func (s *Scheduler) arrive(j *job) {
	s.jobs = append(s.jobs, j)
	s.arrived++
	if j.exact() {
		s.lastExact = s.arrived
	}
	if j.sets != nil {
		s.lastSets = s.arrived
	}
	if s.fits(j) {
		j.longest = j.most(s.opts.Cells)
		s.ask(j)
	}
}

// fits ends a job that is not in the pool and cannot get in, however empty it is.
func (s *Scheduler) fits(j *job) bool {
	if s.unread != nil && j.sets != nil && j.sets.o.Removal != nil {
		s.end(j, nil, s.unread)
		return false
	}
	need, have := j.fewest()+j.spare(), j.within(s.opts.Cells)
	if need > have {
		s.end(j, nil, &infer.PoolError{Need: need, Have: have})
	}
	return need <= have
}

// ready reports whether any job can do a step, or the pools can be divided anew.
func (s *Scheduler) ready() bool {
	return s.due() || slices.ContainsFunc(s.jobs, s.canStep)
}

// canStep reports whether a job has, or can get, a seat and has room in its lease.
func (s *Scheduler) canStep(j *job) bool {
	if j.seat == nil {
		return j.granted() && (s.target == nil && s.poolFor(j) != nil || s.misfit(j))
	}
	return j.goesOn() || j.stuck()
}

// dropCancelled ends the jobs whose context is done.
func (s *Scheduler) dropCancelled() {
	for _, j := range slices.Clone(s.jobs) {
		if err := j.ctx.Err(); err != nil {
			s.end(j, nil, err)
		}
	}
}

// step decodes one batch in each pool and chooses a token for every job with an output.
func (s *Scheduler) step() error {
	began := time.Now()
	if err := s.admit(began); err != nil {
		return err
	}
	for _, j := range s.jobs {
		j.index = -1
		j.sets.begin()
	}
	var decoding time.Duration
	decoded := false
	for _, p := range s.pools {
		n, err := p.fill()
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		decoded = true
		s.logStep(p)
		start := time.Now()
		if err := p.decode(); err != nil {
			return fmt.Errorf("run a step with %d jobs: %w", len(s.jobs), err)
		}
		decoding += time.Since(start)
		if err := s.take(p); err != nil {
			return err
		}
	}
	if err := s.pick(); err != nil {
		return err
	}
	if decoded {
		s.steps.add(decoding, time.Since(began)-decoding)
	}
	return nil
}

// take takes what a pool has just decoded.
func (s *Scheduler) take(p *pool) error {
	if p.vectors {
		return s.collect(p)
	}
	if err := s.readAttention(p); err != nil {
		return err
	}
	return p.settle()
}

// leave ends a job at a step, with what it came to or with what is wrong with it. It
// returns an error if the context is at fault.
func (s *Scheduler) leave(j *job, out *infer.Output, err error) error {
	s.end(j, out, err)
	return s.fault
}

// end ends a job and frees its seat.
func (s *Scheduler) end(j *job, out *infer.Output, err error) {
	s.jobs = slices.DeleteFunc(s.jobs, func(o *job) bool { return o == j })
	s.note(j)
	if j.seat != nil && s.fault == nil {
		s.fault = j.pool.vacate(j)
		err = errors.Join(err, s.fault)
	}
	j.free()
	if j.timeout != nil {
		j.timeout.Stop()
	}
	j.done <- outcome{out, err}
}

// logStep says what a pool is about to decode.
func (s *Scheduler) logStep(p *pool) {
	entry := s.log.Check(zap.DebugLevel, "step")
	if entry == nil {
		return
	}
	running, decode, cells := 0, 0, 0
	for _, j := range s.jobs {
		if j.pool != p {
			continue
		}
		running++
		cells += j.cells
		if j.index >= 0 && j.made > 0 {
			decode += j.seat.take
		}
	}
	kv := s.cache / budget.Bytes(s.opts.Cells) * budget.Bytes(cells)
	entry.Write(zap.Int("jobs", len(s.jobs)), zap.Int("running", running), zap.Int("streams", p.streams),
		zap.Int("prefill_tokens", p.ctx.Options().Batch-p.ctx.Room()-decode), zap.Int("decode_tokens", decode),
		zap.Int("cells_used", cells), zap.Int64("kv_used_bytes", int64(kv)), zap.Int("sequences_free", len(p.seats)-running))
}
