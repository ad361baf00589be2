package local

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/schedule"
)

func TestAlong(t *testing.T) {
	t.Parallel()
	part := func(cells, most int, compute budget.Bytes) schedule.Part {
		return schedule.Part{Cells: cells, Most: most, Compute: compute}
	}
	for _, c := range []struct {
		name        string
		less, whole schedule.Part
		cells       int
		want        budget.Bytes
	}{
		{"the lower end", part(1000, 0, 100), part(2000, 0, 300), 1000, 100},
		{"the upper end", part(1000, 0, 100), part(2000, 0, 300), 2000, 300},
		{"between", part(1000, 0, 100), part(2000, 0, 300), 1500, 200},
		{"beyond", part(1000, 0, 100), part(2000, 0, 300), 3000, 500},
		{"below", part(1000, 0, 100), part(2000, 0, 300), 500, 0},
		{"no more than the layout has", part(1000, 1500, 100), part(2000, 1500, 300), 9000, 200},
		{"one measurement", part(1000, 0, 100), part(1000, 0, 300), 9000, 300},
		{"the layout is not there with more cells", part(1000, 0, 100), part(2000, 0, 0), 1500, 100},
		{"nor with fewer", part(1000, 0, 0), part(2000, 0, 300), 1500, 300},
	} {
		require.Equal(t, c.want, along(c.less, c.whole, c.cells), c.name)
	}
}

// The line of these goes through 0, with 1 for each cell.
func TestAttended(t *testing.T) {
	t.Parallel()
	less, whole := schedule.Part{Cells: 1024, Compute: 1024}, schedule.Part{Cells: 2048, Compute: 2048}
	for _, c := range []struct {
		cells  int
		booked budget.Bytes
		want   int
	}{
		{2048, 5000, 2048},
		{2048, 2048, 2048},
		{2048, 2047, 1792},
		{2048, 1000, 768},
		{2048, 255, 0},
		{2048, 0, 0},
		{2047, 5000, 1792},
		{255, 5000, 0},
		{4096, 3000, 2816},
	} {
		require.Equal(t, c.want, attended(less, whole, c.cells, c.booked), "%d cells within %d", c.cells, c.booked)
	}
	flat := schedule.Part{Cells: 1024, Compute: 1000}
	require.Zero(t, attended(flat, flat, 2048, 999), "fewer cells are no help")
	require.Equal(t, 2048, attended(flat, flat, 2048, 1000))
}

// The pool in which attention is read takes no more than is booked for the others, by what
// llama.cpp says of just that pool, and it is not much smaller than it could be.
func TestAttentionStaysWithinWhatIsBooked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ batch, sequences int }{{64, 1}, {64, 16}, {512, 4}} {
		t.Run(fmt.Sprintf("batch %d, sequences %d", c.batch, c.sequences), func(t *testing.T) {
			t.Parallel()
			spec := infertest.TinySpec(t)
			spec.Batch = c.batch
			e := New(nil)
			t.Cleanup(func() { require.NoError(t, e.Close()) })
			_, err := e.Open(t.Context(), spec)
			require.NoError(t, err)
			for _, cells := range []int{4096, 16384} {
				shape := infer.Shape{Sequences: c.sequences, Cells: cells}
				require.NoError(t, e.computeLine(shape))
				require.NoError(t, e.size.NoRemoval)
				require.Greater(t, e.size.Attends.Compute, e.compute(cells), "or all of this were easy")
				for _, now := range []int{cells, cells / 2, cells / 4} { // the pool can have become smaller
					n, booked := e.attends(now), e.compute(now)
					require.Positive(t, n)
					shape.Cells = n
					pool, err := e.measure(shape)
					require.NoError(t, err)
					require.LessOrEqual(t, pool.Attends.Compute, booked, "%d of %d cells", n, now)
					shape.Cells = n + 512
					pool, err = e.measure(shape)
					require.NoError(t, err)
					require.True(t, n == now || pool.Attends.Compute > booked, "%d of %d cells", n, now)
				}
			}
		})
	}
}
