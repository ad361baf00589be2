package worker

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// job is a fetched job until it has its verdict.
type job struct {
	delivery *queue.Delivery
	ctx      context.Context //nolint:containedctx // the job's own; its cause says why it was ended
	end      context.CancelCauseFunc
	unwatch  func() bool   // see watchBatch
	left     chan struct{} // closed when the job has given its memory back
	lease    *jobLease
	buffers  *budget.Lease // host memory for the request and the result
	most     int           // tokens that its sets may have together, 0 = it has none
	suspect  bool          // an engine or a worker has died with it
	grave    *grave        // nil = it was not given up
	parallel *api.Parallel // what its request says, once that is read; guarded by Worker.mu
}

// poison is how many engines or workers may die with a job before it is buried. From the first
// on it runs alone.
const poison = 2

// grave is why a job is given up, and the attempt that was the last; nil = it was not tried
// again.
type grave struct {
	reason api.Error
	last   *api.Attempt
}

// admit notes a fetched job as running.
func (w *Worker) admit(ctx context.Context, d *queue.Delivery, t ticket) *job {
	j := &job{delivery: d, left: make(chan struct{}), buffers: t.buffers}
	j.lease = &jobLease{worker: w, job: j, reclaim: make(chan struct{}, 1), current: t.kv, peak: t.kv.Size()}
	j.lease.first = j.lease.Tokens()
	j.ctx, j.end = context.WithCancelCause(ctx)
	j.suspect = crashes(d) > 0
	j.unwatch = j.watchBatch() //nolint:contextcheck // the batch's life, not the caller's
	w.mu.Lock()
	w.running = append(w.running, j)
	begins := !w.busy
	w.busy, w.lastJob = true, time.Now()
	if begins {
		w.workSince = w.lastJob
	}
	w.mu.Unlock()
	if begins {
		w.logMemory("before generation")
	}
	return j
}

// watchBatch ends the job when its batch ends, until stop is called.
func (j *job) watchBatch() (stop func() bool) {
	life := j.delivery.Life()
	return context.AfterFunc(life, func() {
		ended := errBatchOver
		if early, ok := errors.AsType[*queue.EndedError](context.Cause(life)); ok {
			ended = early
		}
		j.end(ended)
	})
}

// leave gives the job's place on the device and its slot back; its result may
// still be on its way. It returns the most memory that the job has held.
func (w *Worker) leave(j *job) budget.Bytes {
	peak := j.lease.close()
	w.mu.Lock()
	w.running = slices.DeleteFunc(w.running, func(o *job) bool { return o == j })
	w.lastJob = time.Now()
	w.mu.Unlock()
	close(j.left)
	w.slots.end()
	return peak
}

// process brings a job to its verdict. It returns an error only if the worker
// cannot go on.
func (w *Worker) process(work context.Context, j *job) error {
	log := w.log.With(zap.String("batch", j.delivery.Job.Batch), zap.String("job", j.delivery.Job.ID))
	defer j.unwatch()
	result, err := w.run(j)
	peak := w.leave(j)
	defer j.buffers.Release()
	j.end(nil)
	ctx, cancel := verdictContext(work)
	defer cancel()
	switch {
	case err == nil:
		if result.Tempo != nil {
			result.Tempo.LeaseBytes = int64(peak)
		}
		w.complete(ctx, j, result, log)
	case errors.Is(err, errAlreadyDone), errors.Is(err, errBatchOver) && w.done(ctx, j):
		w.complete(ctx, j, nil, log)
	case asEnded(err) != nil:
		if err := j.delivery.Refuse(ctx, asEnded(err)); err != nil {
			log.Warn("a job of a batch that has ended is not off the queue yet", zap.Error(err))
		}
	default:
		w.giveBack(ctx, j, err, log)
		if _, ok := errors.AsType[*infer.StartError](err); ok {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fatal = err
			return err
		}
	}
	return nil
}

// errBatchOver says that all is done for a job's batch, as far as is known.
var errBatchOver = errors.New("the batch has ended")

// done reports whether a job is known to have its result.
func (w *Worker) done(ctx context.Context, j *job) bool {
	done, err := w.queue.HasResult(ctx, j.delivery.Job.Batch, j.delivery.Job.ID)
	return err == nil && done
}

// asEnded is the error that a batch has ended before its jobs were done, nil if err is another.
func asEnded(err error) *queue.EndedError {
	ended, _ := errors.AsType[*queue.EndedError](err)
	return ended
}

// verdictContext outlives work by verdictGrace: a result that was made is stored
// even while the worker stops, but a queue that is gone does not keep it for ever.
func verdictContext(work context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(work))
	stop := context.AfterFunc(work, func() { time.AfterFunc(verdictGrace, cancel) })
	return ctx, func() { stop(); cancel() }
}

const verdictGrace = 5 * time.Second

// errAlreadyDone says that the job has its result from an earlier delivery.
var errAlreadyDone = errors.New("the job is done already")

// run answers a job. A non-nil error means that the job has no result here.
func (w *Worker) run(j *job) (*api.Result, error) {
	d := j.delivery
	done, err := w.queue.HasResult(j.ctx, d.Job.Batch, d.Job.ID)
	switch {
	case err != nil && j.ctx.Err() != nil:
		return nil, context.Cause(j.ctx) //nolint:wrapcheck // one of this package
	case err != nil:
		return nil, err
	case done:
		return nil, errAlreadyDone
	case crashes(d) >= poison:
		return w.bury(j, &poisonError{attempts: d.Attempts()}, nil), nil
	case d.Attempt > w.opts.MaxAttempts:
		return w.bury(j, &attemptsError{tried: d.Attempt - 1}, nil), nil
	case d.Job.Model != "" && d.Job.Model != w.opts.Model:
		return w.notServed(j), nil
	}
	request, err := api.ParseRequest(d.Job.URL, d.Job.Body)
	if err != nil {
		return w.failure(j, err), nil
	}
	w.mu.Lock()
	j.parallel = request.Parallel
	w.mu.Unlock()
	if err := w.leaseBuffers(j, request); errors.Is(err, errNoBuffers) {
		return nil, err
	} else if err != nil {
		return w.failure(j, err), nil
	}
	out, err := w.generate(j, request)
	err = w.noMemory(err)
	if cause := context.Cause(j.ctx); cause != nil && err != nil {
		return nil, cause //nolint:wrapcheck // one of this package
	}
	var died *infer.DiedError
	var start *infer.StartError
	var shrunk *shrunkError
	switch {
	case err == nil:
		w.tokens.Add(int64(out.CompletionTokens))
		d.Served(out.PromptTokens + out.CompletionTokens)
		w.learn(j.lease.needed(out))
		return w.success(j, request, out), nil
	case errors.As(err, &died) && !died.Reshaping:
		return w.crashed(j, err)
	case errors.As(err, &died), errors.As(err, &start), errors.As(err, &shrunk), errors.Is(err, infer.ErrStopped), errors.Is(err, errPreempted), errors.Is(err, errNotNoted):
		return nil, err
	default:
		return w.failure(j, err), nil
	}
}

// errNotNoted says that the queue did not take down that a job begins: it is given back.
var errNotNoted = errors.New("note that the job begins")

// crashes is how many engines or workers have died with a job.
func crashes(d *queue.Delivery) (n int) {
	for _, a := range d.Attempts() {
		if a.Crash {
			n++
		}
	}
	return n
}

// crashError says that an engine died with the job, which is tried again.
type crashError struct {
	api.Attempt
	err error
}

func (e *crashError) Error() string { return e.err.Error() }

func (e *crashError) Unwrap() error { return e.err }

// crashed deals with a job that was in an engine that died.
func (w *Worker) crashed(j *job, err error) (*api.Result, error) {
	attempt := api.Attempt{Worker: w.opts.Name, Time: time.Now().UTC(), Error: err.Error(), Crash: true}
	if crashes(j.delivery)+1 >= poison {
		return w.bury(j, err, &attempt), nil
	}
	return nil, &crashError{attempt, err}
}

// bury makes the result of a job that is given up, and notes that it is.
func (w *Worker) bury(j *job, err error, last *api.Attempt) *api.Result {
	_, detail := describe(err)
	j.grave = &grave{reason: api.Error{Message: detail.Message}, last: last}
	if detail.Code != nil {
		j.grave.reason.Code = *detail.Code
	}
	return w.failure(j, err)
}

// generate runs the job in the engine; alone, if an engine or a worker has died with it.
func (w *Worker) generate(j *job, request *api.Request) (*infer.Output, error) {
	leave, err := w.enter(j)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := j.delivery.Begin(j.ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotNoted, err)
	}
	return w.engine.Generate(j.ctx, infer.Request{
		ID:    j.delivery.Job.Batch + "." + j.delivery.Job.ID,
		Job:   request,
		Seed:  seed(j.delivery.Job),
		Lease: j.lease,
		Most:  j.most,

		Priority: urgency(j.delivery.Job.Priority),
	})
}

// urgency is a priority as a number, the most urgent the highest.
func urgency(p api.Priority) int {
	switch p {
	case api.High:
		return 1
	case api.Low:
		return -1
	default:
		return 0
	}
}

// everybody is more than the jobs that can be in an engine.
const everybody = 1 << 20

// enter waits until the job may be in the engine, and returns what must be
// called when it has left. A job that waits holds no memory, since the one that
// must be alone could need it.
func (w *Worker) enter(j *job) (leave func(), err error) {
	weight := int64(1)
	if j.suspect {
		weight = everybody
	}
	leave = func() { w.alone.Release(weight) }
	if !j.suspect && w.alone.TryAcquire(weight) {
		return leave, nil
	}
	j.lease.put(nil) // the engine asks for what it needs
	if err := w.alone.Acquire(j.ctx, weight); err != nil {
		return nil, fmt.Errorf("wait for the engine: %w", err)
	}
	return leave, nil
}

// seed is what a job's sampling starts from if it names no seed: the same for
// every attempt, so that a second one repeats the first.
func seed(j api.Job) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(j.Batch + "." + j.ID)) // a hash takes everything
	return h.Sum32()
}

// complete stores a result (nil: there is one already) and acks the job.
func (w *Worker) complete(ctx context.Context, j *job, result *api.Result, log *zap.Logger) {
	err := w.store(ctx, j, result)
	if err != nil {
		log.Error("a result could not be stored; the job will be delivered again", zap.Error(err))
		return
	}
	if result != nil {
		log.Debug("job done", zap.Bool("ok", result.OK()), zap.Duration("since_published", time.Since(j.delivery.Published)))
	}
}

// store stores a result, and a job that was given up as a dead letter.
func (w *Worker) store(ctx context.Context, j *job, result *api.Result) error {
	if g := j.grave; g != nil {
		return j.delivery.Bury(ctx, g.reason, g.last, result)
	}
	return j.delivery.Complete(ctx, result)
}

// giveBack returns the job to the queue.
func (w *Worker) giveBack(ctx context.Context, j *job, why error, log *zap.Logger) {
	delay := retryDelay(why, j.delivery.Attempt)
	log.Info("job given back to the queue", zap.NamedError("reason", why), zap.Duration("delay", delay))
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := error(nil)
	if crash, ok := errors.AsType[*crashError](why); ok {
		err = j.delivery.Fail(ctx, crash.Attempt, delay)
	} else {
		err = j.delivery.GiveBack(ctx, delay)
	}
	if err != nil {
		log.Warn("a job could not be given back; it will be delivered again", zap.Error(err))
	}
}

// retryDelay is how long a job that is given back stays in the queue. Another
// worker may have it at once if this one is stopping or short of memory; after an
// error the next try would meet the same one.
func retryDelay(why error, attempt int) time.Duration {
	_, gone := errors.AsType[*infer.StartError](why)
	_, crash := errors.AsType[*crashError](why)
	if gone || crash || errors.Is(why, errDrained) || errors.Is(why, errPreempted) || errors.Is(why, infer.ErrStopped) {
		return 0
	}
	if _, shrunk := errors.AsType[*shrunkError](why); shrunk {
		return shrunkDelay
	}
	d := min(time.Second<<min(attempt-1, 5), 30*time.Second)
	return d + rand.N(d/2) // many must not come back at once
}

// shrunkDelay gives others, or this worker's pool, time to have room again.
const shrunkDelay = 5 * time.Second
