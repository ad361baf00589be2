package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

// TestModelsBesideEachOther fit together: each is loaded once, when it has jobs.
func TestModelsBesideEachOther(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a, b := &shelf{name: "a", weights: 100 * budget.MiB}, &shelf{name: "b", weights: 100 * budget.MiB}
	r := newCrew(t, c, limitFor(2*(100*budget.MiB+pooled)), nil, a, b).run(t)
	require.Equal(t, []string{"a", "b"}, r.Models())
	workers, err := c.Workers(t.Context())
	require.NoError(t, err)
	require.Len(t, workers, 1, "it is announced before it runs")
	require.Equal(t, []string{"a", "b"}, workers[0].Models)
	require.Equal(t, 1024, workers[0].Context)

	sendTo(t, c, "only a", 20, "a")
	requireServed(t, results(t, c, "only a", 20), 20, "a")
	require.Equal(t, []int{1, 0}, []int{a.loaded(), b.loaded()}, "nobody wants b")
	sendTo(t, c, "both", 60, "a", "b")
	requireServed(t, results(t, c, "both", 60), 60, "a", "b")
	require.Equal(t, []int{1, 1}, []int{a.loaded(), b.loaded()})

	stats := r.EachStats()
	require.Len(t, stats, 2)
	for i, s := range stats {
		require.Equal(t, []string{"crew", r.Models()[i]}, []string{s.Worker, s.Model})
		require.Equal(t, int64(100*budget.MiB), s.Weights)
		require.Equal(t, 1024, s.MaxCacheTokens)
	}
	sum := r.Stats()
	require.Equal(t, "a, b", sum.Model)
	require.Equal(t, int64(200*budget.MiB), sum.Weights)
	require.Equal(t, int64(2*(20+60)), sum.Tokens)
	require.Equal(t, int64(r.opts.Limit), sum.Limit)
	require.LessOrEqual(t, sum.Total(), sum.Limit)
	require.Eventually(t, func() bool {
		all, err := c.LatestStats(t.Context())
		return err == nil && len(all) == 2 && all[0].Model != all[1].Model
	}, 5*time.Second, 10*time.Millisecond)

	claims, err := c.Claims(t.Context(), "the device")
	require.NoError(t, err)
	require.Len(t, claims, 3, "one for each model and one for the process")
	var promised budget.Bytes
	for _, c := range claims {
		promised = promised.Add(budget.Bytes(c.Bytes))
	}
	require.LessOrEqual(t, promised, r.opts.Limit)
	require.NoError(t, r.stop())
	claims, err = c.Claims(t.Context(), "the device")
	require.NoError(t, err)
	require.Empty(t, claims)
	workers, err = c.Workers(t.Context())
	require.NoError(t, err)
	require.Empty(t, workers)
}

// TestModelsTakeTurns that do not fit together: a batch for both is answered whole, and
// neither model waits until the other has no more jobs.
func TestModelsTakeTurns(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a := &shelf{name: "a", weights: 200 * budget.MiB, delay: 20 * time.Millisecond}
	b := &shelf{name: "b", weights: 200 * budget.MiB, delay: 20 * time.Millisecond}
	r := newCrew(t, c, limitFor(250*budget.MiB+pooled), func(o *Options) {
		o.WatchInterval = 150 * time.Millisecond // a model that has just been loaded finds its jobs in twice that
	}, a, b)
	const n = 240
	var mu sync.Mutex
	var order []string // in which the models answered
	for _, s := range []*shelf{a, b} {
		s.act = func(context.Context, infer.Request, string) error {
			mu.Lock()
			defer mu.Unlock()
			if len(order) == 0 || order[len(order)-1] != s.name {
				order = append(order, s.name)
			}
			return nil
		}
	}
	r.run(t)
	sendTo(t, c, "both", n, "a", "b")
	requireServed(t, results(t, c, "both", n), n, "a", "b")
	mu.Lock()
	defer mu.Unlock()
	require.GreaterOrEqual(t, len(order), 4, "%v", order)
	require.Equal(t, len(order), a.loaded()+b.loaded(), "nobody is loaded for nothing")
	require.NoError(t, r.stop())
	require.Greater(t, r.most, 250*budget.MiB)
}

// TestTheLeastRecentlyUsedLeaves: of three models two fit.
func TestTheLeastRecentlyUsedLeaves(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	shelves := []*shelf{{name: "a", weights: 200 * budget.MiB}, {name: "b", weights: 200 * budget.MiB}, {name: "c", weights: 200 * budget.MiB}}
	newCrew(t, c, limitFor(2*(200*budget.MiB+pooled)), nil, shelves...).run(t)
	loaded := func() (names string) {
		for _, s := range shelves {
			if s.holds() > 0 {
				names += s.name
			}
		}
		return names
	}
	for i, step := range []struct{ wanted, loaded string }{
		{"a", "a"}, {"b", "ab"}, {"a", "ab"}, {"c", "ac"}, {"a", "ac"}, {"b", "ab"}, {"c", "bc"},
	} {
		batch := fmt.Sprint("batch ", i)
		sendTo(t, c, batch, 5, step.wanted)
		requireServed(t, results(t, c, batch, 5), 5, step.wanted)
		require.Equal(t, step.loaded, loaded(), "step %d", i)
	}
}

// TestAPoolGivesWayToAnotherModel: where that is enough nobody is unloaded, nor does a
// running job notice.
func TestAPoolGivesWayToAnotherModel(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	a, b := &shelf{name: "a", weights: 100 * budget.MiB}, &shelf{name: "b", weights: 100 * budget.MiB}
	a.act = func(ctx context.Context, _ infer.Request, _ string) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	limit := limitFor(2*(100*budget.MiB+processGrowth) + (64+12)*budget.MiB)
	r := newCrew(t, c, limit, nil, a, b).run(t)
	sendTo(t, c, "a", 1, "a")
	require.Eventually(t, func() bool { return r.Stats().Running == 1 }, 5*time.Second, time.Millisecond)
	sendTo(t, c, "b", 30, "b")
	requireServed(t, results(t, c, "b", 30), 30, "b")
	require.Less(t, a.holds(), 160*budget.MiB, "its pool has become smaller")
	require.Equal(t, 1, r.Stats().Running)
	close(goOn)
	requireServed(t, results(t, c, "a", 1), 1, "a")
	require.Equal(t, []int{1, 1}, []int{a.loaded(), b.loaded()})
}

// TestAnIdleModelGivesMemoryBackFirst where others take some of the device: one at work
// keeps its own as long as that is enough.
func TestAnIdleModelGivesMemoryBackFirst(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	goOn := make(chan struct{})
	a, b := &shelf{name: "a", weights: 100 * budget.MiB}, &shelf{name: "b", weights: 100 * budget.MiB}
	b.act = func(ctx context.Context, _ infer.Request, _ string) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r := newCrew(t, c, 2*budget.GiB, nil, a, b).run(t)
	sendTo(t, c, "a", 5, "a")
	requireServed(t, results(t, c, "a", 5), 5, "a")
	sendTo(t, c, "b", 4, "b")
	require.Eventually(t, func() bool { return r.Stats().Running == 4 }, 5*time.Second, time.Millisecond)
	require.Equal(t, []budget.Bytes{164 * budget.MiB, 164 * budget.MiB}, []budget.Bytes{a.holds(), b.holds()})
	r.mu.Lock()
	r.taken = 4*budget.GiB - processMemory - processGrowth - 2*164*budget.MiB // 64 MiB less than they hold, and their growth
	r.mu.Unlock()
	require.Eventually(t, func() bool { return a.holds() < 164*budget.MiB }, 10*time.Second, time.Millisecond)
	require.Never(t, func() bool { return b.holds() != 164*budget.MiB }, 200*time.Millisecond, 5*time.Millisecond)
	require.Equal(t, 4, r.Stats().Running)
	r.mu.Lock()
	r.taken = 0
	r.mu.Unlock()
	close(goOn)
	requireServed(t, results(t, c, "b", 4), 4, "b")
	require.Eventually(t, func() bool { return a.holds() == 164*budget.MiB }, 10*time.Second, time.Millisecond, "it takes it again")
}

// TestAModelThatCannotBeLoaded harms nobody else, and is tried again.
func TestAModelThatCannotBeLoaded(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a, b := &shelf{name: "a", weights: 100 * budget.MiB}, &shelf{name: "b", weights: 100 * budget.MiB}
	a.fault(errors.New("the file is cut off"))
	r := newCrew(t, c, limitFor(2*(100*budget.MiB+pooled)), nil, a, b).run(t)
	sendTo(t, c, "both", 40, "a", "b")
	require.Eventually(t, func() bool {
		n, err := c.CountResults(t.Context(), "both")
		return err == nil && n == 20 && len(r.self().Models) == 1
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, []string{"b"}, r.self().Models)
	require.ErrorContains(t, r.members[0].state().failure, "model a: the file is cut off")
	a.fault(nil)
	r.members[0].postpone(0) // it would be tried again in half a minute
	requireServed(t, results(t, c, "both", 40), 40, "a", "b")
	require.Equal(t, []string{"a", "b"}, r.self().Models)
}

// TestNoModelIsLeft: then the team ends, and says why of each.
func TestNoModelIsLeft(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a, b := &shelf{name: "a"}, &shelf{name: "b"}
	a.fault(errors.New("the file is cut off"))
	b.fault(errors.New("the file is gone"))
	r := newCrew(t, c, budget.GiB, nil, a, b)
	require.NoError(t, r.Start(t.Context()))
	sendTo(t, c, "both", 4, "a", "b")
	err := r.Run(t.Context())
	require.ErrorContains(t, err, "model a: the file is cut off")
	require.ErrorContains(t, err, "model b: the file is gone")
	require.NoError(t, r.Close())
}

// TestAnEngineOfATeamDies: only the jobs that were in it are tried again, and an engine
// that is gone for good takes only its model with it.
func TestAnEngineOfATeamDies(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	var once sync.Once
	gone := &infer.StartError{What: "replace the engine", Err: errors.New("it dies"), Advice: "look"}
	a, b := &shelf{name: "a", weights: 100 * budget.MiB}, &shelf{name: "b", weights: 100 * budget.MiB}
	a.act = func(context.Context, infer.Request, string) (err error) {
		once.Do(func() { err = gone })
		return err
	}
	r := newCrew(t, c, limitFor(2*(100*budget.MiB+pooled)), nil, a, b).run(t)
	sendTo(t, c, "both", 40, "a", "b")
	require.Eventually(t, func() bool { return r.members[0].state().failure != nil && a.holds() == 0 }, 10*time.Second, time.Millisecond)
	r.members[0].postpone(0)
	requireServed(t, results(t, c, "both", 40), 40, "a", "b")
	require.Equal(t, []int{2, 1}, []int{a.loaded(), b.loaded()})
}

// TestDrainWhileModelsAreSwapped: the worker is stopped while a model waits for the last
// jobs of another.
func TestDrainWhileModelsAreSwapped(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a, b := &shelf{name: "a", weights: 200 * budget.MiB}, &shelf{name: "b", weights: 200 * budget.MiB}
	a.act = func(ctx context.Context, _ infer.Request, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r := newCrew(t, c, limitFor(250*budget.MiB+pooled), func(o *Options) { o.DrainTimeout = 50 * time.Millisecond }, a, b).run(t)
	sendTo(t, c, "a", 10, "a")
	require.Eventually(t, func() bool { return r.Stats().Running > 0 }, 10*time.Second, time.Millisecond)
	sendTo(t, c, "b", 10, "b")
	var w *Worker
	require.Eventually(t, func() bool {
		w = r.members[0].state().worker
		return w != nil && w.retired.Err() != nil && w.count() > 0
	}, 10*time.Second, time.Millisecond, "it is never asked to leave")
	require.NoError(t, r.stop())
	require.Zero(t, b.loaded())
	newCrew(t, c, budget.GiB, nil, &shelf{name: "a"}, &shelf{name: "b"}).run(t)
	requireServed(t, results(t, c, "a", 10), 10, "a")
	requireServed(t, results(t, c, "b", 10), 10, "b")
}

// TestTeamsThatCannotStart say which model is at fault, and leave nothing behind.
func TestTeamsThatCannotStart(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a, b := &shelf{name: "a"}, &shelf{name: "b", weights: 500 * budget.MiB}
	r := newCrew(t, c, 400*budget.MiB, nil, a, b)
	err := r.Start(t.Context())
	var large *budget.TooLargeError
	require.ErrorAs(t, err, &large)
	require.ErrorContains(t, err, "model b: ")
	require.NoError(t, r.Close())
	claims, err := c.Claims(t.Context(), "the device")
	require.NoError(t, err)
	require.Empty(t, claims)

	all, err := newCrew(t, c, 400*budget.MiB, nil, a, b).Preview(t.Context(), nil)
	require.ErrorAs(t, err, &large)
	require.Len(t, all, 2)
	require.Equal(t, 1024, all[0].Plan.Cells)
	require.Zero(t, all[1].Plan.Cells)

	require.ErrorContains(t, newCrew(t, c, 70*budget.MiB, nil, a, b).Start(t.Context()), "the worker's own process")
}

// TestOneModel: a team of one is a worker.
func TestOneModel(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a := &shelf{name: "a", weights: budget.MiB}
	r := newCrew(t, c, budget.GiB, nil, a)
	require.NoError(t, r.Start(t.Context()))
	require.Equal(t, 1, a.loaded(), "at once")
	require.Equal(t, "a", r.Model())
	require.Equal(t, r.only.OwnShare(), r.OwnShare())
	require.Equal(t, r.only.Parallel(), r.Parallel())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	sendTo(t, c, "b", 10, "a")
	requireServed(t, results(t, c, "b", 10), 10, "a")
	require.Equal(t, int64(20), r.Stats().Tokens)
	require.Len(t, r.EachStats(), 1)
	claims, err := c.Claims(t.Context(), "the device")
	require.NoError(t, err)
	require.Len(t, claims, 1)
	require.Equal(t, "crew", claims[0].Worker)
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, r.Close())
	require.Zero(t, a.holds())
}

// TestAnEngineProcessOfATeamDies: it takes the job with it that kills it, and nobody
// else's.
func TestAnEngineProcessOfATeamDies(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	var made atomic.Pointer[engines]
	a, b := &shelf{name: "a", make: func() infer.Engine {
		made.Store(newEngines(t, nil))
		return made.Load().Host
	}}, &shelf{name: "b", weights: 100 * budget.MiB}
	newCrew(t, c, budget.GiB, nil, a, b).run(t)
	sendTo(t, c, "b", 60, "b")
	_, _, err := c.CreateBatch(t.Context(), api.Batch{
		ID: "a", Object: "batch", Status: api.InProgress, Tempo: api.BatchTempo{Priority: api.Normal, Models: []string{"a"}},
	})
	require.NoError(t, err)
	_, err = c.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) {
		for i, prompt := range []string{"good 0", "poison 1", "good 2", "good 3"} {
			if !yield(api.Job{
				ID: fmt.Sprint(i), Batch: "a", CustomID: fmt.Sprintf("custom-%d", i), Model: "a", Priority: api.Normal, URL: api.ChatCompletions,
				Body: json.RawMessage(fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, prompt)),
			}, nil) {
				return
			}
		}
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // processes start slowly where many tests run
		n, err := c.CountResults(t.Context(), "a")
		return err == nil && n == 4
	}, time.Minute, 10*time.Millisecond)
	for id, r := range results(t, c, "a", 4) {
		if id == "custom-1" {
			require.Equal(t, "engine_crashed", *requireFailed(t, r, 500).Code)
			continue
		}
		require.True(t, r.OK(), "%+v", r)
	}
	require.GreaterOrEqual(t, len(made.Load().begun()), 2, "one after the other has died")
	requireServed(t, results(t, c, "b", 60), 60, "b")
	require.Equal(t, 1, b.loaded())
}

// TestTheProcessItselfCounts: what it comes to hold beyond what is booked for it is taken
// from the models' room, and others are told.
func TestTheProcessItselfCounts(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	var own atomic.Int64
	own.Store(int64(processMemory))
	a, b := &shelf{name: "a", weights: 100 * budget.MiB}, &shelf{name: "b", weights: 100 * budget.MiB}
	r := newCrew(t, c, budget.GiB, func(o *Options) {
		o.Measure = func(int) (budget.Bytes, error) { return budget.Bytes(own.Load()), nil }
	}, a, b).run(t)
	claimed := func() budget.Bytes {
		claims, err := c.Claims(t.Context(), "the device")
		require.NoError(t, err)
		require.Len(t, claims, 1)
		require.Equal(t, "crew", claims[0].Worker)
		return budget.Bytes(claims[0].Bytes)
	}
	require.Equal(t, processMemory+processGrowth, r.OwnShare())
	require.Equal(t, r.OwnShare(), claimed())
	before := r.common.room("a")
	own.Store(int64(500 * budget.MiB))
	require.Eventually(t, func() bool { return claimed() == 500*budget.MiB }, 5*time.Second, time.Millisecond)
	require.Less(t, r.common.room("a"), before-400*budget.MiB)
	own.Store(int64(processMemory))
	require.Eventually(t, func() bool { return claimed() == r.OwnShare() && r.common.room("a") == before }, 5*time.Second, time.Millisecond)
}
