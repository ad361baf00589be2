package infertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/infer"
)

// shape is what Test loads. A job can use the whole pool.
func shape() infer.Shape { return infer.Shape{Sequences: 4, Cells: 512} }

// prompt is how long anything may take that should be prompt; generous, since
// the machine may be busy.
const prompt = 5 * time.Second

// Test runs the conformance suite. open makes an engine that is not yet open and
// has it closed at the end of the test it is given; its jobs must take more than
// no time. The longest job must be of 1024 to 4999 tokens.
func Test(t *testing.T, open func(t *testing.T) infer.Engine, spec infer.Spec) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"facts", facts},
		{"footprint", footprint},
		{"order of calls", order},
		{"lengths", lengths},
		{"chat", chat},
		{"lease", lease},
		{"refused lease", refusedLease},
		{"bad requests", badRequests},
		{"more than the pool", moreThanThePool},
		{"reshape", reshape},
		{"reshape refused", reshapeRefused},
		{"reshape at any time", reshapeAnyTime},
		{"unload", unload},
		{"narrow", narrow},
		{"reclaim", reclaim},
		{"reclaim frees the pool", reclaimFrees},
		{"reclaim refused", reclaimRefused},
		{"cancel", cancel},
		{"cancel before", cancelBefore},
		{"many at once", manyAtOnce},
		{"the same job twice", twice},
		{"greedy repeats itself", repeats},
		{"close", closes},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, &suite{Engine: open(t), spec: spec})
		})
	}
}

type suite struct {
	infer.Engine
	spec infer.Spec
}

// load opens and loads.
func (s *suite) load(t *testing.T) {
	t.Helper()
	_, err := s.Open(t.Context(), s.spec)
	require.NoError(t, err)
	_, err = s.Load(t.Context(), shape())
	require.NoError(t, err)
}

// complete makes a request for a greedy completion.
func complete(id, prompt string, maxTokens int, l infer.Lease) infer.Request {
	return infer.Request{
		ID: id, Lease: l,
		Job: &api.Request{URL: api.Completions, Prompt: prompt, MaxTokens: maxTokens},
	}
}

// check runs a job with a prompt of n words and looks at its result.
func (s *suite) check(ctx context.Context, id string, n, maxTokens int) error {
	l := NewLease(0)
	out, err := s.Generate(ctx, complete(id, Words(n), maxTokens, l))
	if err != nil {
		return fmt.Errorf("job %s: %w", id, err)
	}
	switch {
	case out.PromptTokens != n:
		return fmt.Errorf("job %s: %d tokens in the prompt, want %d", id, out.PromptTokens, n)
	case out.CompletionTokens < 1 || out.CompletionTokens > maxTokens:
		return fmt.Errorf("job %s: %d tokens generated, want 1 to %d", id, out.CompletionTokens, maxTokens)
	case out.Choices[0].FinishReason != "stop" && out.Choices[0].FinishReason != "length":
		return fmt.Errorf("job %s: finish reason %q", id, out.Choices[0].FinishReason)
	case out.Choices[0].FinishReason == "length" && out.CompletionTokens != maxTokens && n+out.CompletionTokens != shape().Cells:
		return fmt.Errorf("job %s: ended for its length after %d tokens of %d", id, out.CompletionTokens, maxTokens)
	case n+out.CompletionTokens-1 > l.Tokens(): // the last token never gets into the pool
		return fmt.Errorf("job %s: used %d tokens of a lease of %d", id, n+out.CompletionTokens-1, l.Tokens())
	case out.Started.IsZero() || out.Prefill < 0 || out.Decode < 0:
		return fmt.Errorf("job %s: times %v, %v, %v", id, out.Started, out.Prefill, out.Decode)
	}
	for _, c := range l.Calls() {
		if c.Used > c.Before || c.Asked < c.Used || c.Asked > shape().Cells {
			return fmt.Errorf("job %s: asked for memory out of order: %+v", id, c)
		}
	}
	return nil
}

func facts(t *testing.T, s *suite) {
	f, err := s.Open(t.Context(), s.spec)
	require.NoError(t, err)
	require.GreaterOrEqual(t, f.Context, shape().Cells)
	require.Positive(t, f.Vocabulary)
	require.GreaterOrEqual(t, int64(f.Weights), int64(0))
	require.GreaterOrEqual(t, int64(f.Process), int64(0))
}

func footprint(t *testing.T, s *suite) {
	_, err := s.Open(t.Context(), s.spec)
	require.NoError(t, err)
	dry, err := s.DryRun(t.Context(), shape())
	require.NoError(t, err)
	require.Positive(t, int64(dry.KVCache))

	twice := shape()
	twice.Cells *= 2
	cells, err := s.DryRun(t.Context(), twice)
	require.NoError(t, err)
	const rounding = 1.5 * (1 << 20) / 100 // llama.cpp tells MiB with two decimals
	require.InDelta(t, 2*float64(dry.KVCache), float64(cells.KVCache), 0.02*float64(cells.KVCache)+rounding)
	more := shape()
	more.Sequences *= 16
	sequences, err := s.DryRun(t.Context(), more)
	require.NoError(t, err)
	require.GreaterOrEqual(t, int64(sequences.Total()), int64(dry.Total()))

	loaded, err := s.Load(t.Context(), shape())
	require.NoError(t, err)
	require.InEpsilon(t, float64(loaded.KVCache), float64(dry.KVCache), 0.02)
	require.InDelta(t, float64(loaded.ParallelBatch), float64(dry.ParallelBatch), 0.1*float64(loaded.ParallelBatch))
	require.InDelta(t, float64(loaded.Weights), float64(dry.Weights), 0.1*float64(loaded.Weights))
}

func order(t *testing.T, s *suite) {
	ctx, stop := context.WithTimeout(t.Context(), prompt)
	defer stop()
	_, err := s.DryRun(ctx, shape())
	require.Error(t, err, "a dry run before Open")
	_, err = s.Load(ctx, shape())
	require.Error(t, err, "Load before Open")
	require.Error(t, s.check(ctx, "early", 1, 1), "Generate before Open")
	_, err = s.Open(ctx, s.spec)
	require.NoError(t, err)
	require.Error(t, s.check(ctx, "early", 1, 1), "Generate before Load")
	require.NoError(t, ctx.Err(), "an error at once, not a wait")
	_, err = s.Load(t.Context(), shape())
	require.NoError(t, err)
	require.NoError(t, s.check(t.Context(), "then", 1, 1))
}

func lengths(t *testing.T, s *suite) {
	s.load(t)
	for _, c := range []struct{ prompt, maxTokens int }{
		{1, 1},
		{1, 20},
		{64, 3}, // a whole batch
		{65, 3},
		{200, 40},
		{510, 1},
		{511, 1}, // the longest prompt
		{511, 9}, // cut by the context
	} {
		require.NoError(t, s.check(t.Context(), fmt.Sprintf("%d+%d", c.prompt, c.maxTokens), c.prompt, c.maxTokens))
	}
	out, err := s.Generate(t.Context(), complete("no limit", Words(500), 0, NewLease(0)))
	require.NoError(t, err)
	require.LessOrEqual(t, out.CompletionTokens, 12)
}

func chat(t *testing.T, s *suite) {
	s.load(t)
	out, err := s.Generate(t.Context(), infer.Request{ID: "chat", Lease: NewLease(0), Job: &api.Request{
		URL: api.ChatCompletions, MaxTokens: 5,
		Messages: []api.Message{{Role: "system", Content: "Be kind."}, {Role: "user", Content: "Hello there"}},
	}})
	require.NoError(t, err)
	require.GreaterOrEqual(t, out.PromptTokens, 4)
	require.LessOrEqual(t, out.CompletionTokens, 5)
}

// lease has a job that starts with more than it wants, and one with less.
func lease(t *testing.T, s *suite) {
	s.load(t)
	for _, start := range []int{0, 1, 30, 31, 60, 512} {
		l := NewLease(start)
		out, err := s.Generate(t.Context(), complete(fmt.Sprint(start), Words(30), 30, l))
		require.NoError(t, err)
		require.LessOrEqual(t, 30+out.CompletionTokens-1, l.Tokens())
		for i, c := range l.Calls() {
			require.LessOrEqual(t, c.Used, c.Before, "call %d", i)
			require.LessOrEqual(t, c.Asked, 60, "call %d", i)
		}
	}
}

func refusedLease(t *testing.T, s *suite) {
	s.load(t)
	refused := errors.New("no memory today")
	l := NewLease(0)
	l.Grant = func(context.Context, int, int) error { return refused }
	_, err := s.Generate(t.Context(), complete("refused", Words(10), 10, l))
	require.ErrorIs(t, err, refused)
	require.NoError(t, s.check(t.Context(), "next", 10, 10))
}

func badRequests(t *testing.T, s *suite) {
	s.load(t)
	said := func(content string) *api.Request {
		return &api.Request{URL: api.ChatCompletions, Messages: []api.Message{{Role: "user", Content: content}}}
	}
	for _, c := range []struct {
		name  string
		job   *api.Request
		param string
	}{
		{"too long", &api.Request{URL: api.Completions, Prompt: Words(5000)}, "prompt"},
		{"empty", &api.Request{URL: api.Completions}, "prompt"},
		{"NUL", &api.Request{URL: api.Completions, Prompt: "a\x00b"}, "prompt"},
		{"chat too long", said(Words(5000)), "messages"},
		{"chat NUL", said("a\x00b"), "messages"},
	} {
		l := NewLease(0)
		_, err := s.Generate(t.Context(), infer.Request{ID: c.name, Job: c.job, Lease: l})
		var request *infer.RequestError
		require.ErrorAs(t, err, &request, c.name)
		require.Equal(t, c.param, request.Param, c.name)
		require.NotEmpty(t, request.Message, c.name)
		require.NotEmpty(t, request.Hint(), c.name)
		require.Empty(t, l.Calls(), "%s: no memory for a job that cannot run", c.name)
	}
	require.NoError(t, s.check(t.Context(), "next", 10, 10))
}

// cancel cancels jobs when they have just got their memory, and others while
// they wait for it. Then the whole pool must be free.
func cancel(t *testing.T, s *suite) {
	s.load(t)
	began := time.Now()
	var g errgroup.Group
	for i := range 8 {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		l := NewLease(0)
		l.Grant = func(ctx context.Context, _, _ int) error {
			stop()
			if i%2 == 0 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		g.Go(func() error {
			_, err := s.Generate(ctx, complete(fmt.Sprint(i), Words(120), 300, l))
			if !errors.Is(err, context.Canceled) {
				return fmt.Errorf("job %d: got %w, want context.Canceled", i, err)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.Less(t, time.Since(began), prompt)
	require.NoError(t, s.check(t.Context(), "whole pool", 511, 1))
}

// slowLease gives a cancel time to overtake the job that it belongs to.
type slowLease struct{ *Lease }

func (l slowLease) Tokens() int {
	<-time.After(time.Millisecond)
	return l.Lease.Tokens()
}

// cancelBefore gives jobs whose context is done, or is just ending: such a
// cancel must not be lost on its way. The jobs have all the memory they want, so
// nothing else would tell them.
func cancelBefore(t *testing.T, s *suite) {
	s.load(t)
	for i := range 20 {
		ctx, stop := context.WithCancel(t.Context())
		if i%2 == 0 {
			stop()
		} else {
			go stop()
		}
		ended := make(chan error, 1)
		go func() {
			_, err := s.Generate(ctx, complete(fmt.Sprint(i), Words(100), 400, slowLease{NewLease(500)}))
			ended <- err
		}()
		select {
		case err := <-ended:
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(prompt):
			require.FailNow(t, "a job did not end though its context is done")
		}
	}
}

func manyAtOnce(t *testing.T, s *suite) {
	s.load(t)
	var g errgroup.Group
	for i := range 40 {
		g.Go(func() error { return s.check(t.Context(), fmt.Sprint(i), 1+i*2, 1+i%20) })
	}
	require.NoError(t, g.Wait())
}

// twice runs a job while it runs already, under the same ID: each run has its own
// lease and its own end. One of them is cancelled in the middle.
func twice(t *testing.T, s *suite) {
	s.load(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	doomed, stop := context.WithCancel(t.Context())
	defer stop()
	first := NewLease(0)
	first.Grant = func(ctx context.Context, _, _ int) error {
		close(arrived)
		<-ctx.Done()
		return ctx.Err()
	}
	second := NewLease(0)
	second.Grant = func(ctx context.Context, used, n int) error {
		if used == 0 {
			stop() // the first one
			<-goOn
		}
		return ctx.Err()
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Generate(doomed, complete("same", Words(10), 20, first))
		close(goOn)
		ended <- err
	}()
	<-arrived
	out, err := s.Generate(t.Context(), complete("same", Words(20), 20, second))
	require.NoError(t, err)
	require.Equal(t, 20, out.PromptTokens)
	require.NotEmpty(t, second.Calls())
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Zero(t, first.Tokens())
}

func repeats(t *testing.T, s *suite) {
	s.load(t)
	var texts []string
	for i := range 2 {
		out, err := s.Generate(t.Context(), complete(fmt.Sprint(i), "the same prompt", 20, NewLease(0)))
		require.NoError(t, err)
		texts = append(texts, out.Text())
	}
	require.Equal(t, texts[0], texts[1])
}

// closes has jobs that generate, that wait for memory, and that wait for a
// sequence when the engine is closed.
func closes(t *testing.T, s *suite) {
	s.load(t)
	arrived := make(chan struct{}, 8)
	var g errgroup.Group
	for i := range 8 {
		l := NewLease(0)
		l.Grant = func(ctx context.Context, _, _ int) error {
			arrived <- struct{}{}
			if i%2 == 0 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		g.Go(func() error {
			_, err := s.Generate(t.Context(), complete(fmt.Sprint(i), Words(100), 12, l))
			var died *infer.DiedError
			if i%2 == 0 && err == nil || errors.Is(err, infer.ErrStopped) || errors.As(err, &died) {
				return nil // the first ones may have been quick
			}
			return fmt.Errorf("job %d: %w", i, err)
		})
	}
	for range 8 {
		<-arrived
	}
	began := time.Now()
	require.NoError(t, s.Close())
	require.NoError(t, g.Wait())
	require.Less(t, time.Since(began), prompt)
	require.NoError(t, s.Close(), "again")
	require.Error(t, s.check(t.Context(), "late", 1, 1), "Generate after Close")
}
