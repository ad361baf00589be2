package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tempo/internal/cli"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 2.0, median([]float64{9, 1, 2}), 0)
	require.InDelta(t, 2.5, median([]float64{4, 3, 1, 2}), 0)
	require.InDelta(t, 7.0, median([]float64{7}), 0)
}

func TestCompareTakesTurns(t *testing.T) {
	t.Parallel()
	var order strings.Builder
	rate := func(name string, rates ...float64) side {
		return func(context.Context) (float64, error) {
			order.WriteString(name)
			r := rates[0]
			rates = rates[1:]
			return r, nil
		}
	}
	r, err := compare(t.Context(), row{AtLeast: 0.9}, 3, rate("o", 1000, 5, 9, 7), rate("t", 1000, 10, 20, 30))
	require.NoError(t, err)
	require.Equal(t, "ottoottoo"[:8], order.String())
	require.Equal(t, row{Ours: 7, Theirs: 20, Ratio: 0.35, AtLeast: 0.9, Runs: 3}, r)
	require.Equal(t, "0.90, missed", r.goal())
}

func TestUnknownNameIsAUsageError(t *testing.T) {
	t.Parallel()
	o := options{out: t.Output(), log: zap.NewNop(), dir: t.TempDir(), runs: 1}
	err := o.run(t.Context(), []string{"quue"})
	require.ErrorContains(t, err, `there is no benchmark "quue", there are: path, queue, estimate, engine`)
	var usage *cli.UsageError
	require.ErrorAs(t, err, &usage)
	o.rows = "prefix"
	require.ErrorContains(t, o.run(t.Context(), []string{"queue"}), `got --row "prefix" without engine`)
	o.rows = "prefixes"
	require.ErrorContains(t, o.run(t.Context(), []string{"engine"}), `got --row "prefixes", there are:`)
}

func TestTurnsOfThree(t *testing.T) {
	t.Parallel()
	var order strings.Builder
	named := func(name string) side {
		return func(context.Context) (float64, error) {
			order.WriteString(name)
			return float64(order.Len()), nil
		}
	}
	medians, err := takeTurns(t.Context(), 2, named("a"), named("b"), named("c"))
	require.NoError(t, err)
	require.Equal(t, "abcbcacab", order.String())
	require.Equal(t, []float64{7, 6.5, 6}, medians, "of the second and the third round: 6 and 8, 4 and 9, 5 and 7")
}

// The whole of one benchmark, with few jobs: every job has its result on both
// sides, and the file has the agreed form. How fast it is says nothing here.
func TestQueueBenchmark(t *testing.T) {
	t.Parallel()
	o := options{out: t.Output(), log: zap.NewNop(), dir: filepath.Join(t.TempDir(), "out"), runs: 1, jobs: 30}
	require.NoError(t, o.run(t.Context(), []string{"queue"}))
	content, err := os.ReadFile(filepath.Join(o.dir, "queue.json"))
	require.NoError(t, err)
	var f struct {
		Machine map[string]any   `json:"machine"`
		Date    string           `json:"date"`
		Rows    []map[string]any `json:"rows"`
	}
	require.NoError(t, json.Unmarshal(content, &f))
	require.NotEmpty(t, f.Machine["cpu"])
	require.NotEmpty(t, f.Date)
	require.Len(t, f.Rows, 1)
	for _, key := range []string{"work", "against", "unit", "ours", "theirs", "ratio", "at_least", "runs"} {
		require.Contains(t, f.Rows[0], key)
	}
	require.Positive(t, f.Rows[0]["ratio"])
}
