package submit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

func TestLines(t *testing.T) {
	t.Parallel()
	var l lines
	require.False(t, l.remove(0))
	for _, line := range []int{0, 63, 64, 1000} {
		l.add(line)
	}
	for line := range 2000 {
		want := line == 0 || line == 63 || line == 64 || line == 1000
		require.Equal(t, want, l.remove(line), line)
		require.False(t, l.remove(line), "only once")
	}
	require.False(t, l.remove(-1))
}

func TestLineOf(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]int{
		api.ResultID("b", jobID(7)):           7,
		api.ResultID("b", jobID(123_456_789)): 123_456_789,
		api.ResultID("b2", jobID(7)):          -1,
		api.ResultID("b", "seven"):            -1,
		"":                                    -1,
	} {
		require.Equal(t, want, lineOf("b", api.Result{ID: id}), id)
	}
}
