package schedule

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/infer/llama"
)

// Scheduler runs jobs over one llama context.
type Scheduler struct {
	model *llama.Model
	ctx   *llama.Context

	inbox chan func()   // run by Run between two steps
	ended chan struct{} // closed when Run returns
	log   *zap.Logger

	// What follows belongs to the goroutine of Run.
	jobs  []*job // in order of arrival
	free  []int  // sequences that no job has, ascending
	fault error  // the context is gone: Run ends
}

// New makes a scheduler; Run must be called for jobs to make progress. A nil log
// is silent.
func New(model *llama.Model, ctx *llama.Context, log *zap.Logger) *Scheduler {
	if log == nil {
		log = zap.NewNop()
	}
	s := &Scheduler{
		model: model,
		ctx:   ctx,
		inbox: make(chan func()),
		ended: make(chan struct{}),
		log:   log.Named("schedule"),
	}
	s.renumber()
	return s
}

// Submit runs one job whose prompt is already tokenized, and returns when it has
// ended. limit is the most tokens that prompt and output may have together; the pool
// bounds them too. The job's lease is not asked for anything any more when Submit
// has returned.
func (s *Scheduler) Submit(ctx context.Context, req infer.Request, prompt []llama.Token, limit int) (*infer.Output, error) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{
		req: req, ctx: ctx,
		prompt: prompt, limit: limit, seq: -1, index: -1,
		leased: req.Lease.Tokens(),
		out:    newText(req.Job.Stop),
		done:   make(chan outcome, 1),
	}
	if n := req.Job.MaxTokens; n > 0 {
		j.limit = min(limit, len(prompt)+n)
	}
	defer j.asks.Wait()
	defer cancel()
	if recall := req.Lease.Reclaim(); recall != nil {
		j.asks.Go(func() { s.watch(j, recall) })
	}
	if !s.tell(func() { s.arrive(j) }) {
		return nil, infer.ErrStopped
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
// infer.ErrStopped. It returns an error if the llama context broke; no job can
// run after that.
func (s *Scheduler) Run(ctx context.Context) error {
	runtime.LockOSThread() // llama.cpp's thread pools are bound to the caller's thread
	defer runtime.UnlockOSThread()
	defer func() {
		close(s.ended)
		for len(s.jobs) > 0 {
			s.leave(s.jobs[0], nil, infer.ErrStopped)
		}
	}()
	for s.receive(ctx) {
		if err := s.step(); err != nil {
			return err
		}
	}
	return s.fault
}

// receive does what others have told it, and waits for that where no job can do
// a step. It returns false when ctx is done or the context is gone.
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
	if pool := s.ctx.Options().Cells; s.fits(j) {
		j.longest = min(j.limit, pool)
		s.ask(j)
	}
}

// fits ends a job that is not in the pool and cannot get in, however empty it is.
func (s *Scheduler) fits(j *job) bool {
	need, have := max(len(j.prompt), j.cells)+1, s.ctx.Options().Cells
	if need > have {
		s.leave(j, nil, &infer.PoolError{Need: need, Have: have})
	}
	return need <= have
}

// ready reports whether any job can do a step.
func (s *Scheduler) ready() bool {
	return slices.ContainsFunc(s.jobs, s.canStep)
}

// canStep reports whether a job has, or can get, a sequence and has room in its
// lease. A prompt starts only when the lease holds it whole, and not while the
// job asks: with nothing in the pool it may lose what it has for as long.
func (s *Scheduler) canStep(j *job) bool {
	if j.seq < 0 {
		return !j.asking && len(s.free) > 0 && j.leased >= j.least()
	}
	return j.room() > 0
}

// ask asks for the memory that the job wants, if it is not asking already.
func (s *Scheduler) ask(j *job) {
	if want := j.want(s.ctx.Options().Cells); !j.asking && want != j.leased {
		s.request(j, want)
	}
}

// request asks for so many tokens in all.
func (s *Scheduler) request(j *job, want int) {
	j.asking = true
	used := j.cells
	if j.saved != nil {
		used = 0
	}
	j.asks.Go(func() {
		err := j.req.Lease.Resize(j.ctx, used, want)
		leased := j.req.Lease.Tokens()
		s.tell(func() { s.granted(j, leased, err) })
	})
}

// granted notes the answer to a request for memory.
func (s *Scheduler) granted(j *job, leased int, err error) {
	if !slices.Contains(s.jobs, j) {
		return // it ended in the meantime
	}
	j.asking, j.leased = false, leased
	if err != nil {
		s.leave(j, nil, err)
		return
	}
	s.giveUp(j)
}

// dropCancelled ends the jobs whose context is done.
func (s *Scheduler) dropCancelled() {
	for _, j := range slices.Clone(s.jobs) {
		if err := j.ctx.Err(); err != nil {
			s.leave(j, nil, err)
		}
	}
}

// step decodes one batch and chooses a token for every job with an output.
func (s *Scheduler) step() error {
	now := time.Now()
	if err := s.join(now); err != nil {
		return err
	}
	if err := s.fill(); err != nil {
		return err
	}
	s.logStep()
	if err := s.ctx.Decode(); err != nil {
		return fmt.Errorf("run a step with %d jobs: %w", len(s.jobs), err)
	}
	now = time.Now()
	for _, j := range slices.Clone(s.jobs) {
		if j.index >= 0 {
			if err := s.choose(j, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// join gives sequences to waiting jobs, the oldest first.
func (s *Scheduler) join(now time.Time) error {
	for _, j := range s.jobs {
		if j.seq >= 0 || !s.canStep(j) {
			continue
		}
		seq := s.free[0]
		if j.saved != nil {
			if err := s.restore(j, seq); err != nil {
				return err
			}
		}
		j.seq, s.free = seq, s.free[1:]
		if j.started.IsZero() {
			j.started = now
		}
	}
	return nil
}

// fill puts the next token of every decoding job into the batch, then pieces of
// prompts until it is full, the oldest job first.
func (s *Scheduler) fill() error {
	s.ctx.Clear()
	for _, j := range s.jobs {
		j.index = -1
		if j.seq < 0 || j.prefilling() || j.room() == 0 || s.ctx.Room() == 0 {
			continue
		}
		if err := s.add(j, j.next, true); err != nil {
			return err
		}
	}
	for _, j := range s.jobs {
		if j.seq < 0 || j.index >= 0 {
			continue
		}
		for j.prefilling() && s.ctx.Room() > 0 && j.room() > 0 {
			if err := s.add(j, j.prompt[j.cells], j.cells == len(j.prompt)-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// add puts one token of a job into the batch.
func (s *Scheduler) add(j *job, t llama.Token, output bool) error {
	i, err := s.ctx.Add(t, j.cells, j.seq, output)
	if err != nil {
		return err
	}
	if output {
		j.index = i
	}
	j.cells++
	return nil
}

// choose takes a job's next token from the step's output, and ends the job if it
// was the last.
func (s *Scheduler) choose(j *job, now time.Time) error {
	if j.sampler == nil {
		sampler, err := s.ctx.NewSampler(samplerOptions(j.req))
		if err != nil {
			return err
		}
		j.sampler = sampler
		j.first = now
	}
	t, err := j.sampler.Sample(j.index)
	if err != nil {
		return err
	}
	j.made++
	switch {
	case s.model.Ends(t), j.out.add(s.model.Piece(t)):
		s.leave(j, j.output("stop", now), nil)
	case len(j.prompt)+j.made >= j.longest:
		s.leave(j, j.output("length", now), nil)
	default:
		j.next = t
		s.ask(j)
	}
	return nil
}

// leave ends a job and gives its sequence back.
func (s *Scheduler) leave(j *job, out *infer.Output, err error) {
	s.jobs = slices.DeleteFunc(s.jobs, func(o *job) bool { return o == j })
	if j.seq >= 0 && s.fault == nil {
		err = errors.Join(err, s.vacate(j))
	}
	if j.saved != nil {
		j.saved.Free()
	}
	if j.sampler != nil {
		j.sampler.Close()
	}
	j.done <- outcome{out, err}
}

// vacate takes a job out of the pool.
func (s *Scheduler) vacate(j *job) error {
	at, _ := slices.BinarySearch(s.free, j.seq)
	s.free = slices.Insert(s.free, at, j.seq)
	seq := j.seq
	j.seq = -1
	return s.ctx.Forget(seq)
}

// logStep says what is about to be decoded.
func (s *Scheduler) logStep() {
	entry := s.log.Check(zap.DebugLevel, "step")
	if entry == nil {
		return
	}
	running, decode, cells := 0, 0, 0
	for _, j := range s.jobs {
		if j.seq >= 0 {
			running++
			cells += j.cells
		}
		if j.index >= 0 && j.made > 0 {
			decode++
		}
	}
	kv := s.ctx.Cache() / budget.Bytes(s.ctx.Options().Cells) * budget.Bytes(cells)
	entry.Write(zap.Int("jobs", len(s.jobs)), zap.Int("running", running),
		zap.Int("prefill_tokens", s.ctx.Options().Batch-s.ctx.Room()-decode), zap.Int("decode_tokens", decode),
		zap.Int("cells_used", cells), zap.Int64("kv_used_bytes", int64(kv)), zap.Int("sequences_free", len(s.free)))
}

func samplerOptions(req infer.Request) llama.SamplerOptions {
	s := req.Job.Sampling
	seed := req.Seed
	if s.Seed != nil {
		seed = *s.Seed
	}
	return llama.SamplerOptions{
		Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, MinP: s.MinP,
		RepeatPenalty: s.RepeatPenalty, FrequencyPenalty: s.FrequencyPenalty, PresencePenalty: s.PresencePenalty,
		Seed: seed,
	}
}
