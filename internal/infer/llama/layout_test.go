package llama

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A saved sequence goes on in any layout as it would have where it was.
func TestSavedSequenceMovesBetweenLayouts(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	layouts := []ContextOptions{
		{Cells: 512, Sequences: 1},
		{Cells: 1024, Sequences: 5},
		{Cells: 512, Sequences: 1, Streams: true},
		{Cells: 4 * 256, Sequences: 4, Streams: true},
		{Cells: 7 * 512, Sequences: 7, Streams: true},
	}
	for i := range layouts {
		layouts[i].Batch, layouts[i].Threads, layouts[i].TypeK, layouts[i].TypeV = 64, 1, "f32", "f32"
	}
	for _, source := range layouts {
		from, err := m.NewContext(source)
		require.NoError(t, err)
		seq := source.Sequences / 2
		require.NoError(t, decode(t, from, seq, 0, 100))
		s, err := from.Save(seq)
		require.NoError(t, err)
		require.NoError(t, decode(t, from, seq, 100, 1))
		want := logits(t, from)
		for _, target := range layouts {
			to, err := m.NewContext(target)
			require.NoError(t, err)
			last := target.Sequences - 1
			if last > 0 {
				require.NoError(t, decode(t, to, 0, 0, 50), "somebody lives there")
			}
			require.NoError(t, to.Restore(s, last))
			require.NoError(t, decode(t, to, last, 100, 1))
			require.InDeltaSlice(t, want, logits(t, to), 1e-3, "%+v → %+v", source, target)
			require.NoError(t, to.Close())
		}
		s.Free()
		require.NoError(t, from.Close())
	}
}

func logits(t *testing.T, c *Context) []float32 {
	t.Helper()
	l, err := c.Logits(0)
	require.NoError(t, err)
	return slices.Clone(l)
}

// What is shared goes on alike in both sequences, in streams and in one pool, and can
// be cut.
func TestShare(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	for _, streams := range []bool{false, true} {
		c, err := m.NewContext(ContextOptions{
			Cells: 4 * 256, Sequences: 4, Batch: 64, Threads: 1, Streams: streams, NoFlash: true, TypeK: "f32", TypeV: "f32",
		})
		require.NoError(t, err)
		require.NoError(t, decode(t, c, 1, 0, 100))
		require.NoError(t, c.Share(1, 3))
		ok, err := c.Trim(3, 60)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, decode(t, c, 3, 60, 40))
		require.NoError(t, decode(t, c, 3, 100, 1))
		got := logits(t, c)
		require.NoError(t, decode(t, c, 1, 100, 1))
		require.InDeltaSlice(t, logits(t, c), got, 1e-3)
		require.NoError(t, c.Close())
	}
}

// Two tokens at one position, each in a sequence of its own, are joined: what comes next
// sees both. So it does when they see each other and are in a second sequence each, from
// which one of them is joined to another.
func TestJoin(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	c, err := m.NewContext(ContextOptions{Cells: 256, Sequences: 8, Batch: 64, Threads: 1, NoFlash: true, TypeK: "f32", TypeV: "f32"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	next := func(seq int) []float32 { // the logits behind one more token at position 21
		require.NoError(t, c.Share(seq, 7))
		require.NoError(t, decode(t, c, 7, 21, 1))
		defer func() { require.NoError(t, c.Forget(7)) }()
		return logits(t, c)
	}
	require.NoError(t, decode(t, c, 0, 0, 20))
	for seq := 1; seq <= 4; seq++ {
		require.NoError(t, c.Share(0, seq))
	}
	require.NoError(t, decode(t, c, 1, 20, 1))
	c.Clear()
	_, err = c.Add(9, 20, 2, false)
	require.NoError(t, err)
	require.NoError(t, c.Decode())
	one := next(1)
	require.NoError(t, c.Join(2, 1, 20))
	joined := next(1)
	require.NotEqual(t, one, joined)
	require.NoError(t, c.Join(1, 0, 20), "the other way round it is the same")
	require.InDeltaSlice(t, joined, next(0), 1e-4)
	require.NoError(t, c.Forget(2))
	require.InDeltaSlice(t, joined, next(1), 1e-4, "it stays where it was joined")

	c.Clear()
	for i, token := range []Token{5, 9} {
		require.NoError(t, c.Share(3, 5+i))
		_, err := c.AddShared(token, 20, 3, 5+i, false)
		require.NoError(t, err)
	}
	require.NoError(t, c.Decode())
	require.NoError(t, c.Join(5, 4, 20))
	five := next(4)
	require.NotEqual(t, one, five, "it has seen the other")
	require.InDeltaSlice(t, five, next(5), 1e-4)
	require.NoError(t, c.Join(6, 4, 20))
	require.InDeltaSlice(t, next(3), next(4), 1e-4)

	require.NoError(t, c.Drop(4, 20))
	require.NoError(t, c.Join(5, 4, 20))
	require.InDeltaSlice(t, five, next(4), 1e-4, "and taken away again")
}
