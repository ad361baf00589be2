package schedule

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

// stepsOf runs jobs together, which come in their order before the first step, and returns
// what each step had: tokens of prompts and of decoding jobs.
func stepsOf(t *testing.T, opts Options, jobs ...api.Request) (all [][2]int64) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s := newScheduler(t, opts, zap.New(core))
	r := &rig{Scheduler: s, limit: opts.Cells}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var running errgroup.Group
	there := make(chan struct{})
	require.True(t, s.tell(func() {
		defer close(there)
		for i, job := range jobs {
			running.Go(func() error {
				_, err := r.run(t.Context(), job, infertest.NewLease(0))
				return err
			})
			for s.arrived == i {
				(<-s.inbox)()
			}
		}
	}))
	<-there
	require.NoError(t, running.Wait())
	stop()
	require.NoError(t, <-ended)
	for _, e := range logs.FilterMessage("step").All() {
		m := e.ContextMap()
		all = append(all, [2]int64{m["prefill_tokens"].(int64), m["decode_tokens"].(int64)})
	}
	return all
}

// oneAmongMany is a job that writes for long, and many that only have a prompt. All
// prompts are of one length, more than half of a batch of 64.
func oneAmongMany() []api.Request {
	var jobs []api.Request
	for i := range 40 {
		jobs = append(jobs, api.Request{Prompt: fmt.Sprintf("%02d %s", 10+i, infertest.Words(37)), MaxTokens: 1})
	}
	jobs[0].MaxTokens, jobs[0].IgnoreEOS = 30, true
	return jobs
}

func TestStreamsTakeTurns(t *testing.T) {
	t.Parallel()
	opts := options(4*256, 4, 64)
	opts.Layout = Streams
	steps := stepsOf(t, opts, oneAmongMany()...)
	decoding := func(s [2]int64) bool { return s[1] > 0 }
	first := slices.IndexFunc(steps, decoding)
	row, most := 0, 0
	for _, s := range steps[first:] {
		require.True(t, s[0] == 0 || s[1] == 0, "a step has either prompts or decoding jobs: %v", s)
		require.Contains(t, []int64{0, steps[0][0]}, s[0], "no prompt is cut that fits into a batch")
		row++
		if decoding(s) {
			most, row = max(most, row-1), 0
		}
	}
	require.Equal(t, promptsInTurn, most, "prompts go first, but not for ever")
}

func TestOnePoolMixes(t *testing.T) {
	t.Parallel()
	opts := options(4*256, 4, 64)
	opts.Layout = Unified
	steps := stepsOf(t, opts, oneAmongMany()...)
	require.True(t, slices.ContainsFunc(steps, func(s [2]int64) bool { return s[0] > 0 && s[1] > 0 }))
}

// Where jobs have left a gap and none is there to fill it, the last one moves there, and
// goes on as if nothing had happened.
func TestGapsAreClosed(t *testing.T) {
	t.Parallel()
	opts := options(4*256, 4, 256)
	opts.Layout = Streams
	r := run(t, newScheduler(t, opts, nil))
	look := func(f func(p *pool)) {
		done := make(chan struct{})
		require.True(t, r.tell(func() { f(r.pools[0]); close(done) }))
		<-done
	}
	seated := func() (n int) {
		look(func(p *pool) { n = p.running() })
		return n
	}
	long := api.Request{Prompt: "99 " + infertest.Words(20), MaxTokens: 225, IgnoreEOS: true}
	alone := r.mustRun(t, long).Text()
	var running errgroup.Group
	start := func(job api.Request) {
		n := seated()
		running.Go(func() error {
			out, err := r.run(t.Context(), job, infertest.NewLease(0))
			if err == nil && job.MaxTokens == long.MaxTokens && out.Text() != alone {
				err = fmt.Errorf("the text of the job that has moved is %q, alone it is %q", out.Text(), alone)
			}
			return err
		})
		require.Eventually(t, func() bool { return seated() > n }, soon, tick)
	}
	for i := range 3 {
		start(api.Request{Prompt: fmt.Sprintf("%02d %s", 10+i, infertest.Words(10)), MaxTokens: 120, IgnoreEOS: true})
	}
	start(long)
	require.NoError(t, running.Wait())
	prompt, err := r.model.Tokenize(long.Prompt)
	require.NoError(t, err)
	var first []llama.Token
	look(func(p *pool) { first = p.seats[0].tokens })
	require.Equal(t, prompt, first, "it ended in the first seat")
}

// While the jobs of a pool wait for memory nothing is decoded in it, and a job that had
// moved without that would leave its seat to be taken before its tokens have come along.
func TestNobodyMovesWithoutAStep(t *testing.T) {
	t.Parallel()
	opts := options(4*256, 4, 256)
	opts.Layout = Streams
	p := newScheduler(t, opts, nil).pools[0]
	sit := func(first llama.Token, prompt, leased int) *job {
		j := &job{req: infer.Request{Job: &api.Request{}}, prompt: prompt, index: -1, leased: leased, longest: 200}
		for i := range prompt {
			j.tokens = append(j.tokens, first+llama.Token(i))
		}
		sat, err := p.sit(j)
		require.NoError(t, err)
		require.True(t, sat)
		return j
	}
	step := func() int {
		n, err := p.fill()
		require.NoError(t, err)
		if n > 0 {
			require.NoError(t, p.decode())
		}
		return n
	}
	jobs := []*job{sit(5, 20, 20), sit(8, 20, 20), sit(11, 20, 20)}
	require.Equal(t, 60, step())
	require.NoError(t, p.vacate(jobs[0]))
	for _, j := range jobs[1:] {
		j.tokens = append(j.tokens, 7)
	}
	for range 2 * gapPatience {
		require.Zero(t, step(), "they have no memory for another token")
	}
	sit(40, 10, 30)
	sit(60, 10, 30)
	require.Equal(t, 20, step())
}
