package schedule

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func lengths(n, length int, more ...int) []need {
	var all []need
	for range n {
		all = append(all, need{tokens: length})
	}
	for _, l := range more {
		all = append(all, need{tokens: l})
	}
	return all
}

func exact(n int, needs ...need) []need {
	return append(needs, need{tokens: n, exact: true})
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		kind     string
		cells, n int
		costs    costs
		needs    []need
		want     []layout
	}{
		{"nobody there", Auto, 16384, 16, onCPU(), nil, []layout{{cells: 16384, streams: 16}}},
		{"short jobs", Auto, 16384, 16, onCPU(), lengths(16, 200), []layout{{cells: 16384, streams: 16}}},
		{"a pool too small for streams", Auto, 1024, 16, onCPU(), lengths(16, 40), []layout{{cells: 1024}}},
		{"few jobs in a small pool", Auto, 1024, 16, onCPU(), lengths(3, 40), []layout{{cells: 1024, streams: 4}}},
		{"one long job alone", Auto, 16384, 16, onCPU(), lengths(1, 9000), []layout{{cells: 16384, streams: 1}}},
		{"long jobs", Auto, 16384, 16, onCPU(), lengths(16, 3000), []layout{{cells: 15360, streams: 5}}},
		{"somewhat long jobs", Auto, 16384, 16, onCPU(), lengths(60, 700, 1250), []layout{{cells: 15360, streams: 12}}},
		{"long jobs on a GPU", Auto, 16384, 16, onGPU(), lengths(16, 1500), []layout{{cells: 16384}}},
		{"one long among short", Auto, 16384, 16, onCPU(), lengths(15, 200, 4000), []layout{{cells: 12288, streams: 16}, {cells: 4096}}},
		{"half of them long", Auto, 16384, 16, onCPU(), append(lengths(8, 200), lengths(8, 1500)...), []layout{{cells: 15360, streams: 10}}},
		{"one very long among short", Auto, 16384, 16, onCPU(), lengths(15, 200, 9000), []layout{{cells: 16384}}},
		{"longer than the pool", Auto, 512, 4, onCPU(), lengths(1, 5000), []layout{{cells: 512, streams: 1}}},
		{"exact", Auto, 16384, 16, onCPU(), exact(10, lengths(16, 3000)...), []layout{{cells: 15360, streams: 5, exact: true}}},
		{"exact against the wish", Unified, 16384, 16, onCPU(), exact(10), []layout{{cells: 16384, streams: 16, exact: true}}},
		{"unified", Unified, 16384, 16, onCPU(), lengths(16, 200), []layout{{cells: 16384}}},
		{"streams", Streams, 16384, 16, onCPU(), lengths(16, 3000), []layout{{cells: 15360, streams: 5}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, divider{kind: c.kind, cells: c.cells, n: c.n, costs: c.costs}.choose(c.needs))
		})
	}
}

// Whatever the jobs: the cells are not passed, and every job that fits into them has a
// context that takes it.
func TestChooseFits(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		cells, n := 256*(1+random.IntN(100)), 1+random.IntN(64)
		wantsExact := random.IntN(5) == 0
		var needs []need
		for i := range random.IntN(80) {
			needs = append(needs, need{tokens: 1 + random.IntN(cells*5/4), exact: wantsExact && i == 0})
		}
		wantsExact = wantsExact && len(needs) > 0
		d := divider{
			kind: []string{Auto, Streams, Unified}[random.IntN(3)], cells: cells, n: n,
			singly: random.IntN(2) == 0, costs: []costs{onCPU(), onGPU()}[random.IntN(2)],
		}
		sum, longest := 0, 0
		for _, l := range d.choose(needs) {
			sum += l.cells
			longest = max(longest, l.longest())
			require.LessOrEqual(t, l.streams, n)
			require.Zero(t, l.cells%streamUnit)
			require.Equal(t, wantsExact, l.exact)
			require.Zero(t, l.cells%max(l.streams, 1))
		}
		require.LessOrEqual(t, sum, cells)
		for _, e := range needs {
			if e.tokens <= cells {
				require.LessOrEqual(t, e.tokens, longest, "%d in %d cells, %+v", e.tokens, cells, needs)
			}
		}
	}
}
