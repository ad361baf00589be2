package sample

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEach(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{-1, 1, 2, 3, 8} {
		w := NewWorkers(workers)
		for _, n := range []int{0, 1, 2, 3, 7, 100, 256} {
			for range 20 {
				calls := make([]atomic.Int32, n)
				w.Each(n, func(i int) { calls[i].Add(1) })
				for i := range calls {
					require.Equal(t, int32(1), calls[i].Load(), "%d of %d with %d workers", i, n, workers)
				}
			}
		}
		w.Close()
	}
}

// Each really runs as many at once: each call waits for the others.
func TestEachAtOnce(t *testing.T) {
	t.Parallel()
	const workers = 4
	w := NewWorkers(workers)
	defer w.Close()
	for range 10 {
		var all sync.WaitGroup
		all.Add(workers)
		w.Each(workers, func(int) {
			all.Done()
			all.Wait()
		})
	}
}

// The tokens are the same on any number of cores.
func TestWorkersMakeNoDifference(t *testing.T) {
	t.Parallel()
	const vocab, jobs, steps = 3000, 40, 5
	var want [][]Picked
	for _, workers := range []int{1, 2, 5} {
		w := NewWorkers(workers)
		var got [][]Picked
		samplers := make([]*Sampler, jobs)
		for i := range samplers {
			samplers[i] = New(Options{
				Seed: uint64(i), Temperature: float64(i%3) / 2, TopK: i % 2 * 30, FrequencyPenalty: 0.5,
				Logprobs: true, Top: 3,
			}, vocab)
		}
		for step := range uint64(steps) {
			picked := make([]Picked, jobs)
			errs := make([]error, jobs)
			w.Each(jobs, func(i int) {
				picked[i], errs[i] = samplers[i].Next(modelLogits(step*jobs+uint64(i), vocab), nil)
			})
			for _, err := range errs {
				require.NoError(t, err)
			}
			got = append(got, picked)
		}
		w.Close()
		if want == nil {
			want = got
		}
		require.Equal(t, want, got, "%d workers", workers)
	}
}

// Not parallel: all allocations of the process count.
func TestEachAllocatesNothing(t *testing.T) {
	w := NewWorkers(2)
	defer w.Close()
	var sum atomic.Int64
	f := func(i int) { sum.Add(int64(i)) }
	require.Zero(t, testing.AllocsPerRun(50, func() { w.Each(64, f) }))
	require.Equal(t, int64(51*64*63/2), sum.Load())
}
