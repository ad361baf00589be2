package worker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
)

// TestChoose: no more is taken than needed, and in order.
func TestChoose(t *testing.T) {
	t.Parallel()
	a, b, c := &member{Model: Model{Name: "a"}}, &member{Model: Model{Name: "b"}}, &member{Model: Model{Name: "c"}}
	offers := []offer{{from: a, frees: 10}, {from: b, frees: 20}, {from: a, frees: 100, unload: true}, {from: b, frees: 100, unload: true}, {from: c, frees: 50, unload: true}}
	for need, want := range map[budget.Bytes]string{
		-5: "", 0: "", 1: "a", 10: "a", 11: "b", 30: "ab", 31: "A", 100: "A", 101: "bA", 120: "bA", 121: "AB", 201: "ABC", 250: "ABC", 251: "none",
	} {
		chosen, ok := choose(need, offers)
		got := ""
		for _, o := range chosen {
			name := o.from.Name
			if o.unload {
				name = string(name[0] - 'a' + 'A')
			}
			got += name
		}
		if !ok {
			got = "none"
		}
		require.Equal(t, want, got, "%d", need)
	}
}

// quiet is a taker and a queue of which a test says what they have.
type quiet struct {
	Queue
	mu   sync.Mutex
	jobs queue.Backlog // guarded by mu
}

func (q *quiet) set(jobs queue.Backlog) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = jobs
}

func (q *quiet) Backlog(context.Context) (queue.Backlog, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.jobs, nil
}

func (*quiet) Changed() <-chan struct{} { return nil }

func (*quiet) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (*quiet) Fetch(ctx context.Context, _ int) ([]*queue.Delivery, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*quiet) Announce(context.Context, api.Worker) error               { return nil }
func (*quiet) Withdraw(context.Context, string) error                   { return nil }
func (*quiet) PublishModelStats(context.Context, api.MemoryStats) error { return nil }

// quietTeam runs a team over takers that give no jobs.
func quietTeam(t *testing.T, limit budget.Bytes, atOnce int, names ...string) (*Team, map[string]*quiet) {
	t.Helper()
	opts := Options{
		Name: "crew", Device: budget.Device{ID: "cpu", Kind: budget.CPU}, Limit: limit, MaxParallelTokens: 4, MaxCacheTokens: 1024, AtOnce: atOnce,
		Measure: func(int) (budget.Bytes, error) { return processMemory, nil },
	}
	takers := map[string]*quiet{}
	var models []Model
	for _, name := range names {
		s := &shelf{name: name, weights: 100 * budget.MiB}
		takers[name] = &quiet{}
		m := Model{
			Name: name, Spec: infer.Spec{GPU: -1, Threads: 1, Batch: 512}, Engine: s.engine, Taker: takers[name],
			Monitor: budget.NewMonitor(func(int) (budget.Bytes, error) { return s.holds(), nil }, time.Second, nil),
		}
		m.Monitor.Add(1)
		models = append(models, m)
	}
	team := NewTeam(opts, &quiet{}, models, nil)
	require.NoError(t, team.Start(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- team.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, team.Close())
	})
	return team, takers
}

// names are those of the members that are loaded.
func (t *Team) names() (loaded string) {
	for _, m := range t.members {
		if m.state().worker != nil {
			loaded += m.Name
		}
	}
	return loaded
}

// busy has jobs of a model come and go, one in a second, for n seconds or until it is
// not loaded any more.
func (t *Team) busy(test *testing.T, m *member, n int) {
	for range n {
		w := m.state().worker
		if w == nil || w.retired.Err() != nil {
			return
		}
		release := w.holdIntake() // else it has all slots and memory, for jobs to come
		finish(w, newJob(test, w, "job", 100))
		release()
		wait(time.Second)
	}
}

// wait lets time pass in a bubble.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestTurnsOfModelsThatDoNotFit: one at work keeps its place for a minute, an idle one
// for two looks.
func TestTurnsOfModelsThatDoNotFit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		team, takers := quietTeam(t, limitFor(150*budget.MiB+pooled), 0, "a", "b")
		a := team.members[0]
		wait(time.Hour)
		require.Empty(t, team.names(), "nobody has jobs")
		takers["a"].set(queue.JobsWaiting)
		wait(2 * time.Second)
		require.Equal(t, "a", team.names())
		takers["b"].set(queue.JobsWaiting)
		team.busy(t, a, 55)
		require.Equal(t, "a", team.names(), "it has not had its turn")
		team.busy(t, a, 10)
		wait(time.Second)
		require.Equal(t, "b", team.names())

		// b is idle; a has jobs of which nobody knows whether they wait.
		takers["a"].set(queue.JobsElsewhere)
		takers["b"].set(queue.NoJobs)
		wait(5 * time.Second)
		require.Equal(t, "a", team.names())
		takers["b"].set(queue.JobsElsewhere)
		team.busy(t, a, 58)
		require.Equal(t, "a", team.names())
		takers["b"].set(queue.NoJobs)
		team.busy(t, a, 5)
		takers["b"].set(queue.JobsElsewhere)
		team.busy(t, a, 58)
		require.Equal(t, "a", team.names(), "one at work is not unloaded for a guess")
		team.busy(t, a, 5)
		wait(time.Second)
		require.Equal(t, "b", team.names(), "unless it has been possible for as long as a turn")
	})
}

// TestTurnsOnACPU: both fit, and only one works at a time.
func TestTurnsOnACPU(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		team, takers := quietTeam(t, 4*budget.GiB, 1, "a", "b")
		takers["a"].set(queue.JobsWaiting)
		wait(2 * time.Second)
		takers["b"].set(queue.JobsWaiting)
		team.busy(t, team.members[0], 55)
		require.Equal(t, "a", team.names())
		team.busy(t, team.members[0], 10)
		for range 3 { // a and b in turn
			wait(2 * time.Second)
			require.Equal(t, "ab", team.names(), "nobody is unloaded")
			a, b := team.members[0].state().worker, team.members[1].state().worker
			require.Equal(t, []int{1, 0}, []int{holders(a), holders(b)})
			takers["a"].set(queue.JobsWaiting)
			wait(5 * time.Second) // b is idle
			require.Equal(t, []int{0, 1}, []int{holders(a), holders(b)})
			takers["b"].set(queue.JobsWaiting)
			takers["a"].set(queue.NoJobs)
			wait(3 * time.Second)
		}
	})
}

func holders(w *Worker) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holders
}

// TestOnlySomeWorkAtOnce: the jobs of two models that both fit are never in their
// engines together, and all are answered.
func TestOnlySomeWorkAtOnce(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	a := &shelf{name: "a", weights: 100 * budget.MiB, delay: 2 * time.Millisecond}
	b := &shelf{name: "b", weights: 100 * budget.MiB, delay: 2 * time.Millisecond}
	var mu sync.Mutex
	working := map[string]int{}
	for _, s := range []*shelf{a, b} {
		other := map[string]string{"a": "b", "b": "a"}[s.name]
		s.act = func(context.Context, infer.Request, string) error {
			mu.Lock()
			working[s.name]++
			if working[other] > 0 {
				t.Errorf("%s works beside %s", s.name, other)
			}
			mu.Unlock()
			time.AfterFunc(time.Millisecond, func() {
				mu.Lock()
				defer mu.Unlock()
				working[s.name]--
			})
			return nil
		}
	}
	newCrew(t, c, budget.GiB, func(o *Options) { o.AtOnce = 1 }, a, b).run(t)
	const n = 200
	sendTo(t, c, "both", n, "a", "b")
	requireServed(t, results(t, c, "both", n), n, "a", "b")
	require.Equal(t, []int{1, 1}, []int{a.loaded(), b.loaded()})
}
