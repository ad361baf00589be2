package worker

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// gate is a queue that has the worker wait before it looks for a result.
type gate struct {
	Queue
	asked, open chan struct{}
}

func (g *gate) HasResult(ctx context.Context, batch, job string) (bool, error) {
	g.asked <- struct{}{}
	<-g.open
	return g.Queue.HasResult(ctx, batch, job)
}

func TestDoneJobIsNotRunAgain(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	send(t, c, "b", "hello")
	// Another worker has the job and gives no sign of life, so that it is delivered
	// again; but it lives, and its result comes just before ours.
	const ackWait = 200 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	other := c.NewTaker(queue.TakerOptions{Worker: "other", Models: []string{model}, AckWait: ackWait}, nil)
	ended := make(chan error, 1)
	go func() { ended <- other.Run(ctx) }()
	slow, err := other.Fetch(ctx, 1)
	require.NoError(t, err)
	stop()
	require.NoError(t, <-ended)

	engine := &script{}
	w := newWorker(t, c, engine, nil)
	w.taker.Taker = c.NewTaker(queue.TakerOptions{Worker: "w", Models: []string{model}, AckWait: ackWait}, nil)
	g := &gate{Queue: c, asked: make(chan struct{}), open: make(chan struct{})}
	w.queue = g
	w.run(t)
	<-g.asked
	require.NoError(t, slow[0].Complete(t.Context(), &api.Result{
		ID: "r", CustomID: "custom-0", Tempo: &api.Tempo{Worker: "other"},
		Response: &api.Response{StatusCode: 200, RequestID: "r", Body: json.RawMessage(`{}`)},
	}))
	close(g.open)
	require.Equal(t, "other", results(t, c, "b", 1)["custom-0"].Tempo.Worker)
	require.NoError(t, w.stop())
	require.Zero(t, engine.ran("hello"))
}

func TestEngineDies(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	var die sync.Once
	dead := make(chan struct{})
	engine := &script{}
	engine.act = func(ctx context.Context, _ infer.Request, _ string) error {
		select {
		case <-dead: // the new engine
			return nil
		default:
		}
		if n, _ := engine.now(); n == 4 {
			die.Do(func() { close(dead) })
		}
		select {
		case <-dead:
			return &infer.DiedError{Reason: "signal: killed"}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(12)...)
	attempts := map[int]int{}
	for _, r := range results(t, c, "b", 12) {
		require.True(t, r.OK())
		attempts[r.Tempo.Attempt]++
	}
	require.Equal(t, map[int]int{1: 8, 2: 4}, attempts)
	require.False(t, engine.crowded, "a job that was in a dying engine did not run alone")
}

func TestJobThatKillsTwiceIsBuried(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{act: func(_ context.Context, _ infer.Request, prompt string) error {
		if prompt == "prompt 3" {
			return &infer.DiedError{Reason: "signal: aborted; it last wrote: GGML_ASSERT"}
		}
		return nil
	}}
	newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(8)...)
	for id, r := range results(t, c, "b", 8) {
		if id != "custom-3" {
			requireAnswered(t, r, 1)
			continue
		}
		e := requireFailed(t, r, 500)
		require.Equal(t, "engine_crashed", *e.Code)
		require.Contains(t, e.Message, "GGML_ASSERT")
		require.Equal(t, 2, r.Tempo.Attempt)
	}
	require.Equal(t, 2, engine.ran("prompt 3"))
	require.False(t, engine.crowded, "the job did not run alone")
}

// newJob is a job in the worker that no queue knows.
func newJob(t *testing.T, w *Worker, id string, tokens int64) *job {
	t.Helper()
	lease, ok := w.ledger.TryAcquire(w.pool.perCell.Mul(tokens))
	require.True(t, ok)
	buffers, ok := w.host.TryAcquire(ticketBuffers)
	require.True(t, ok)
	require.True(t, w.slots.tryEnter())
	return w.admit(t.Context(), &queue.Delivery{Job: api.Job{ID: id, Batch: "b"}, Attempt: 1}, ticket{lease, buffers})
}

func TestEnter(t *testing.T) {
	t.Parallel()
	w := newWorker(t, newQueue(t), &script{}, nil)
	a, b := newJob(t, w.Worker, "a", 100), newJob(t, w.Worker, "b", 100)
	leaveA, err := w.enter(a)
	require.NoError(t, err)
	leaveB, err := w.enter(b)
	require.NoError(t, err, "two healthy jobs run together")
	leaveB()

	b.suspect = true
	entered := make(chan error, 1)
	go func() {
		var err error
		leaveB, err = w.enter(b)
		entered <- err
	}()
	require.Eventually(t, func() bool { return b.lease.Tokens() == 0 }, time.Second, time.Millisecond, "it holds nothing while it waits")
	require.Eventually(t, func() bool { // now it waits
		free := w.alone.TryAcquire(1)
		if free {
			w.alone.Release(1)
		}
		return !free
	}, time.Second, time.Millisecond)
	leaveA()
	require.NoError(t, <-entered)
	require.Zero(t, b.lease.Tokens(), "the engine asks for what it needs")

	// Whoever waits for it to leave can be ended.
	go func() {
		_, err := w.enter(a)
		entered <- err
	}()
	require.Eventually(t, func() bool { return a.lease.Tokens() == 0 }, time.Second, time.Millisecond)
	a.end(errPreempted)
	require.ErrorIs(t, <-entered, context.Canceled)
	leaveB()
	finish(w.Worker, a)
	finish(w.Worker, b)
	w.requireEmpty(t)
}

// lookups is a queue in which looking for a result fails for the first n times.
type lookups struct {
	Queue
	fail atomic.Int64
}

func (l *lookups) HasResult(ctx context.Context, batch, job string) (bool, error) {
	if l.fail.Add(-1) >= 0 {
		return false, errors.New("no answer")
	}
	return l.Queue.HasResult(ctx, batch, job)
}

// TestFailedLookup: a job that cannot be looked up is not tried again at once.
func TestFailedLookup(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	engine := &script{}
	w := newWorker(t, c, engine, nil)
	l := &lookups{Queue: c}
	l.fail.Store(1)
	w.queue = l
	w.run(t)
	began := time.Now()
	send(t, c, "b", "hello")
	requireAnswered(t, results(t, c, "b", 1)["custom-0"], 1)
	require.GreaterOrEqual(t, time.Since(began), time.Second)
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	failed := errors.New("no answer")
	for _, c := range []struct {
		why     error
		attempt int
		want    time.Duration
	}{
		{errDrained, 3, 0},
		{errPreempted, 3, 0},
		{infer.ErrStopped, 3, 0},
		{&infer.StartError{Err: failed}, 3, 0},
		{failed, 1, time.Second},
		{failed, 2, 2 * time.Second},
		{failed, 5, 16 * time.Second},
		{failed, 6, 30 * time.Second},
		{failed, 1000, 30 * time.Second},
	} {
		got := retryDelay(c.why, c.attempt)
		require.GreaterOrEqual(t, got, c.want, "%v at attempt %d", c.why, c.attempt)
		require.LessOrEqual(t, got, c.want*3/2, "%v at attempt %d", c.why, c.attempt)
	}
}

// TestTooManyAttempts: a job that was tried often enough ends.
func TestTooManyAttempts(t *testing.T) {
	t.Parallel()
	w := newWorker(t, newQueue(t), &script{}, func(o *Options) { o.MaxAttempts = 1 })
	for attempt, ok := range map[int]bool{1: true, 2: false} {
		j := newJob(t, w.Worker, "j", 100)
		j.delivery.Attempt = attempt
		j.delivery.Job.URL, j.delivery.Job.Body = api.ChatCompletions, json.RawMessage(`{"messages":[{"role":"user","content":"hello"}]}`)
		r, err := w.Worker.run(j)
		require.NoError(t, err)
		require.Equal(t, ok, r.OK())
		if !ok {
			e := requireFailed(t, *r, 500)
			require.Equal(t, "too_many_attempts", *e.Code)
			require.Contains(t, e.Message, "tried 1 times")
			require.NotEmpty(t, e.Hint)
		}
		finish(w.Worker, j)
	}
}

// TestWorkersThatVanish: a job with which two workers have vanished is given up, with all that
// is known of it; it ran alone before.
func TestWorkersThatVanish(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	send(t, c, "b", "hello")
	const ackWait = 300 * time.Millisecond
	for n := range poison {
		ctx, vanish := context.WithCancel(t.Context())
		taker := c.NewTaker(queue.TakerOptions{Models: []string{model}, AckWait: ackWait}, nil)
		ended := make(chan error)
		go func() { ended <- taker.Run(ctx) }()
		got, err := taker.Fetch(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, n, crashes(got[0]))
		require.NoError(t, got[0].Begin(ctx))
		vanish()
		require.NoError(t, <-ended)
	}
	engine := &script{}
	w := newWorker(t, c, engine, nil)
	w.taker.Taker = c.NewTaker(queue.TakerOptions{Worker: "w", Models: []string{model}, AckWait: ackWait}, nil)
	w.run(t)
	e := requireFailed(t, results(t, c, "b", 1)["custom-0"], 500)
	require.Equal(t, "engine_crashed", *e.Code)
	require.Contains(t, e.Message, "vanished")
	require.Zero(t, engine.ran("hello"))
	letters := 0
	require.NoError(t, c.DeadLetters(t.Context(), "b", func(l api.DeadLetter) error {
		letters++
		require.Len(t, l.Attempts, poison)
		return nil
	}))
	require.Equal(t, 1, letters)
}

// TestStoppedEngineIsNoAnswer: a job that meets an engine that was closed has no
// result; it goes back.
func TestStoppedEngineIsNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorker(t, newQueue(t), &script{act: func(context.Context, infer.Request, string) error { return infer.ErrStopped }}, nil)
	j := newJob(t, w.Worker, "j", 100)
	j.delivery.Job.URL, j.delivery.Job.Body = api.ChatCompletions, json.RawMessage(`{"messages":[{"role":"user","content":"hello"}]}`)
	_, err := w.Worker.run(j)
	require.ErrorIs(t, err, infer.ErrStopped)
	finish(w.Worker, j)
}

// finish has a job leave whose result is stored.
func finish(w *Worker, j *job) budget.Bytes {
	defer j.buffers.Release()
	return w.leave(j)
}

// TestCancelEndsRunningJobs: a batch that is cancelled has its running jobs stop, and each job has
// one result.
func TestCancelEndsRunningJobs(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	running := make(chan struct{}, 100)
	engine := &script{act: func(ctx context.Context, _ infer.Request, prompt string) error {
		if prompt == "prompt 0" {
			return nil
		}
		running <- struct{}{}
		<-ctx.Done() // it would take for ever
		return ctx.Err()
	}}
	newWorker(t, c, engine, nil).run(t)
	send(t, c, "b", prompts(50)...)
	<-running
	require.Eventually(t, func() bool {
		n, err := c.CountResults(t.Context(), "b")
		return err == nil && n == 1
	}, 10*time.Second, 5*time.Millisecond)
	_, err := c.Cancel(t.Context(), "b")
	require.NoError(t, err)
	for id, r := range results(t, c, "b", 50) {
		if id == "custom-0" {
			requireAnswered(t, r, 1)
			continue
		}
		require.Equal(t, queue.CodeCancelled, r.Error.Code)
	}
	require.Eventually(t, func() bool { n, _ := engine.now(); return n == 0 }, 10*time.Second, 5*time.Millisecond, "the device is free again")
}
