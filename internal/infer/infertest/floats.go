package infertest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/gguf"
)

// RealModelInFloats is a file with the weights of RealModel in F32, the values that its blocks
// stand for, in a directory of the test's own; it takes about 540 MB. With quantised weights
// llama.cpp rounds what goes through the model to 8 bits before each product, so that the last bit
// of a sum can decide a step of that rounding. With these it does not.
func RealModelInFloats(t testing.TB) string {
	t.Helper()
	model := RealModel(t)
	h, err := gguf.ReadHeader(model)
	require.NoError(t, err)
	from, err := os.ReadFile(model)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "floats.gguf")
	to, err := os.Create(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, to.Close()) }()
	head, err := headOfFloats(from[:h.DataStart], h.Tensors)
	require.NoError(t, err)
	_, err = to.Write(head)
	require.NoError(t, err)
	for _, tensor := range h.Tensors {
		start := h.DataStart + tensor.Offset
		data, err := floats(tensor.Type, from[start:start+tensor.Bytes])
		require.NoError(t, err)
		_, err = to.Write(pad(data))
		require.NoError(t, err)
	}
	return path
}

// alignment is what a tensor's data begins at a multiple of, in bytes.
const alignment = 32

// pad fills b up to where a tensor may begin.
func pad(b []byte) []byte { return append(b, make([]byte, padded(len(b))-len(b))...) }

// padded is n rounded up to a multiple of the alignment.
func padded(n int) int { return (n + alignment - 1) / alignment * alignment }

// headOfFloats is all that stands before the data: the keys as they are in head, and the tensors
// described anew.
func headOfFloats(head []byte, tensors []gguf.Tensor) ([]byte, error) {
	var before, after []byte
	offset := int64(0)
	for _, tensor := range tensors {
		before = appendTensor(before, tensor, tensor.Type, tensor.Offset)
		after = appendTensor(after, tensor, gguf.F32, offset)
		offset += int64(padded(int(4 * values(tensor))))
	}
	keys := bytes.Index(head, before)
	if keys < 0 {
		return nil, fmt.Errorf("the descriptions of %d tensors are not where they are expected", len(tensors))
	}
	return pad(append(bytes.Clone(head[:keys]), after...)), nil
}

func values(tensor gguf.Tensor) int64 {
	n := int64(1)
	for _, d := range tensor.Dims {
		n *= d
	}
	return n
}

// appendTensor appends a tensor's description as it stands in a GGUF file.
func appendTensor(b []byte, tensor gguf.Tensor, kind gguf.TensorType, offset int64) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensor.Name)))
	b = append(b, tensor.Name...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(tensor.Dims)))
	for _, d := range tensor.Dims {
		b = binary.LittleEndian.AppendUint64(b, uint64(d))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(kind))
	return binary.LittleEndian.AppendUint64(b, uint64(offset))
}

// floats are a tensor's values in F32.
func floats(kind gguf.TensorType, data []byte) ([]byte, error) {
	var size int // of a block of 32 values
	var value func(block []byte, i int) float32
	switch kind.String() {
	case "F32":
		return bytes.Clone(data), nil
	case "Q4_1":
		size, value = 20, q4
	case "Q8_0":
		size, value = 34, q8
	default:
		return nil, fmt.Errorf("a tensor is of type %s, known are F32, Q4_1 and Q8_0", kind)
	}
	made := make([]byte, 0, len(data)/size*32*4)
	for ; len(data) > 0; data = data[size:] {
		for i := range 32 {
			made = binary.LittleEndian.AppendUint32(made, math.Float32bits(value(data[:size], i)))
		}
	}
	return made, nil
}

// q4 is the i-th value of a block of Q4_1: a step, a least value, and a half byte for each, first
// the low ones of all bytes, then the high ones.
// Source: dequantize_row_q4_1, ggml-quants.c.
func q4(block []byte, i int) float32 {
	return half(block)*float32(block[4+i%16]>>(i/16*4)&15) + half(block[2:])
}

// q8 is the i-th value of a block of Q8_0: a step, and a signed byte for each.
// Source: dequantize_row_q8_0, ggml-quants.c.
func q8(block []byte, i int) float32 { return half(block) * float32(int8(block[2+i])) }

// half is the 16-bit float, a number, that b begins with.
func half(b []byte) float32 {
	bits := binary.LittleEndian.Uint16(b)
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	v := math.Ldexp(1024+fraction, exponent-25)
	if exponent == 0 {
		v = math.Ldexp(fraction, -24)
	}
	if bits&0x8000 != 0 {
		return float32(-v)
	}
	return float32(v)
}
