package llama

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
	"github.com/stretchr/testify/require"
)

// TestAttention: what tokens attend to is read for the cells that they went to, also where
// others were before.
func TestAttention(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	c, err := m.NewContext(ContextOptions{Cells: 512, Sequences: 4, Batch: 64, Threads: 2, Attention: true, TypeK: "f32", TypeV: "f32"})
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, c.CheckAttention())
	}
	a := c.attention
	require.NotNil(t, a.reader)
	require.NotNil(t, a.memory)
	require.NoError(t, c.Close())
	require.Nil(t, a.reader, "its memory is given back")
	require.Nil(t, a.memory)
	require.NoError(t, c.Close())
}

// tensor is ggml_tensor, of the pinned version.
type tensor struct {
	kind     int32
	buffer   uintptr
	ne       [4]int64
	nb       [4]uintptr
	op       int32
	params   [16]int32
	flags    int32
	src      [10]uintptr
	viewed   uintptr
	offset   uintptr
	data     uintptr
	name     [64]byte
	extra    uintptr
	reserved [8]byte
}

// ggml stands in for the library: its tensors are in Go's memory, which it can say is a device's.
type ggml struct {
	device bool
	reads  int // from the device
	most   int // bytes of one of them
	keep   runtime.Pinner
}

func newGGML(t *testing.T, device bool, mostCopied int) (*ggml, *attention) {
	t.Helper()
	g := &ggml{device: device}
	t.Cleanup(g.keep.Unpin)
	writes, adds := []byte("SET_ROWS\x00"), []byte("ADD\x00")
	g.keep.Pin(&writes[0])
	g.keep.Pin(&adds[0])
	a, err := newAttention(attentionFunctions{
		opDesc: purego.NewCallback(func(at uintptr) uintptr {
			if (*tensor)(pointer(at)).op == add {
				return uintptr(unsafe.Pointer(&adds[0]))
			}
			return uintptr(unsafe.Pointer(&writes[0]))
		}),
		isHost: purego.NewCallback(func(uintptr) uintptr {
			if g.device {
				return 0
			}
			return 1
		}),
		get: purego.NewCallback(func(at, to, offset, size uintptr) uintptr {
			g.reads, g.most = g.reads+1, max(g.most, int(size))
			data := (*tensor)(pointer(at)).data
			copy(unsafe.Slice((*byte)(pointer(to)), size), unsafe.Slice((*byte)(pointer(data+offset)), size))
			return 0
		}),
	}, mostCopied)
	require.NoError(t, err)
	t.Cleanup(a.close)
	return g, a
}

// weights makes the tensor of a layer's weights, of [cells, rows, heads]. That of a cell has the
// row's and the head's number in it: 1.02 is in the first head that of row 0 for cell 2.
func (g *ggml) weights(cells, rows, heads int64) *tensor {
	data := make([]float32, cells*rows*heads)
	for i := range data {
		n := int64(i)
		data[i] = float32(1+n/cells/rows) + float32(n/cells%rows)/10 + float32(n%cells)/100
	}
	w := &tensor{buffer: 1, ne: [4]int64{cells, rows, heads, 1}}
	for i, size := 0, uintptr(4); i < len(w.nb); i++ {
		w.nb[i] = size
		size *= uintptr(w.ne[i])
	}
	copy(w.name[:], "kq_soft_max-0")
	g.keep.Pin(&data[0])
	w.data = uintptr(unsafe.Pointer(&data[0]))
	return w
}

// writes makes the tensor of a write to cells, which has an index of a cell for each row.
func (g *ggml) writes(kind int32, cells ...int64) *tensor {
	rows := &tensor{kind: kind, buffer: 1, ne: [4]int64{int64(len(cells)), 1, 1, 1}}
	g.keep.Pin(&cells[0])
	rows.data = uintptr(unsafe.Pointer(&cells[0]))
	g.keep.Pin(rows)
	return &tensor{buffer: 1, src: [10]uintptr{0, uintptr(unsafe.Pointer(rows))}}
}

// calculated tells the reader of a tensor as llama.cpp does, and returns whether it was asked for.
func (a *attention) calculated(w *tensor) (wanted bool) {
	var keep runtime.Pinner
	defer keep.Unpin()
	keep.Pin(w)
	f, data := a.callback()
	call := func(ask uintptr) bool {
		r, _, _ := purego.SyscallN(f, uintptr(unsafe.Pointer(w)), ask, data)
		return r&0xff != 0
	}
	if wanted = call(1); wanted && !call(0) {
		panic("the reader has stopped llama.cpp")
	}
	return wanted
}

// add is the op of a tensor that is no write. The others are types.
const (
	add       = 1
	float16   = 1
	integer32 = 26
	integer64 = 27
)

// Weights are the mean over rows, layers and heads, wherever they are; from a device all of a layer
// is copied at once.
func TestAttentionWeights(t *testing.T) {
	t.Parallel()
	for _, device := range []bool{false, true} {
		t.Run(fmt.Sprint("on a device: ", device), func(t *testing.T) {
			t.Parallel()
			g, a := newGGML(t, device, mostCopied)
			for _, cells := range []int64{4, 64, 8} {
				g.reads = 0
				one, two := Attended{Row: 0, Rows: 1, Cells: []int{1, 3}}, Attended{Row: 1, Rows: 2, Cells: []int{0}}
				a.want([]*Attended{&one, &two}, 3)
				require.True(t, a.calculated(g.writes(integer64, 7, 5, 6)))
				for range 2 {
					require.True(t, a.calculated(g.weights(cells, 3, 2)))
				}
				require.NoError(t, a.take())
				require.InDeltaSlice(t, []float64{1.51, 1.53}, one.Weights, 1e-6)
				require.InDeltaSlice(t, []float64{1.65}, two.Weights, 1e-6)
				require.Equal(t, []int64{7, 5, 6}, []int64{int64(a.placed[0]), int64(a.placed[1]), int64(a.placed[2])})
				if device {
					require.Equal(t, 1+2, g.reads, "the cells, and two layers")
				} else {
					require.Zero(t, g.reads)
				}
			}
			a.forget()
			require.False(t, a.calculated(g.weights(4, 3, 2)))
			require.False(t, a.calculated(g.writes(integer64, 7, 5, 6)))
		})
	}
}

// Of a device's weights no more is copied at once than is allowed, but for a row, and only the rows
// that are asked for where the others are many. The weights are the same.
func TestAttentionIsCopied(t *testing.T) {
	t.Parallel()
	const heads = 3
	for name, c := range map[string]struct {
		cells, rows int64
		mostCopied  int
		reads, most int // of a layer
	}{
		"all":                        {cells: 64, rows: 10, mostCopied: 64 * 10 * heads * 4, reads: 1, most: 64 * 10 * heads * 4},
		"as many rows as fit":        {cells: 64, rows: 10, mostCopied: 64*10*heads*4 - 1, reads: 2 * heads, most: 64 * 5 * 4},
		"all that is asked for":      {cells: 64, rows: 10, mostCopied: 64 * 5 * 4, reads: 2 * heads, most: 64 * 5 * 4},
		"some of the rows":           {cells: 64, rows: 10, mostCopied: 64*2*4 + 1, reads: 4 * heads, most: 64 * 2 * 4},
		"row by row":                 {cells: 64, rows: 10, mostCopied: 64 * 4, reads: 6 * heads, most: 64 * 4},
		"a row is more than allowed": {cells: 64, rows: 10, mostCopied: 1, reads: 6 * heads, most: 64 * 4},
		"others' are hardly more":    {cells: 1024, rows: 59, mostCopied: mostCopied, reads: 1, most: 1024 * 59 * heads * 4},
		"others' are many":           {cells: 1024, rows: 60, mostCopied: mostCopied, reads: 2 * heads, most: 1024 * 5 * 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want [][]float64
			for _, device := range []bool{false, true} {
				g, a := newGGML(t, device, c.mostCopied)
				one, two := Attended{Row: 1, Rows: 1, Cells: []int{1, 63}}, Attended{Row: 4, Rows: 5, Cells: []int{0, 7}}
				a.want([]*Attended{&one, &two}, int(c.rows))
				require.True(t, a.calculated(g.writes(integer64, make([]int64, c.rows)...)))
				g.reads, g.most = 0, 0
				require.True(t, a.calculated(g.weights(c.cells, c.rows, heads)))
				require.NoError(t, a.take())
				if !device {
					want = [][]float64{one.Weights, two.Weights}
					require.Zero(t, g.reads)
					continue
				}
				require.Equal(t, want, [][]float64{one.Weights, two.Weights})
				require.Equal(t, c.reads, g.reads)
				require.Equal(t, c.most, g.most)
			}
		})
	}
}

// What is not as expected is an error, and nothing outside a tensor is read.
func TestAttentionIsElsewhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asked  Attended
		change func(w *tensor)
	}{
		"a row before the first":  {asked: Attended{Row: -1, Rows: 1, Cells: []int{0}}},
		"no rows":                 {asked: Attended{Cells: []int{0}}},
		"a row behind the last":   {asked: Attended{Row: 3, Rows: 1, Cells: []int{0}}},
		"rows behind the last":    {asked: Attended{Row: 2, Rows: 2, Cells: []int{0}}},
		"a cell before the first": {asked: Attended{Rows: 1, Cells: []int{0, -1}}},
		"a cell behind the last":  {asked: Attended{Rows: 1, Cells: []int{0, 4}}},
		"another type":            {change: func(w *tensor) { w.kind = float16 }},
		"numbers apart":           {change: func(w *tensor) { w.nb[0] = 8 }},
		"rows in each other":      {change: func(w *tensor) { w.nb[1] = 8 }},
		"of fewer rows":           {change: func(w *tensor) { w.ne[1] = 2 }},
		"of more than one batch":  {change: func(w *tensor) { w.ne[3] = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, a := newGGML(t, false, mostCopied)
			if c.change != nil {
				c.asked = Attended{Rows: 1, Cells: []int{0}}
			}
			a.want([]*Attended{&c.asked}, 3)
			require.True(t, a.calculated(g.writes(integer64, 7, 5, 6)))
			w := g.weights(4, 3, 2)
			if c.change != nil {
				c.change(w)
			}
			a.calculated(w)
			require.ErrorContains(t, a.take(), "weights")
			require.False(t, a.calculated(g.weights(4, 3, 2)), "once is enough")
		})
	}
}

// Cells are known from the first write that has one for each row: that of values may have one
// for each number.
func TestAttentionCells(t *testing.T) {
	t.Parallel()
	g, a := newGGML(t, false, mostCopied)
	a.want(nil, 2)
	require.False(t, a.calculated(g.weights(4, 2, 2)), "nothing is asked for")
	sum := g.writes(integer64, 1, 2)
	sum.op = add
	for _, other := range []*tensor{g.writes(integer64, 1, 2, 3, 4), g.writes(integer32, 1, 2), {}, sum} {
		require.False(t, a.calculated(other))
		require.ErrorContains(t, a.take(), "keys")
	}
	require.True(t, a.calculated(g.writes(integer64, 8, 9)))
	require.False(t, a.calculated(g.writes(integer64, 1, 2)), "of another layer: it has the same")
	require.NoError(t, a.take())
	require.Equal(t, []int64{8, 9}, []int64{int64(a.placed[0]), int64(a.placed[1])})
}
