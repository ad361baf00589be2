package budget

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPressure(t *testing.T) {
	t.Parallel()
	l := newPool(t, 850)
	require.Equal(t, OK, l.Pressure(), "850 booked of 1000, and not beyond")
	l.SetMeasured(KVCache, 900)
	require.Equal(t, Warn, l.Pressure())
	l.SetMeasured(Overhead, 51)
	require.Equal(t, Act, l.Pressure())
	l.SetMeasured(KVCache, 100)
	require.Equal(t, OK, l.Pressure(), "a measurement counts even below the booking")

	require.NoError(t, l.SetThresholds(Thresholds{Warn: 0.1, Act: 1}))
	require.Equal(t, Warn, l.Pressure())
	l.SetLimit(150)
	require.Equal(t, Act, l.Pressure())
	for _, bad := range []Thresholds{{}, {0.9, 0.8}, {0.5, 1.1}, {-1, 0.5}} {
		require.ErrorContains(t, l.SetThresholds(bad), "must be 0 < warn ≤ act ≤ 1")
	}
	require.Equal(t, []string{"ok", "warn", "act", "level 7"}, []string{OK.String(), Warn.String(), Act.String(), Level(7).String()})
}

// TestWhatIf asks the questions of preemption (what must be released), of a
// limit that is lowered (what must be given back) and of the automatic limits.
func TestWhatIf(t *testing.T) {
	t.Parallel()
	l := newPool(t, 500)
	require.NoError(t, l.Book(Weights, 300))
	s := acquire(t, l, 350)

	require.Equal(t, Bytes(150), l.Available())
	require.Zero(t, l.Shortfall(150))
	require.Zero(t, l.Shortfall(-1))
	require.Equal(t, Bytes(50), l.Shortfall(200))
	require.Equal(t, Bytes(351), l.Shortfall(501), "more than is reserved: it can never fit")
	s.Shrink(50)
	require.NoError(t, s.Grow(200), "the shortfall was released")

	l.SetMeasured(Weights, 600) // 100 beyond the limit
	require.Equal(t, Bytes(-100), l.Available())
	require.Equal(t, Bytes(100), l.Shortfall(0))
	require.Equal(t, maxBytes, l.Shortfall(maxBytes))

	l.SetMeasured(Weights, 350)
	l.SetMeasured(KVCache, 450) // 800 are held, less than is booked
	require.NoError(t, l.SetThresholds(Thresholds{Warn: 0.5, Act: 0.5}))

	before := l.Snapshot()
	require.Equal(t, Bytes(800), before.Held)
	require.Equal(t, Act, before.Pressure)
	require.Equal(t, before, l.Snapshot(), "nothing has changed")
}
