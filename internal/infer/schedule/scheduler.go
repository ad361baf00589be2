package schedule

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"tempo/internal/infer"
	"tempo/internal/infer/llama"
)

// Scheduler runs jobs over one llama context.
type Scheduler struct {
	model *llama.Model
	ctx   *llama.Context

	inbox chan func()   // run by Run between two steps
	ended chan struct{} // closed when Run returns

	// What follows belongs to the goroutine of Run.
	jobs []*job // in order of arrival
	free []int  // sequences that no job has, ascending
}

// New makes a scheduler; Run must be called for jobs to make progress.
func New(model *llama.Model, ctx *llama.Context) *Scheduler {
	s := &Scheduler{
		model: model,
		ctx:   ctx,
		inbox: make(chan func()),
		ended: make(chan struct{}),
	}
	for seq := range ctx.Options().Sequences {
		s.free = append(s.free, seq)
	}
	return s
}

// Submit runs one job whose prompt is already tokenized, and returns when it has
// ended. limit is the most tokens that prompt and output may have together. The
// job's lease is not asked for anything any more when Submit has returned.
func (s *Scheduler) Submit(ctx context.Context, req infer.Request, prompt []llama.Token, limit int) (*infer.Output, error) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{
		req: req, ctx: ctx,
		prompt: prompt, longest: limit, seq: -1, index: -1,
		leased: req.Lease.Tokens(),
		out:    newText(req.Job.Stop),
		done:   make(chan outcome, 1),
	}
	if n := req.Job.MaxTokens; n > 0 {
		j.longest = min(limit, len(prompt)+n)
	}
	defer j.asks.Wait()
	defer cancel()
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
	return nil
}

// receive does what others have told it, and waits for that where no job can do
// a step. It returns false when ctx is done.
func (s *Scheduler) receive(ctx context.Context) bool {
	for ctx.Err() == nil {
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
	s.ask(j)
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
		return !j.asking && len(s.free) > 0 && j.leased >= min(len(j.prompt)+1, j.longest)
	}
	return j.room() > 0
}

// ask asks for the memory that the job wants, if it is not asking already.
func (s *Scheduler) ask(j *job) {
	want := j.want()
	if j.asking || want == j.leased {
		return
	}
	j.asking = true
	used := j.cells
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
	}
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
	s.join(now)
	if err := s.fill(); err != nil {
		return err
	}
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
func (s *Scheduler) join(now time.Time) {
	for _, j := range s.jobs {
		if j.seq >= 0 || !s.canStep(j) {
			continue
		}
		j.seq, s.free = s.free[0], s.free[1:]
		j.started = now
	}
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
	if j.seq >= 0 {
		err = errors.Join(err, s.ctx.Forget(j.seq))
		at, _ := slices.BinarySearch(s.free, j.seq)
		s.free = slices.Insert(s.free, at, j.seq)
	}
	if j.sampler != nil {
		j.sampler.Close()
	}
	j.done <- outcome{out, err}
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
