package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/gguf"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local"
)

// Every architecture is loaded by llama.cpp, and takes what its file and the dry
// run say it will. The engine is in this process: what that takes says nothing.
func TestTrials(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for _, c := range trials("") {
		architecture, _, _ := strings.Cut(c.name, " ")
		if tried[architecture] {
			continue
		}
		tried[architecture] = true
		c.cells, c.batch, c.sequences = 512, 64, 4
		c.model.Embedding, c.model.FeedForward, c.model.Vocab = 128, 128, 512
		c.model.Layers = 3
		if c.model.HeadSize == 0 {
			c.model.Heads, c.model.KVHeads = 4, 2
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := local.New(nil)
			got, err := c.try(t.Context(), e, t.TempDir(), infertest.LibDir(t), func() (budget.Bytes, error) {
				return budget.ProportionalSetSize(os.Getpid())
			})
			require.NoError(t, err)
			require.NoError(t, e.Close())
			const rounding = 16 << 10 // of sizes in MiB with two decimals
			for _, p := range got.parts() {
				if p.name != "total" {
					require.InDelta(t, float64(p.real), float64(p.estimated), rounding, p.name)
				}
			}
		})
	}
	require.Len(t, tried, 6)
}

func TestOutcomeRows(t *testing.T) {
	t.Parallel()
	o := outcome{
		estimate:  budget.Footprint{Weights: 97, KVCache: 100, ParallelBatch: 105, Overhead: 10},
		allocated: budget.Footprint{Weights: 100, KVCache: 100, ParallelBatch: 100},
		layers:    101, process: 300,
	}
	rows := o.rows(trials("")[0])
	require.Len(t, rows, 5)
	require.InDelta(t, 3, rows[0].Ours, 1e-9, "without the sign")
	require.Less(t, rows[0].Ratio, rows[0].AtLeast, "3 % where 2 are allowed")
	require.InDelta(t, leastError, rows[1].Ours, 1e-9, "no error at all divides too")
	require.InDelta(t, 2/leastError, rows[1].Ratio, 1e-6)
	require.InDelta(t, 2, rows[2].Ratio, 1e-9)
	require.InDelta(t, 2, rows[3].Ratio, 1e-9)
	require.InDelta(t, 4, rows[4].Ours, 1e-9)
	for _, r := range rows {
		require.Equal(t, "bound", r.Against)
		require.Contains(t, r.Work, "llama F16 8×8/8×64, 8192 cells f16/f16, batch 512, 8 sequences")
	}
	var shown strings.Builder
	require.NoError(t, worst(&shown, "estimate", rows))
	require.Contains(t, shown.String(), "weights of llama F16")
	require.Contains(t, shown.String(), "1 of 5 out of bounds")

	shown.Reset()
	table := newEstimateTable(&shown)
	table.add(trials("model.gguf")[13], o)
	require.NoError(t, table.flush())
	require.Contains(t, shown.String(), "example model, 8192 cells f16/f16")
	require.Contains(t, shown.String(), "-3.00")
}

func TestTrialsAreEnough(t *testing.T) {
	t.Parallel()
	require.GreaterOrEqual(t, len(trials("")), 12)
	require.Greater(t, len(trials("model.gguf")), len(trials("")))
	for _, c := range trials("model.gguf") {
		for _, name := range []string{c.typeK, c.typeV} {
			_, ok := gguf.CacheType(name)
			require.True(t, ok, name)
		}
	}
}
