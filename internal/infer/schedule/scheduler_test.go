package schedule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// soon is how long anything may take that must not hang; tick, how often one looks.
const (
	soon = 10 * time.Second
	tick = time.Millisecond
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a scheduler over the tiny model.
type rig struct {
	*Scheduler
	limit int
}

func newRig(t *testing.T, cells, sequences, batch int) *rig {
	t.Helper()
	return run(t, newScheduler(t, options(cells, sequences, batch), nil))
}

// run runs a scheduler until the test ends.
func run(t *testing.T, s *Scheduler) *rig {
	t.Helper()
	r := &rig{Scheduler: s, limit: s.opts.Cells}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return r
}

// options calculate in f32 throughout, so that what else is in the pool hardly ever
// changes a text.
func options(cells, sequences, batch int) Options {
	return Options{Cells: cells, Sequences: sequences, Batch: batch, Threads: 1, TypeK: "f32", TypeV: "f32"}
}

func openModel(t *testing.T) *llama.Model {
	t.Helper()
	return openSpec(t, gguf.Tiny())
}

func openSpec(t *testing.T, tiny gguf.Spec) *llama.Model {
	t.Helper()
	spec := infertest.TinySpec(t)
	require.NoError(t, gguf.WriteFile(spec.Model, tiny))
	lib, err := llama.Load(spec.LibDir, zap.NewNop())
	require.NoError(t, err)
	model, err := lib.OpenModel(spec.Model, llama.ModelOptions{GPU: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, model.Close()) })
	return model
}

// newScheduler makes a scheduler that the caller runs.
func newScheduler(t *testing.T, opts Options, log *zap.Logger) *Scheduler {
	t.Helper()
	s, err := New(openModel(t), opts, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// newContext makes a context for a plain loop.
func newContext(t *testing.T, cells, sequences, batch int) (*llama.Model, *llama.Context) {
	t.Helper()
	model := openModel(t)
	ctx, err := model.NewContext(llama.ContextOptions{Cells: cells, Sequences: sequences, Batch: batch, Threads: 1, TypeK: "f32", TypeV: "f32"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ctx.Close()) })
	return model, ctx
}

// run runs a job to its end.
func (r *rig) run(ctx context.Context, job api.Request, l infer.Lease) (*infer.Output, error) {
	prompt, err := r.model.Tokenize(job.Prompt)
	if err != nil {
		return nil, err
	}
	return r.Submit(ctx, infer.Request{Job: &job, Lease: l}, prompt, r.limit)
}

func (r *rig) mustRun(t *testing.T, job api.Request) *infer.Output {
	t.Helper()
	out, err := r.run(t.Context(), job, infertest.NewLease(0))
	require.NoError(t, err)
	return out
}

// greedy decodes by the plainest loop there is: a prompt in one batch, then
// token by token.
func greedy(t *testing.T, model *llama.Model, c *llama.Context, text string, n int) (string, int) {
	t.Helper()
	tokens, err := model.Tokenize(text)
	require.NoError(t, err)
	var out []byte
	pos := 0
	for made := 1; ; made++ {
		c.Clear()
		at := 0
		for i, token := range tokens {
			at, err = c.Add(token, pos, 0, i == len(tokens)-1)
			require.NoError(t, err)
			pos++
		}
		require.NoError(t, c.Decode())
		next, err := c.Argmax(at)
		require.NoError(t, err)
		out = append(out, model.Piece(next)...)
		if model.Ends(next) || made == n {
			return string(out), made
		}
		tokens = []llama.Token{next}
	}
}

func TestGreedyEqualsAPlainLoop(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	for _, prompt := range []string{"hello there", "a", "The quick brown fox", "1 2 3 4 5", infertest.Words(60)} {
		model, c := newContext(t, 1024, 4, 64)
		want, made := greedy(t, model, c, prompt, 60)
		got := r.mustRun(t, api.Request{Prompt: prompt, MaxTokens: 60})
		require.Equal(t, made, got.CompletionTokens, prompt)
		ended := newText(nil)
		ended.add([]byte(want))
		require.Equal(t, ended.String(), got.Text(), prompt)
	}
}

// TestJoinAndLeave has a long job that goes on only when the short ones, which
// came later, are done.
func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	inPool, goOn := make(chan struct{}), make(chan struct{})
	l := infertest.NewLease(0)
	var once sync.Once
	l.Grant = func(_ context.Context, used, _ int) error {
		if used > 0 {
			once.Do(func() {
				close(inPool)
				<-goOn
			})
		}
		return nil
	}
	type end struct {
		out *infer.Output
		err error
	}
	long := make(chan end, 1)
	go func() {
		// Three quarters of prompt and share are used before a token is made.
		out, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(500), MaxTokens: 200}, l)
		long <- end{out, err}
	}()
	<-inPool
	for range 8 { // one after the other, over the three other sequences
		out := r.mustRun(t, api.Request{Prompt: "short", MaxTokens: 5})
		require.Positive(t, out.CompletionTokens)
	}
	close(goOn)
	e := <-long
	require.NoError(t, e.err)
	require.Equal(t, 500, e.out.PromptTokens)
}

func TestStopStrings(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 2, 64)
	job := api.Request{Prompt: "hello there", MaxTokens: 40}
	whole := r.mustRun(t, job)
	require.Greater(t, len(whole.Text()), 4, "the model says too little to cut")
	stop := whole.Text()[len(whole.Text())/2:]
	require.Equal(t, strings.ToValidUTF8(stop, "?"), stop)
	job.Stop = []string{"never ever said", stop[:min(3, len(stop))]}
	cut := r.mustRun(t, job)
	require.Equal(t, "stop", cut.Choices[0].FinishReason)
	before, _, found := strings.Cut(whole.Text(), job.Stop[1])
	require.True(t, found)
	require.Equal(t, before, cut.Text())
	require.Less(t, cut.CompletionTokens, whole.CompletionTokens+1)
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	seed := func(n uint32) *uint32 { return &n }
	job := api.Request{Prompt: "hello there", MaxTokens: 30, Sampling: api.DefaultSampling()}
	texts := map[string]bool{}
	for n := range uint32(5) {
		job.Sampling.Seed = seed(n)
		first := r.mustRun(t, job)
		require.Equal(t, first.Text(), r.mustRun(t, job).Text(), "seed %d", n)
		texts[first.Text()] = true
	}
	require.Greater(t, len(texts), 1, "different seeds")

	// The request's seed is for jobs that name none.
	job.Sampling.Seed = seed(3)
	named := r.mustRun(t, job)
	job.Sampling.Seed = nil
	prompt, err := r.model.Tokenize(job.Prompt)
	require.NoError(t, err)
	out, err := r.Submit(t.Context(), infer.Request{Job: &job, Seed: 3, Lease: infertest.NewLease(0)}, prompt, r.limit)
	require.NoError(t, err)
	require.Equal(t, named.Text(), out.Text())
}

func TestPenalties(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 1, 64)
	// Some prompts end before anything repeats itself; one of them will.
	for name, penalise := range map[string]func(*api.Sampling){
		"repeat":    func(s *api.Sampling) { s.RepeatPenalty = 2 },
		"frequency": func(s *api.Sampling) { s.FrequencyPenalty = 2 },
		"presence":  func(s *api.Sampling) { s.PresencePenalty = 2 },
	} {
		changed := false
		for _, prompt := range []string{"hello there", "a b c", "one two", "the end", "xyz", "what is it"} {
			job := api.Request{Prompt: prompt, MaxTokens: 60}
			plain := r.mustRun(t, job)
			penalise(&job.Sampling)
			changed = changed || plain.Text() != r.mustRun(t, job).Text()
		}
		require.True(t, changed, name)
	}
}

// TestLeaseGrowsAhead checks that a job asks for more before it needs it, in
// steps, and never uses what it does not have.
func TestLeaseGrowsAhead(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 1, 64)
	l := infertest.NewLease(0)
	_, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(400), MaxTokens: 600}, l)
	require.NoError(t, err)
	calls := l.Calls()
	require.GreaterOrEqual(t, len(calls), 2)
	require.Equal(t, infertest.Call{Before: 0, Used: 0, Asked: 400 + share}, calls[0])
	for i, c := range calls[1:] {
		require.Equal(t, min(c.Before+share, 1000), c.Asked, "call %d", i)
		require.GreaterOrEqual(t, c.Used*4, c.Before*3, "call %d is too early", i)
		require.LessOrEqual(t, c.Used, c.Before, "call %d is too late", i)
	}
}

// A job that has a lease, but not the one it wants, must not start while it asks:
// with nothing in the pool its lease may be taken meanwhile.
func TestNoStartWhileAsking(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 2, 64)
	l := infertest.NewLease(20) // the prompt fits
	asked, goOn := make(chan struct{}), make(chan struct{})
	l.Grant = func(_ context.Context, used, _ int) error {
		if used == 0 {
			close(asked)
			<-goOn
		}
		return nil
	}
	started := make(chan time.Time, 1)
	go func() {
		out, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(10), MaxTokens: 50}, l)
		if err != nil {
			close(started)
			return
		}
		started <- out.Started
	}()
	<-asked
	r.mustRun(t, api.Request{Prompt: "another", MaxTokens: 20}) // many steps
	granted := time.Now()
	close(goOn)
	at, ok := <-started
	require.True(t, ok)
	require.False(t, at.Before(granted), "started %v before its lease was granted", granted.Sub(at))
}

// A job that ends while it asks for more takes its question back before Submit
// returns.
func TestQuestionsEndWithTheJob(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 1, 64)
	l := infertest.NewLease(0)
	asked, answered := make(chan struct{}), make(chan struct{})
	l.Grant = func(ctx context.Context, used, _ int) error {
		if used == 0 {
			return nil
		}
		close(asked)
		<-answered // Submit must wait for it
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.run(ctx, api.Request{Prompt: infertest.Words(700), MaxTokens: 300}, l)
		ended <- err
	}()
	<-asked
	cancel()
	// There is one sequence: the job has left when another one has run.
	whole := r.mustRun(t, api.Request{Prompt: infertest.Words(1023), MaxTokens: 1})
	require.Equal(t, 1023, whole.PromptTokens, "the pool is free again")
	require.Empty(t, ended, "Submit returned and the lease was still being asked")
	close(answered)
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestRefusedGrowthEndsTheJobOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 2, 64)
	refused := errors.New("no room to grow")
	l := infertest.NewLease(0)
	l.Grant = func(_ context.Context, used, _ int) error {
		if used > 0 {
			return refused
		}
		return nil
	}
	_, err := r.run(t.Context(), api.Request{Prompt: infertest.Words(700), MaxTokens: 300}, l)
	require.ErrorIs(t, err, refused)
	r.mustRun(t, api.Request{Prompt: infertest.Words(1000), MaxTokens: 10})
}

// stingy grants a token more than the prompt at first, and the rest with the
// others.
type stingy struct {
	*infertest.Lease
	first int
	rest  func(ctx context.Context)
}

func (l stingy) Tokens() int {
	if n := l.Lease.Tokens(); len(l.Calls()) > 1 {
		return n
	}
	return l.first
}

func (l stingy) Resize(ctx context.Context, used, n int) error {
	if used > 0 {
		l.rest(ctx)
	}
	return l.Lease.Resize(ctx, used, n)
}

// More jobs can go on at once than a batch has tokens: the oldest go first,
// nothing breaks.
func TestBatchSmallerThanSequences(t *testing.T) {
	t.Parallel()
	r := newRig(t, 512, 8, 2)
	const jobs = 8
	var arrived atomic.Int32
	all := make(chan struct{}) // closed when all have used up what they have
	var running errgroup.Group
	for range jobs {
		l := stingy{Lease: infertest.NewLease(0), first: 4, rest: func(ctx context.Context) {
			if arrived.Add(1) == jobs {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(2 * time.Second): // one ended before it had
			case <-ctx.Done():
			}
		}}
		running.Go(func() error {
			out, err := r.run(t.Context(), api.Request{Prompt: "a a a", MaxTokens: 10}, l)
			if err == nil && out.PromptTokens != 3 {
				err = fmt.Errorf("%d tokens in the prompt", out.PromptTokens)
			}
			return err
		})
	}
	require.NoError(t, running.Wait())
}

func TestSubmitAfterTheEnd(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, options(256, 1, 64), nil)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, s.Run(ctx))
	_, err := s.Submit(t.Context(), infer.Request{Job: &api.Request{}, Lease: infertest.NewLease(256)}, []llama.Token{5}, 10)
	require.ErrorIs(t, err, infer.ErrStopped)
}

func TestWant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                           string
		prompt, longest, cells, leased int
		runs                           bool
		want                           int
	}{
		{"new, much to say", 100, 1000, 0, 0, false, 228},
		{"new, little to say", 100, 110, 0, 0, false, 110},
		{"new, with more than it wants", 100, 110, 0, 500, false, 110},
		{"new, with less than it wants", 100, 1000, 0, 150, false, 228},
		{"running, far from three quarters", 100, 1000, 100, 228, true, 228},
		{"just before three quarters", 100, 1000, 170, 228, true, 228},
		{"at three quarters", 100, 1000, 171, 228, true, 356},
		{"at the end of its lease", 100, 1000, 228, 228, true, 356},
		{"near its longest", 100, 300, 200, 228, true, 300},
		{"at its longest", 100, 228, 220, 228, true, 228},
		{"a long prompt is over three quarters from the start", 1000, 2000, 1000, 1128, true, 1256},
	} {
		j := &job{tokens: make([]llama.Token, c.prompt), prompt: c.prompt, longest: c.longest, cells: c.cells, leased: c.leased}
		if c.runs {
			j.tokens, j.seat = make([]llama.Token, max(c.prompt, c.cells+1)), &seat{}
		}
		require.Equal(t, c.want, j.want(1<<20), c.name)
	}
}
