package llama

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A saved sequence goes on in a pool of any size as it would have where it was.
func TestSavedSequenceGoesOn(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	from := newContext(t, m, 512, 4, 64)
	require.NoError(t, decode(t, from, 1, 0, 30))
	require.NoError(t, decode(t, from, 0, 0, 100))
	require.NoError(t, decode(t, from, 1, 30, 20))
	s, err := from.Save(0)
	require.NoError(t, err)
	defer s.Free()
	require.NoError(t, decode(t, from, 0, 100, 1))
	want, err := from.Argmax(0)
	require.NoError(t, err)
	for _, shape := range []ContextOptions{
		{Cells: 256, Sequences: 1, Batch: 64, Threads: 1},
		{Cells: 512, Sequences: 7, Batch: 64, Threads: 1},
		{Cells: 2048, Sequences: 256, Batch: 64, Threads: 1},
	} {
		to := newContext(t, m, shape.Cells, shape.Sequences, 64)
		seq := shape.Sequences - 1
		require.NoError(t, to.Restore(s, seq))
		require.NoError(t, decode(t, to, seq, 100, 1))
		got, err := to.Argmax(0)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NoError(t, to.Forget(seq))
		require.NoError(t, decode(t, to, 0, 0, shape.Cells), "what was put in and forgotten is free")
		if seq > 0 {
			require.Error(t, to.Restore(s, seq), "a full pool")
		}
	}
}

// A pool with holes takes a sequence back where they are.
func TestRestoreIntoHoles(t *testing.T) {
	t.Parallel()
	c := newContext(t, openModel(t, false), 256, 4, 64)
	for i := range 63 { // two sequences, turn about
		require.NoError(t, decode(t, c, 0, 2*i, 2))
		require.NoError(t, decode(t, c, 1, 2*i, 2))
	}
	s, err := c.Save(0)
	require.NoError(t, err)
	defer s.Free()
	require.NoError(t, c.Forget(0))
	require.NoError(t, c.Restore(s, 2))
	require.NoError(t, decode(t, c, 2, 126, 4))
	require.ErrorIs(t, decode(t, c, 2, 130, 1), ErrNoCells)
}

// What is said in infer.Lease of the size of a saved sequence.
func TestSavedSize(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	for _, types := range []ContextOptions{{}, {TypeK: "f32", TypeV: "f32"}} {
		opts := types
		opts.Cells, opts.Sequences, opts.Batch, opts.Threads = 2048, 4, 64, 1
		c, err := m.NewContext(opts)
		require.NoError(t, err)
		perCell := float64(c.Cache()) / 2048
		for _, n := range []int{1, 64, 500, 2048} {
			require.NoError(t, decode(t, c, 0, 0, n))
			s, err := c.Save(0)
			require.NoError(t, err)
			require.InDelta(t, perCell*float64(n), float64(s.Bytes()), 12*float64(n)+24*2+1024+32, "two layers")
			s.Free()
			s.Free()
			require.NoError(t, c.Forget(0))
		}
		require.NoError(t, c.Close())
	}
}

func TestContextsOfSizes(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	perCell := float64(newContext(t, m, 512, 4, 64).Cache()) / 512
	for _, cells := range []int{1024, 256, 512} {
		c := newContext(t, m, cells, 4, 64)
		require.InDelta(t, perCell*float64(cells), float64(c.Cache()), 0.02*float64(c.Cache())+8192)
		require.NoError(t, c.WarmUp())
		require.NoError(t, decode(t, c, 0, 0, cells))
		require.ErrorIs(t, decode(t, c, 1, 0, 1), ErrNoCells)
	}
	_, err := m.NewContext(ContextOptions{Cells: 512, Sequences: 300, Batch: 64, Threads: 1})
	require.Error(t, err)
}

func TestCacheTypes(t *testing.T) {
	t.Parallel()
	m := openModel(t, true)
	size := func(k, v string) (float64, error) {
		c, err := m.NewContext(ContextOptions{Cells: 1 << 16, Sequences: 4, Batch: 64, Threads: 1, TypeK: k, TypeV: v})
		if err != nil {
			return 0, err
		}
		defer func() { require.NoError(t, c.Close()) }()
		return float64(c.Cache()), nil
	}
	half, err := size("", "")
	require.NoError(t, err)
	for k, ratio := range map[string]float64{"f16": 1, "bf16": 1, "f32": 2} {
		got, err := size(k, k)
		require.NoError(t, err, k)
		require.InEpsilon(t, ratio, got/half, 0.01, k)
	}
	got, err := size("f32", "f16")
	require.NoError(t, err)
	require.InEpsilon(t, 1.5, got/half, 0.01, "keys alone")

	_, err = size("q3", "")
	var unknown *CacheTypeError
	require.ErrorAs(t, err, &unknown)
	require.Contains(t, err.Error(), `"q3"`)
	for _, name := range CacheTypes() {
		require.Contains(t, unknown.Hint(), name)
	}
	for _, name := range CacheTypes() { // the tiny model's heads are too small for those
		if _, err := size(name, name); strings.Contains(name, "q") {
			require.ErrorContains(t, err, "flash attention", name)
			require.ErrorContains(t, err, name)
		} else {
			require.NoError(t, err, name)
		}
	}
}
