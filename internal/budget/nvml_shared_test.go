package budget

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/queue" //nolint:depguard // for this test alone: the limit and the claims of both packages together
)

// sharing is a worker that shares a mock GPU, in as far as its memory goes.
type sharing struct {
	name  string
	gpu   *GPU
	queue *queue.Client
	mine  Claimed
	why   string
}

// claim sets the promise to what there is for this worker, as all workers do every
// second.
func (w *sharing) claim(ctx context.Context, maximum, reserve Bytes) error {
	dev, err := w.gpu.Device()
	if err != nil {
		return err
	}
	mine := w.mine // of which the promise stands until another is stored
	err = w.queue.Claim(ctx, dev.MemoryID, w.name, func(others []api.Claim) (api.Claim, error) {
		r := LimitRequest{Maximum: maximum, Device: dev, Mine: mine.Held, Target: mine.Target, Promised: mine.Promised, Reserve: reserve}
		for _, c := range others {
			r.Others = append(r.Others, Claimed{Promised: Bytes(c.Bytes), Held: Bytes(c.Held), Target: Bytes(c.Target)})
		}
		w.mine.Promised, w.why = EffectiveLimit(r)
		return api.Claim{Bytes: int64(w.mine.Promised), Held: int64(mine.Held), Target: int64(mine.Target)}, nil
	})
	return err
}

// TestTwoWorkersOnOneGPU has two workers that may take 60 GiB each start at the same
// moment on a GPU of 80 GiB, of which somebody else uses 8.
func TestTwoWorkersOnOneGPU(t *testing.T) {
	t.Parallel()
	const maximum, foreign, reserve = 60 * GiB, 8 * GiB, 512 * MiB
	s, devices := h100s(t)
	mock := devices[0]
	usable := 80*GiB - driverReserve
	free := usable - foreign
	setFree(mock, free)
	var memory sync.Mutex // of the mock GPU
	v2 := mock.GetMemoryInfo_v2Func
	mock.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		memory.Lock()
		defer memory.Unlock()
		return v2()
	}
	use := func(w *sharing, n Bytes) { // n more
		memory.Lock()
		defer memory.Unlock()
		free -= n
		v2 = memoryOf(mock, free)
		w.mine.Held += n
	}

	e, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	workers := []*sharing{{name: "one"}, {name: "two"}}
	for _, w := range workers {
		w.queue, err = queue.ConnectEmbedded(t.Context(), e, nil)
		require.NoError(t, err)
		t.Cleanup(w.queue.Close)
		require.NoError(t, w.queue.EnsureTopology(t.Context(), queue.Topology{ClaimTTL: 2 * time.Second}))
		w.gpu, err = newGPU(start(t, s), mock.UUID)
		require.NoError(t, err)
	}
	say := func(when string) {
		var together Bytes
		for _, w := range workers {
			t.Logf("%s: worker %s holds %v, its limit is %v: %s", when, w.name, w.mine.Held, w.mine.Promised, w.why)
			together += w.mine.Promised
		}
		require.LessOrEqual(t, together, usable-foreign-reserve)
		t.Logf("%s: together they are promised %v of %v (80 GiB, less the driver's %v, others' %v, a reserve of %v)",
			when, together, usable-foreign-reserve, driverReserve, foreign, reserve)
	}
	claimAll := func() {
		var both errgroup.Group
		for _, w := range workers {
			both.Go(func() error { return w.claim(t.Context(), maximum, reserve) })
		}
		require.NoError(t, both.Wait())
	}
	claimAll()
	say("at the start")
	first, second := workers[0], workers[1]
	if first.mine.Promised < second.mine.Promised {
		first, second = second, first
	}
	const rest = 80*GiB - driverReserve - foreign - reserve - maximum
	require.Equal(t, maximum, first.mine.Promised)
	require.Equal(t, rest, second.mine.Promised)
	require.Contains(t, second.why, "1 other worker has claimed 60.0 GiB more")

	first.mine.Target, second.mine.Target = 40*GiB, 10*GiB
	for range 5 { // both load their models, and say each second how far they are
		claimAll()
		use(first, 8*GiB)
		use(second, 2*GiB)
		claimAll()
		require.Equal(t, maximum, first.mine.Promised, first.why)
		require.Equal(t, rest, second.mine.Promised, second.why)
	}
	first.mine.Target, second.mine.Target = 0, 0
	say("after both have loaded")

	use(first, -first.mine.Held) // it is killed, and the driver takes its memory back
	first.mine, first.why = Claimed{}, "it is dead"
	require.NoError(t, second.claim(t.Context(), maximum, reserve))
	require.Less(t, second.mine.Promised, maximum, "its claim stands for a while")
	say("one is killed")
	require.Eventually(t, func() bool {
		require.NoError(t, second.claim(t.Context(), maximum, reserve))
		return second.mine.Promised == maximum
	}, 10*time.Second, 100*time.Millisecond)
	say("and its claim has expired")
}
