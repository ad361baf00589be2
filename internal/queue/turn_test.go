package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"tempo/api"
)

// turnJobs is how many jobs a turn has, if none tells its cost.
const turnJobs = quantum / firstCost

// awaitLanes waits until a taker knows n batches, and none of them rests.
func awaitLanes(t *testing.T, taker *Taker, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		awake := 0
		for rank := range ranks {
			awake += len(taker.awake(rank))
		}
		return awake == n
	}, 5*time.Second, time.Millisecond)
}

// runs says how many deliveries in a row are of which batch: "a×3 b×2".
func runs(got []*Delivery) string {
	var all []string
	for len(got) > 0 {
		batch := got[0].Job.Batch
		n := slices.IndexFunc(got, func(d *Delivery) bool { return d.Job.Batch != batch })
		if n < 0 {
			n = len(got)
		}
		all = append(all, fmt.Sprintf("%s×%d", batch, n))
		got = got[n:]
	}
	return strings.Join(all, " ")
}

// takeBy takes n jobs, each time as many as there are of size.
func takeBy(t *testing.T, taker *Taker, n, size int) []*Delivery {
	t.Helper()
	var got []*Delivery
	for len(got) < n {
		got = append(got, take(t, taker, min(size, n-len(got)))...)
	}
	return got
}

func TestFetchStaysWithABatchForAQuantum(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 20, 200} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			c := newQueue(t)
			for _, id := range []string{"a", "b", "c"} {
				newBatch(t, c, api.Batch{ID: id}, 3*turnJobs)
			}
			taker, _ := newTaker(t, c, 0)
			awaitLanes(t, taker, 3)
			require.Equal(t, "a×32 b×32 c×32 a×32 b×32 c×32", runs(takeBy(t, taker, 6*turnJobs, size)))
		})
	}
}

func TestQuantumIsInTokens(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	tokens := map[string]int{"a": quantum / 40, "b": quantum / 10}
	newBatch(t, c, api.Batch{ID: "a"}, 100)
	newBatch(t, c, api.Batch{ID: "b"}, 100)
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 2)
	var got []*Delivery
	for range 2 * (41 + 11) { // 64 Ki / 40 tokens are a little less than a fortieth
		d := take(t, taker, 1)[0]
		d.Served(tokens[d.Job.Batch])
		complete(t, d)
		got = append(got, d)
	}
	require.Equal(t, "a×41 b×11 a×41 b×11", runs(got))
}

func TestBatchThatComesLateIsNext(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "huge"}, 500)
	newBatch(t, c, api.Batch{ID: "large"}, 500)
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 2)
	require.Equal(t, "huge×32 large×32 huge×10", runs(takeBy(t, taker, 74, 1)))
	newBatch(t, c, api.Batch{ID: "small"}, 3)
	awaitLanes(t, taker, 3)
	require.Equal(t, "huge×22 small×3 large×32 huge×32", runs(takeBy(t, taker, 89, 1)))
}

func TestBatchesGetEqualSharesOfTokens(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	sizes := map[string]int{"small": 1500, "medium": 4000, "large": 12000}
	for id, size := range sizes {
		newBatch(t, c, api.Batch{ID: id}, 15*quantum/size)
	}
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 3)
	used := map[string]int{}
	total := 0
	var running []*Delivery
	for n := 0; total < 30*quantum; n++ {
		if len(running) < 12 {
			running = append(running, take(t, taker, 12-len(running))...)
		}
		d := running[0] // the oldest ends, when others have come since
		running = running[1:]
		size := sizes[d.Job.Batch] * (50 + 20*(n%6)) / 100 // around its batch's size
		d.Served(size)
		complete(t, d)
		used[d.Job.Batch] += size
		total += size
	}
	for id := range sizes {
		require.InDelta(t, 10*quantum, used[id], 1.5*quantum, "%s of %v", id, used)
	}
}

func TestLowBatchesTakeTurnsBehindAHighOne(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "high", Tempo: api.BatchTempo{Priority: api.High}}, 300)
	newBatch(t, c, api.Batch{ID: "low 1", Tempo: api.BatchTempo{Priority: api.Low}}, 20)
	newBatch(t, c, api.Batch{ID: "low 2", Tempo: api.BatchTempo{Priority: api.Low}}, 20)
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 3)
	var low []*Delivery
	for range 16 * 16 {
		d := take(t, taker, 1)[0]
		d.Served(quantum / 4)
		complete(t, d)
		if d.Job.Batch != "high" {
			low = append(low, d)
		}
	}
	require.Equal(t, "low 1×4 low 2×4 low 1×4 low 2×4", runs(low))
}

func TestBatchThatRunsDryGivesItsTurnAway(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	createBatch(t, c, api.Batch{ID: "empty"})
	newBatch(t, c, api.Batch{ID: "a"}, 5)
	newBatch(t, c, api.Batch{ID: "b"}, 500)
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 3)
	got, err := taker.Fetch(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, "a×5 b×5", runs(got))
	require.Equal(t, "b×123", runs(takeBy(t, taker, 123, 3)), "at once, whatever the others had left")

	// When it has jobs again it gets its share, but not what it had no jobs for.
	_, err = c.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) {
		for i := range 200 {
			if !yield(newJob("a", 5+i), nil) {
				return
			}
		}
	})
	require.NoError(t, err)
	awaitLanes(t, taker, 3)
	got = takeBy(t, taker, 200, 1)
	first := slices.IndexFunc(got, func(d *Delivery) bool { return d.Job.Batch == "a" })
	require.True(t, first >= 0 && first <= turnJobs, "it comes after %d jobs", first)
	require.Equal(t, "a×32 b×32 a×32 b×32", runs(got[first:first+4*turnJobs]))
}

// TestBatchThatFailsKeepsNobodyWaiting: another consumer has the batch's filter, which
// the server allows once only.
func TestBatchThatFailsKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "bad"}, 2)
	newBatch(t, c, api.Batch{ID: "good"}, 100)
	_, err := c.js.CreateConsumer(t.Context(), streamJobs, jetstream.ConsumerConfig{
		Durable: "squatter", FilterSubject: jobsOf(model, "bad"), AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 2)
	require.Equal(t, "good×100", runs(takeBy(t, taker, 100, 1)))

	rounds := func() uint64 {
		taker.mu.Lock()
		defer taker.mu.Unlock()
		return taker.round
	}
	before := rounds()
	takeNone(t, taker) // for 300 ms, in steps of at least lingerLeast
	require.Less(t, rounds()-before, uint64(30), "a busy loop")

	require.NoError(t, c.deleteConsumer(t.Context(), "squatter"))
	require.Equal(t, "bad×2", runs(take(t, taker, 2)))
}

// TestJobsThatComeBackKeepNobodyWaiting: jobs that were given back for later are no
// reason to wait for them.
func TestJobsThatComeBackKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "a"}, 3)
	newBatch(t, c, api.Batch{ID: "b"}, 100)
	taker, _ := newTaker(t, c, 0)
	awaitLanes(t, taker, 2)
	for _, d := range take(t, taker, 3) {
		require.Equal(t, "a", d.Job.Batch)
		require.NoError(t, d.GiveBack(t.Context(), time.Hour))
	}
	require.Equal(t, "b×100", runs(takeBy(t, taker, 100, 7)))
}

func TestServed(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "b"}, 5)
	taker, _ := newTaker(t, c, 0)
	got := take(t, taker, 4)
	account := func() (used, cost int64, open int) {
		taker.mu.Lock()
		defer taker.mu.Unlock()
		l := taker.lanes[consumerName(model, "b")]
		return l.used, l.cost, len(taker.charges)
	}
	requireAccount := func(used, cost int64, open int) {
		t.Helper()
		u, c, n := account()
		require.Equal(t, []int64{used, cost, int64(open)}, []int64{u, c, int64(n)}, "used, cost, open")
	}
	requireAccount(4*firstCost, firstCost, 4)
	got[0].Served(2 * firstCost)
	requireAccount(5*firstCost, firstCost+firstCost/8, 3)
	got[0].Served(1) // once only
	requireAccount(5*firstCost, firstCost+firstCost/8, 3)
	complete(t, got[0])
	got[1].Served(0) // nothing is for free
	cost := int64(firstCost + firstCost/8)
	cost += (leastCost - cost) / 8
	requireAccount(4*firstCost+leastCost, cost, 2)
	complete(t, got[1])
	complete(t, got[2]) // without a word: what it was charged stays
	require.NoError(t, got[3].GiveBack(t.Context(), time.Hour))
	last := take(t, taker, 1)[0]
	requireAccount(4*firstCost+leastCost+cost, cost, 1)
	complete(t, last)
	(&Delivery{}).Served(1) // nobody's
}

// TestBatchThatChangesItsPriority: what it had used among others does not count.
func TestBatchThatChangesItsPriority(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	newBatch(t, c, api.Batch{ID: "a", Tempo: api.BatchTempo{Priority: api.Low}}, 200)
	taker, _ := newTaker(t, c, 0)
	require.Equal(t, "a×96", runs(takeBy(t, taker, 96, 8)))
	newBatch(t, c, api.Batch{ID: "b", Tempo: api.BatchTempo{Priority: api.High}}, 200)
	_, err := c.UpdateBatch(t.Context(), "a", func(b *api.Batch) error { b.Tempo.Priority = api.High; return nil })
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(taker.awake(rank(api.High))) == 2 }, 5*time.Second, time.Millisecond)
	require.Equal(t, "b×32 a×32 b×32 a×32", runs(takeBy(t, taker, 128, 1)))
}
