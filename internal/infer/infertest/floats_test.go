package infertest

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/gguf"
)

// What the blocks stand for. 0x3800 is a half of 0.5, 0xbc00 one of -1.
func TestFloats(t *testing.T) {
	t.Parallel()
	q4 := append([]byte{0x00, 0x38, 0x00, 0xbc}, make([]byte, 16)...)
	q4[4], q4[19] = 0x2f, 0x70
	q8 := append([]byte{0x00, 0x38}, make([]byte, 32)...)
	q8[2], q8[33] = 0x81, 3
	for _, c := range []struct {
		name string
		kind gguf.TensorType
		data []byte
		want map[int]float32 // the others are rest
		rest float32
	}{
		{"Q4_1", 3, q4, map[int]float32{0: 6.5, 16: 0, 31: 2.5}, -1},
		{"Q8_0", gguf.Q8_0, q8, map[int]float32{0: -63.5, 31: 1.5}, 0},
	} {
		made, err := floats(c.kind, c.data)
		require.NoError(t, err)
		require.Len(t, made, 4*32)
		for i := range 32 {
			want, there := c.want[i]
			if !there {
				want = c.rest
			}
			require.InDelta(t, want, math.Float32frombits(binary.LittleEndian.Uint32(made[4*i:])), 0, "%s, value %d", c.name, i)
		}
	}
	_, err := floats(gguf.F16, nil)
	require.ErrorContains(t, err, "F16")
}
