package llama

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAttention: what tokens attend to is read for the cells that they went to, also where
// others were before.
func TestAttention(t *testing.T) {
	t.Parallel()
	m := openModel(t, false)
	c, err := m.NewContext(ContextOptions{Cells: 512, Sequences: 4, Batch: 64, Threads: 2, Attention: true, TypeK: "f32", TypeV: "f32"})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	for range 3 {
		require.NoError(t, c.CheckAttention())
	}
}
