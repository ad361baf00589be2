package worker

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

// sets are what a narrower of a test works with.
type sets struct {
	*narrower
	widest int
	told   []int // the engine
	err    error // its answer
	logged *observer.ObservedLogs
}

func newSets(widest int) *sets {
	s := &sets{widest: widest}
	core, logged := observer.New(zap.InfoLevel)
	s.logged = logged
	s.narrower = newNarrower(func(_ context.Context, width int) error {
		s.told = append(s.told, width)
		return s.err
	}, func() int { return s.widest }, zap.New(core))
	return s
}

// down presses until nothing more is to be had, and returns how long that took.
func (s *sets) down(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for !s.press(t.Context(), "a test", false) {
		require.NoError(t, pause(t.Context(), lookAgain))
	}
	return time.Since(began)
}

func TestNarrower(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		widest int
		want   []int
	}{
		{"nothing is parallel", 0, nil},
		{"only sets of one", 1, nil},
		{"two", 2, []int{1}},
		{"eight", 8, []int{4, 2, 1}},
		{"twelve", 12, []int{6, 3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSets(c.widest)
				require.Equal(t, time.Duration(len(c.want))*moment, s.down(t), "a moment for each step")
				require.Equal(t, c.want, s.told)
				require.Zero(t, s.down(t), "it is not tried again")
				require.EqualValues(t, len(c.want), s.steps.Load())
				require.Equal(t, len(c.want), s.logged.Len())
				for i, entry := range s.logged.All() {
					require.EqualValues(t, c.want[i], entry.ContextMap()["width"])
					require.Equal(t, "a test", entry.ContextMap()["reason"])
				}
			})
		})
	}
}

// TestNarrowerIsUrgent: all steps at once, without a moment for any.
func TestNarrowerIsUrgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSets(8)
		require.False(t, s.press(t.Context(), "a test", false))
		require.True(t, s.press(t.Context(), "a test", true))
		require.True(t, s.press(t.Context(), "a test", true))
		require.Equal(t, []int{4, 1}, s.told)
		for range 3 { // it comes back as it would have gone
			<-time.After(calm)
			s.relax(t.Context(), true)
		}
		require.Equal(t, []int{4, 1, 2, 4, 0}, s.told)
	})
}

// TestNarrowerRelaxes step by step, and only where nobody has waited for a while.
func TestNarrowerRelaxes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSets(12)
		s.relax(t.Context(), true)
		require.Empty(t, s.told, "there is no bound")
		s.down(t)
		s.told = nil
		rest := func(d time.Duration, room bool) int {
			<-time.After(d)
			s.relax(t.Context(), room)
			return s.bound()
		}
		require.Equal(t, 1, rest(calm-moment-time.Millisecond, true), "too early")
		require.Equal(t, 3, rest(time.Millisecond, true))
		require.EqualValues(t, 3, s.logged.TakeAll()[3].ContextMap()["width"])
		require.Equal(t, 3, rest(calm-time.Millisecond, true), "each step takes as long")
		require.Equal(t, 3, rest(time.Hour, false), "there is no room")
		end, other := s.wait(), s.wait()
		require.Equal(t, 3, rest(time.Hour, true), "two jobs wait")
		end()
		require.Equal(t, 3, rest(time.Hour, true), "one waits")
		other()
		require.Equal(t, 3, rest(calm-time.Millisecond, true), "one has just waited")
		require.Equal(t, 6, rest(time.Millisecond, true))
		require.False(t, s.press(t.Context(), "again", false))
		require.Equal(t, 6, s.bound(), "the step has its moment too")
		<-time.After(moment)
		require.False(t, s.press(t.Context(), "again", false))
		require.Equal(t, 3, rest(calm-time.Millisecond, true))
		require.Equal(t, 6, rest(time.Millisecond, true))
		require.Equal(t, 0, rest(calm, true))
		said := s.logged.TakeAll()
		require.NotContains(t, said[len(said)-1].ContextMap(), "width", "there is no bound any more")
		require.EqualValues(t, 6, said[len(said)-1].ContextMap()["before"])
		require.Equal(t, 0, rest(calm, true))
		require.Equal(t, []int{3, 6, 3, 6, 0}, s.told)
		require.EqualValues(t, 4, s.steps.Load(), "only those down count")

		s.down(t) // of a bound that nobody needs nothing is left, whatever room there is
		s.widest = 0
		require.Equal(t, 0, rest(calm, false))
		require.Equal(t, []int{3, 6, 3, 6, 0, 6, 3, 1, 0}, s.told)
	})
}

// TestNarrowerOfOtherJobs: others run when it goes on.
func TestNarrowerOfOtherJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSets(16)
		require.False(t, s.press(t.Context(), "a test", false))
		s.widest = 4
		s.down(t)
		require.Equal(t, []int{8, 2, 1}, s.told, "what they do not have is no step")
	})
}

// TestNarrowerWithoutAnEngine: the bound is for the engine that comes next.
func TestNarrowerWithoutAnEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSets(4)
		s.err = &infer.DiedError{Reason: "killed"}
		require.Equal(t, 2*moment, s.down(t))
		require.Equal(t, 1, s.bound())
	})
}

// TestNarrowerOfABusyEngine: it answers when its step has ended. Until then a step down is not in
// force and has no moment, the next does not overtake it, and nobody is held up for long.
func TestNarrowerOfABusyEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []int
		answers := make(chan error)
		n := newNarrower(func(_ context.Context, width int) error {
			told = append(told, width)
			return <-answers
		}, func() int { return 8 }, zap.NewNop())
		press := func(ctx context.Context, urgent bool) (spent bool, took time.Duration) {
			began := time.Now()
			spent = n.press(ctx, "a test", urgent)
			return spent, time.Since(began)
		}
		requirePress := func(wantSpent bool, wantTook time.Duration, urgent bool, why string) {
			t.Helper()
			spent, took := press(t.Context(), urgent)
			require.Equal(t, wantSpent, spent, why)
			require.Equal(t, wantTook, took, why)
		}
		requirePress(false, tellLimit, false, "it waits a little for the engine")
		<-time.After(10 * moment)
		requirePress(false, 0, false, "the moment has not begun")
		requirePress(true, tellLimit, true, "narrower sets are not to be had at once")
		n.relax(t.Context(), true)
		synctest.Wait()
		require.Equal(t, []int{4}, told, "one call at a time")

		answers <- nil
		synctest.Wait()
		requirePress(false, 0, false, "now it has")
		<-time.After(moment - time.Millisecond)
		requirePress(false, 0, false, "and is not over")
		<-time.After(time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		spent, took := press(ctx, false)
		require.False(t, spent)
		require.Zero(t, took, "who has gone does not wait")
		synctest.Wait()
		require.Equal(t, []int{4, 2}, told, "but the engine is told")
		answers <- &infer.DiedError{Reason: "killed"}
		synctest.Wait()
		require.Equal(t, 2, n.bound(), "for the engine that comes next")
		<-time.After(moment)
		go func() { answers <- nil }()
		requirePress(true, 0, true, "all the way down")
		require.Equal(t, []int{4, 2, 1}, told)
	})
}

// alone makes a worker without a queue that is loaded and not run, for tests in which time
// passes at once.
func alone(t *testing.T, engine infer.Engine, change func(*Options)) *Worker {
	t.Helper()
	opts := Options{
		Name: "w", Model: model, Device: budget.Device{ID: "cpu", Kind: budget.CPU}, Spec: infer.Spec{GPU: -1, Threads: 1, Batch: 512},
		Limit: 100 * budget.MiB, MaxParallelTokens: 4, MaxCacheTokens: 1024,
		Measure: func(int) (budget.Bytes, error) { return processMemory, nil },
	}
	if change != nil {
		change(&opts)
	}
	monitor := budget.NewMonitor(opts.Measure, time.Second, nil)
	monitor.Add(enginePID)
	w := New(opts, nil, nil, engine, monitor, nil)
	require.NoError(t, w.Start(t.Context()))
	return w
}

// newParallel is newJob for one that is parallel, with sets of at most so many tokens.
func newParallel(t *testing.T, w *Worker, id string, tokens int64, most int) *job {
	t.Helper()
	j := newJob(t, w, id, tokens)
	j.parallel = &api.Parallel{Threshold: 0.1, MaxTokens: most}
	return j
}

func TestWidestSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &script{}, nil)
		require.Zero(t, w.widestSet())
		newJob(t, w, "plain", 100)
		require.Zero(t, w.widestSet(), "one token at each position")
		newParallel(t, w, "a", 100, 3)
		require.Equal(t, 3, w.widestSet(), "all say how many")
		b := newParallel(t, w, "b", 100, 0)
		require.Equal(t, 4, w.widestSet(), "max_parallel_tokens")
		b.lease.put(nil)
		require.Equal(t, 3, w.widestSet(), "it is not in the pool")
		newParallel(t, w, "c", 100, 50)
		require.Equal(t, 4, w.widestSet(), "no more than the worker allows")

		w.pool.sequences = 256
		newParallel(t, w, "d", 100, 0).parallel = &api.Parallel{Threshold: 0.001, Isolate: true}
		require.Equal(t, 64, w.widestSet(), "no more than the engine keeps apart: a first step to 128 would be none")
	})
}

// A job of which no two tokens can be over the threshold has nothing to narrow.
func TestSetsThatCannotBeWide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &script{}, nil)
		j := newParallel(t, w, "a", 100, 0)
		j.parallel.Threshold = 0.6
		require.Equal(t, 1, w.widestSet())
		require.True(t, w.sets.press(t.Context(), "test", true))
		require.Zero(t, w.sets.bound())
		j.parallel.Dynamic = &api.DynamicThreshold{Final: 0.4, Curve: api.CurveLinear}
		require.Equal(t, 2, w.widestSet())
	})
}

// TestARunningJobIsParallel as its request says.
func TestARunningJobIsParallel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine := &script{}
		w := alone(t, engine, nil)
		w.queue = unanswered{}
		seen := -1
		engine.act = func(context.Context, infer.Request, string) error {
			seen = w.widestSet()
			return nil
		}
		for tempo, want := range map[string]int{"": 0, `,"tempo":{"selection_threshold":0.1,"max_parallel_tokens":3}`: 3} {
			j := newJob(t, w, "j", 100)
			j.delivery.Job.URL = api.ChatCompletions
			j.delivery.Job.Body = json.RawMessage(`{"messages":[{"role":"user","content":"hello"}]` + tempo + `}`)
			r, err := w.run(j)
			require.NoError(t, err)
			require.True(t, r.OK(), "%s", r.Response.Body)
			require.Equal(t, want, seen)
			finish(w, j)
		}
	})
}

// TestGrowthNarrowsSets before anybody gives way.
func TestGrowthNarrowsSets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine := &script{}
		w := alone(t, engine, nil)
		old, young := newJob(t, w, "old", 500), newParallel(t, w, "young", 500, 0)

		// What comes free in the meantime is enough.
		began := time.Now()
		grown := grow(t, old, 600)
		<-time.After(moment / 2)
		require.Equal(t, 2, w.Stats().WidthBound)
		require.NoError(t, young.lease.Resize(t.Context(), 300, 400))
		require.NoError(t, <-grown)
		require.Equal(t, []int{2}, engine.narrowed())

		// And then it is not: the youngest gives way, after the last step's moment.
		grown = grow(t, old, 700)
		<-young.ctx.Done()
		require.ErrorIs(t, context.Cause(young.ctx), errPreempted)
		require.InDelta(t, 2*moment, time.Since(began), float64(lookAgain))
		require.Equal(t, []int{2, 1}, engine.narrowed())
		finish(w, young)
		require.NoError(t, <-grown)
		require.EqualValues(t, 2, w.Stats().Narrowed)
		require.EqualValues(t, 1, w.Stats().GaveWay)
		require.Equal(t, 1, engine.Width(), "it stays until nobody has waited for a while")
		finish(w, old)
		w.sets.relax(t.Context(), true)
		require.Equal(t, 1, engine.Width())
		<-time.After(calm)
		w.sets.relax(t.Context(), true)
		require.Zero(t, engine.Width())
		(&rig{Worker: w}).requireEmpty(t)
	})
}

// TestSetsOfATeam: each model's jobs have a bound of their own; the sum tells the tightest.
func TestSetsOfATeam(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := &script{}, &script{}
		team := &Team{common: &common{}, members: []*member{{worker: alone(t, one, nil)}, {worker: alone(t, two, nil)}}}
		for _, m := range team.members {
			newParallel(t, m.worker, "j", 100, 0)
		}
		require.Zero(t, team.Stats().WidthBound)
		require.False(t, team.members[0].worker.sets.press(t.Context(), "a test", false))
		require.Equal(t, 2, team.Stats().WidthBound)
		require.Nil(t, two.narrowed())
		require.True(t, team.members[1].worker.sets.press(t.Context(), "a test", true))
		require.Equal(t, []int{2}, one.narrowed())
		require.Equal(t, 1, team.Stats().WidthBound)
		require.EqualValues(t, 2, team.Stats().Narrowed)
	})
}

// grow has a running job grow to n tokens, beside the test.
func grow(t *testing.T, j *job, n int) <-chan error {
	t.Helper()
	grown := make(chan error, 1)
	go func() { grown <- j.lease.Resize(j.ctx, 100, n) }()
	synctest.Wait()
	return grown
}

// TestGrowthWithoutSets: where no running job is parallel the engine is told nothing, and
// nobody waits for it.
func TestGrowthWithoutSets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine := &script{}
		w := alone(t, engine, nil)
		old, young := newJob(t, w, "old", 500), newJob(t, w, "young", 500)
		began := time.Now()
		grown := grow(t, old, 600)
		require.ErrorIs(t, context.Cause(young.ctx), errPreempted)
		finish(w, young)
		require.NoError(t, <-grown)
		require.Zero(t, time.Since(began))
		require.Nil(t, engine.narrowed())
		require.Zero(t, w.Stats().WidthBound)
	})
}

// TestGrowthThatIsCancelled while sets get narrower.
func TestGrowthThatIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &script{}, nil)
		old := newParallel(t, w, "old", 500, 0)
		newJob(t, w, "young", 500)
		grown := grow(t, old, 600)
		old.end(errDrained)
		require.ErrorIs(t, <-grown, context.Canceled)
		require.Equal(t, 500, old.lease.Tokens())
	})
}

// keeping is a worker whose keeper a test calls by hand, with 74 MiB held, and its jobs leave
// when they must.
func keeping(t *testing.T) (*elastic, *Worker, *keeper) {
	t.Helper()
	e := newElastic(nil)
	w := alone(t, e, func(o *Options) {
		o.Limit, o.Measure = budget.GiB, e.measure
	})
	require.Equal(t, 74*budget.MiB, w.ledger.Snapshot().Held)
	return e, w, &keeper{changed: time.Now()}
}

// leaves has a job leave when it must.
func leaves(w *Worker, j *job) {
	go func() {
		<-j.ctx.Done()
		finish(w, j)
	}()
}

// TestTheLimitNarrowsSets before the pool becomes smaller; they are wide again when it may
// grow.
func TestTheLimitNarrowsSets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, w, k := keeping(t)
		j := newParallel(t, w, "j", 100, 0)
		look := func(d time.Duration) {
			<-time.After(d)
			require.NoError(t, w.round(t.Context(), k))
		}
		w.ledger.SetLimit(76 * budget.MiB) // 97 %
		look(0)
		require.Equal(t, []int{2}, e.narrowed())
		look(moment - time.Millisecond)
		require.Equal(t, []int{2}, e.narrowed(), "it has its moment")
		look(time.Millisecond)
		require.Equal(t, []int{2, 1}, e.narrowed())
		require.Nil(t, k.held, "jobs are admitted still")
		require.Equal(t, []int{1024}, e.cells())
		require.NoError(t, j.ctx.Err())
		leaves(w, j)
		look(moment)
		require.Equal(t, []int{2, 1}, e.narrowed())
		require.Len(t, e.cells(), 2, "only now the pool becomes smaller")
		require.Error(t, j.ctx.Err(), "and who has no room in it leaves")

		newParallel(t, w, "next", 100, 0)
		w.ledger.SetLimit(w.ledger.Snapshot().Held.Scale(1 / 0.9))
		look(time.Minute)
		require.Equal(t, budget.Warn, w.ledger.Pressure())
		require.Equal(t, 1, w.sets.bound(), "not under a warning")
		w.ledger.SetLimit(budget.GiB)
		look(calm)
		require.Equal(t, 2, w.sets.bound())
		look(calm)
		require.Equal(t, []int{2, 1, 2, 0}, e.narrowed())
	})
}

// TestBeyondTheLimitSetsAreNotWaitedFor: narrower sets give nothing back to the device.
func TestBeyondTheLimitSetsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, w, k := keeping(t)
		j := newParallel(t, w, "j", 100, 0)
		leaves(w, j)
		w.ledger.SetLimit(60 * budget.MiB)
		began := time.Now()
		require.NoError(t, w.round(t.Context(), k))
		require.Less(t, time.Since(began), moment)
		require.Equal(t, []int{1}, e.narrowed())
		require.Len(t, e.cells(), 2)
	})
}

// TestTheLimitWithoutSets: the pool becomes smaller at once, and the engine is told nothing.
func TestTheLimitWithoutSets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, w, k := keeping(t)
		leaves(w, newJob(t, w, "j", 100))
		w.ledger.SetLimit(76 * budget.MiB)
		require.NoError(t, w.round(t.Context(), k))
		require.Len(t, e.cells(), 2)
		w.ledger.SetLimit(budget.GiB)
		<-time.After(time.Minute)
		require.NoError(t, w.round(t.Context(), k))
		require.Nil(t, e.narrowed())
	})
}
