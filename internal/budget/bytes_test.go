package budget

import (
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBytesString(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    Bytes
		want string
	}{
		{0, "0 B"},
		{7, "7 B"},
		{1023, "1023 B"},
		{KiB, "1.00 KiB"},
		{23 * KiB, "23.0 KiB"},
		{10*KiB - 1, "10.0 KiB"},
		{512 * MiB, "512 MiB"},
		{GiB - 1, "1.00 GiB"},
		{3 * GiB / 2, "1.50 GiB"},
		{-3 * GiB / 2, "-1.50 GiB"},
		{36 * GiB, "36.0 GiB"},
		{2048 * GiB, "2.00 TiB"},
		{maxBytes, "8.00 EiB"},
		{minBytes, "-8.00 EiB"},
	} {
		require.Equal(t, c.want, c.n.String(), "%d", int64(c.n))
	}
}

func TestBytesConversions(t *testing.T) {
	t.Parallel()
	require.Equal(t, 36*GiB, GiBs(36))
	require.Equal(t, 512*MiB, GiBs(0.5))
	require.Equal(t, maxBytes, GiBs(math.Inf(1)))
	require.Equal(t, minBytes, GiBs(math.Inf(-1)))
	require.Zero(t, GiBs(math.NaN()))
	require.Equal(t, maxBytes, FromUint64(math.MaxUint64))
	require.Equal(t, KiB, FromUint64(1024))
	require.Equal(t, 95*MiB, (100 * MiB).Scale(0.95))
	require.InDelta(t, 1.5, (3 * GiB / 2).GiB(), 0)
}

// TestBytesSaturate compares with arithmetic that cannot overflow.
func TestBytesSaturate(t *testing.T) {
	t.Parallel()
	values := []Bytes{0, 1, -1, 2, -2, 3, GiB, -GiB, 1 << 31, 1 << 32, -(1 << 32), maxBytes / 2, minBytes / 2, maxBytes - 1, minBytes + 1, maxBytes, minBytes}
	clamp := func(n *big.Int) Bytes {
		switch {
		case n.IsInt64():
			return Bytes(n.Int64())
		case n.Sign() > 0:
			return maxBytes
		}
		return minBytes
	}
	for _, a := range values {
		for _, b := range values {
			x, y := big.NewInt(int64(a)), big.NewInt(int64(b))
			require.Equal(t, clamp(new(big.Int).Add(x, y)), a.Add(b), "%d + %d", a, b)
			require.Equal(t, clamp(new(big.Int).Sub(x, y)), a.Sub(b), "%d - %d", a, b)
			require.Equal(t, clamp(new(big.Int).Mul(x, y)), a.Mul(int64(b)), "%d · %d", a, b)
		}
	}
}

func TestFootprint(t *testing.T) {
	t.Parallel()
	f := Footprint{Weights: 1, KVCache: 2, ParallelBatch: 3, Overhead: 4}
	require.Equal(t, Bytes(10), f.Total())
	require.Equal(t, Footprint{2, 4, 6, 8}, f.Plus(f))
	require.Equal(t, "weights 1 B, KV cache 2 B, parallel batch 3 B, overhead 4 B", f.String())
	for line, name := range []string{"weights", "kv_cache", "parallel_batch", "overhead"} {
		require.Equal(t, name, Line(line).String())
		require.Equal(t, Bytes(line+1), *f.at(Line(line)))
	}
	require.Equal(t, "line 4", Line(4).String())
	require.Nil(t, f.at(4))
}
