package plain

import (
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// toy is a model in which one distribution stands behind all members of a set.
type toy struct {
	behind  [][]float64 // by step; the last one stays
	removed []Removal
	passed  []int // how many steps each pass had
}

func (p *toy) pass(steps []Step) ([][]float32, error) {
	p.passed = append(p.passed, len(steps))
	row := logits(p.behind[min(len(steps), len(p.behind)-1)]...)
	if len(steps) == 0 {
		return [][]float32{row}, nil
	}
	rows := make([][]float32, len(steps[len(steps)-1].Members))
	for i := range rows {
		rows[i] = row
	}
	return rows, nil
}

func (p *toy) remove(steps []Step) []Removal {
	var now []Removal
	for _, r := range p.removed {
		if r.After == len(steps)-1 {
			now = append(now, r)
		}
	}
	return now
}

func TestRun(t *testing.T) {
	t.Parallel()
	var (
		three = []float64{0.1, 0.5, 0.25, 0.15} // 1, 2 and 3 over a threshold of 0.12
		over  = []float64{0.7, 0.1, 0.1, 0.1}   // the end
	)
	for _, c := range []struct {
		name      string
		behind    [][]float64
		maxTokens int
		inCache   int
		minSteps  int
		removed   []Removal
		widths    []int
		path      []int32
		cut       int
		finish    string
	}{
		{"ends at once", [][]float64{over}, 5, 0, 0, nil, []int{0}, nil, 0, "stop"},
		{"ends", [][]float64{three, three, over}, 5, 0, 0, nil, []int{3, 3, 0}, []int32{1, 1}, 0, "stop"},
		// Without the end the three others are equally likely.
		{"may not end yet", [][]float64{over}, 5, 0, 2, nil, []int{3, 3, 0}, []int32{1, 1}, 0, "stop"},
		{"max_tokens", [][]float64{three}, 2, 0, 0, nil, []int{3, 3}, []int32{1, 1}, 0, "length"},
		{"max_tokens before the end", [][]float64{three, over}, 1, 0, 0, nil, []int{3}, []int32{1}, 0, "length"},
		// Of 15 cells the prompt has 10: 3, then the 2 that are left.
		{"cells", [][]float64{three}, 0, 15, 0, nil, []int{3, 2}, []int32{1, 1}, 1, "length"},
		// 15 - 10 - 3 to come, - 12 - 2, - 13 - 1, - 14.
		{"a cell for each", [][]float64{three}, 4, 15, 0, nil, []int{2, 1, 1, 1}, []int32{1, 1, 1, 1}, 7, "length"},
		{"too few cells", [][]float64{three}, 4, 12, 0, nil, []int{1, 1}, []int32{1, 1}, 4, "length"},
		// Two of the first three go after the second set: 17 - 14 then, and not - 16.
		{
			"removal makes room",
			[][]float64{three},
			0, 17, 0,
			[]Removal{{1, 0, 0}, {1, 0, 2}},
			[]int{3, 3, 3},
			[]int32{2, 1, 1},
			0, "length",
		},
		{
			"what is removed at the end",
			[][]float64{three, three, over},
			0, 0, 0,
			[]Removal{{1, 0, 0}, {2, 1, 0}},
			[]int{3, 3, 0},
			[]int32{2, 1},
			0, "stop",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &toy{behind: c.behind, removed: c.removed}
			job := newJob(api.Parallel{
				Threshold: 0.12, Mix: api.MixWeighted, MinSteps: c.minSteps, MaxCacheTokens: c.inCache,
			}, c.maxTokens)
			r, err := run(p, 10, ends, job, Limits{Width: 8, Cells: 100, Context: 100})
			require.NoError(t, err)
			var widths, passed []int
			for s, step := range r.Steps {
				widths = append(widths, len(step.Members))
				passed = append(passed, s)
			}
			require.Equal(t, c.widths, widths)
			require.Equal(t, passed, p.passed, "the last set does not go through the model")
			require.Equal(t, c.path, r.Path)
			require.Equal(t, c.cut, r.Cut)
			require.Equal(t, c.finish, r.Finish)
		})
	}
}

// In a model whose rows look at all that they see alike, the newest set gives to each member
// one part of as many as each of its rows sees.
func TestWeight(t *testing.T) {
	t.Parallel()
	steps := []Step{set(3), set(2)}
	for i := range steps {
		for m := range steps[i].Members {
			steps[i].Members[m].Token = int32(m % 2)
		}
	}
	for _, c := range []struct {
		name    string
		isolate bool
		removed int
		sees    float64
	}{
		{"visible", false, 0, 2 + 3 + 2},
		{"isolated", true, 0, 2 + 3 + 1},
		{"removed just after", false, 1, 2 + 3 + 2},
	} {
		steps[0].Members[1].Removed = c.removed
		p := &scribe{model: byHand(0), prompt: []int32{0, 1}, job: &api.Parallel{Isolate: c.isolate}}
		rows, err := p.pass(steps)
		require.NoError(t, err)
		require.Len(t, rows, 2, c.name)
		for m := range steps[0].Members {
			require.InDelta(t, 1/c.sees, p.weight(0, m), 1e-12, c.name)
		}
	}
	steps = append(steps, set(1)) // which sees all but the one removed
	p := &scribe{model: byHand(0), prompt: []int32{0, 1}, job: &api.Parallel{}}
	_, err := p.pass(steps)
	require.NoError(t, err)
	require.Zero(t, p.weight(0, 1))
	require.InDelta(t, 1./7, p.weight(0, 2), 1e-12)
	require.InDelta(t, 1./7, p.weight(1, 0), 1e-12)
}
