package gguf

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// values writes a tensor's data: one value everywhere, or values that are uniform
// between the bounds that give the spread.
func (e *encoder) values(t blueprint, random *rand.Rand) {
	const chunk = 1 << 12 // whole blocks of all types
	bound := t.spread * math.Sqrt(3)
	values := make([]float32, 0, chunk)
	var buf []byte
	for left := t.values(); left > 0 && e.err == nil; left -= int64(len(values)) {
		values = values[:0]
		for range min(left, chunk) {
			v := t.value
			if t.spread != 0 {
				v = float32(bound * (2*random.Float64() - 1))
			}
			values = append(values, v)
		}
		buf = appendValues(buf[:0], t.typ, values)
		e.bytes(buf)
	}
}

// appendValues appends values, whole blocks of them, in the type t.
func appendValues(buf []byte, t TensorType, values []float32) []byte {
	switch t {
	case F16:
		for _, v := range values {
			buf = binary.LittleEndian.AppendUint16(buf, half(v))
		}
	case Q8_0:
		for ; len(values) > 0; values = values[q8Block:] {
			buf = appendQ8(buf, values[:q8Block])
		}
	default:
		for _, v := range values {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
	}
	return buf
}

const q8Block = 32 // values in a block of Q8_0

// appendQ8 appends a block of Q8_0: the step as a half, and a whole number of
// steps for each value.
func appendQ8(buf []byte, values []float32) []byte {
	var largest float32
	for _, v := range values {
		largest = max(largest, v, -v)
	}
	step := largest / 127
	buf = binary.LittleEndian.AppendUint16(buf, half(step))
	for _, v := range values {
		steps := 0.0
		if step > 0 {
			steps = math.Round(float64(v / step))
		}
		buf = append(buf, byte(int8(steps)))
	}
	return buf
}

// half converts a weight, whose magnitude is far below the largest half of
// 65,504, cutting off the bits that do not fit: the weights are random, so
// rounding would add nothing. What is too small for a normal half becomes zero.
func half(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits>>16) & 0x8000
	exponent := int(bits>>23&0xff) - 127 + 15
	if exponent < 1 {
		return sign
	}
	return sign | uint16(exponent)<<10 | uint16(bits>>13)&0x3ff
}
