package budget

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// shape is a made-up model: bytes for weights, for a cell, and for a sequence's
// logits.
type shape struct{ weights, cell, sequence Bytes }

func (s shape) fit(calls *int) Fit {
	return func(sequences, cells int) (Footprint, error) {
		*calls++
		return Footprint{
			Weights:       s.weights,
			KVCache:       s.cell.Mul(int64(cells)),
			ParallelBatch: s.sequence.Mul(int64(sequences)),
		}, nil
	}
}

func TestPlanPool(t *testing.T) {
	t.Parallel()
	// 100 MiB of weights, 256 cells take 6 MiB, a sequence takes 1 MiB.
	model := shape{weights: 100 * MiB, cell: 24 * KiB, sequence: MiB}
	for name, c := range map[string]struct {
		r                PlanRequest
		sequences, cells int
	}{
		"all":                   {PlanRequest{Limit: GiB, Sequences: 32, Cells: 8192, MinContext: 512}, 32, 8192},
		"rounded down to 256":   {PlanRequest{Limit: GiB, Sequences: 1, Cells: 1000, MinContext: 512}, 1, 768},
		"but not below one job": {PlanRequest{Limit: GiB, Sequences: 1, Cells: 300, MinContext: 300}, 1, 512},
		"fewer cells":           {PlanRequest{Limit: 200 * MiB, Act: 1, Sequences: 32, Cells: 8192, MinContext: 512}, 32, 11 * 256},
		"fixed counts":          {PlanRequest{Limit: 200 * MiB, Act: 1, Fixed: Footprint{Overhead: 8 * MiB}, Sequences: 32, Cells: 8192, MinContext: 512}, 32, 10 * 256},
		"the default act":       {PlanRequest{Limit: 200 * MiB, Sequences: 32, Cells: 8192, MinContext: 512}, 32, 9 * 256},
		"fewer sequences":       {PlanRequest{Limit: 120 * MiB, Act: 1, Sequences: 32, Cells: 8192, MinContext: 512}, 8, 512},
		"exactly the smallest":  {PlanRequest{Limit: 113 * MiB, Act: 1, Sequences: 32, Cells: 8192, MinContext: 512}, 1, 512},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			p, err := PlanPool(c.r, model.fit(&calls))
			require.NoError(t, err)
			require.Equal(t, []int{c.sequences, c.cells}, []int{p.Sequences, p.Cells}, p.Reason)
			act := c.r.Act
			if act == 0 {
				act = 0.95
			}
			require.LessOrEqual(t, p.Footprint.Total(), c.r.Limit.Scale(act))
			require.LessOrEqual(t, calls, 5+5+8)
			require.NotEmpty(t, p.Reason)
		})
	}
}

// TestPlanPoolIsLargest tries every smaller limit: no plan passes it, the next
// larger one would, and it is refused only where the smallest does not fit.
func TestPlanPoolIsLargest(t *testing.T) {
	t.Parallel()
	model := shape{weights: 1000, cell: 3, sequence: 500}
	for limit := Bytes(1); limit < 40_000; limit += 97 {
		calls := 0
		fit := model.fit(&calls)
		total := func(sequences, cells int) Bytes {
			f, err := fit(sequences, cells)
			require.NoError(t, err)
			return f.Total()
		}
		p, err := PlanPool(PlanRequest{Limit: limit, Act: 1, Sequences: 6, Cells: 6 * 1024, MinContext: 500}, fit)
		require.LessOrEqual(t, calls, 20)
		if err != nil {
			require.Greater(t, total(1, 512), limit)
			continue
		}
		require.LessOrEqual(t, total(p.Sequences, p.Cells), limit)
		if p.Cells < 6*1024 {
			require.Greater(t, total(p.Sequences, p.Cells+256), limit)
		}
		if p.Sequences < 6 {
			require.Greater(t, total(p.Sequences+1, 512), limit)
		}
	}
}

func TestPlanPoolTooLarge(t *testing.T) {
	t.Parallel()
	model := shape{weights: 100 * MiB, cell: 24 * KiB, sequence: MiB}
	calls := 0
	request := PlanRequest{Limit: 50 * MiB, Sequences: 4, Cells: 4096, MinContext: 2048}
	_, err := PlanPool(request, model.fit(&calls))
	var tooLarge *TooLargeError
	require.ErrorAs(t, err, &tooLarge)
	require.Equal(t, 149*MiB, tooLarge.Need)
	require.Equal(t, (50 * MiB).Scale(0.95), tooLarge.Capacity)
	require.ErrorContains(t, err, "weights 100 MiB, KV cache 48.0 MiB")
	require.Equal(t, []string{"raise --max-memory-gb to at least 0.16, if the device has it"}, tooLarge.Hints,
		"neither a shorter context nor lighter weights alone would do")
	request.Limit = GiBs(0.16)
	_, err = PlanPool(request, model.fit(&calls))
	require.NoError(t, err, "the hint is right")

	request.Limit = 130 * MiB
	_, err = PlanPool(request, model.fit(&calls))
	require.ErrorAs(t, err, &tooLarge)
	require.Equal(t, "raise --max-memory-gb to at least 0.16, if the device has it; "+
		"or use a context of at most 768 tokens; "+
		"or use a smaller or more strongly quantised model (weights of at most 74.5 MiB, this one has 100 MiB)", tooLarge.Hint())
	request.MinContext = 768
	_, err = PlanPool(request, model.fit(&calls))
	require.NoError(t, err, "the second hint is right")
}

func TestPlanPoolRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("no such file")
	fit := func(int, int) (Footprint, error) { return Footprint{}, broken }
	good := PlanRequest{Limit: GiB, Sequences: 1, Cells: 512, MinContext: 512}
	_, err := PlanPool(good, fit)
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "size 1 sequences with 512 cells")

	for want, change := range map[string]func(*PlanRequest){
		"share of the limit is 1.5": func(r *PlanRequest) { r.Act = 1.5 },
		"0 sequences":               func(r *PlanRequest) { r.Sequences = 0 },
		"smallest context is 0":     func(r *PlanRequest) { r.MinContext = 0 },
		"512 cache tokens":          func(r *PlanRequest) { r.MinContext = 513 },
	} {
		r := good
		change(&r)
		_, err := PlanPool(r, fit)
		require.ErrorContains(t, err, want)
	}

	// An error in the middle of a search is returned too.
	n := 0
	_, err = PlanPool(PlanRequest{Limit: 100, Sequences: 64, Cells: 512, MinContext: 512}, func(int, int) (Footprint, error) {
		if n++; n == 3 {
			return Footprint{}, broken
		}
		return Footprint{Weights: 1000}, nil
	})
	require.ErrorIs(t, err, broken)
}

func TestAutoParallelTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		available, each Bytes
		want            int
	}{
		{100, 8, 10},
		{100, 9, 8},
		{GiB, KiB, 50},
		{maxBytes, 1, 50},
		{7, 8, 1},
		{0, 8, 1},
		{-GiB, 8, 1},
		{100, 0, 50},
	} {
		require.Equal(t, c.want, AutoParallelTokens(c.available, c.each), "%v of %v", c.available, c.each)
	}
}
