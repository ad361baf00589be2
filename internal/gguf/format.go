package gguf

import "math"

const (
	magic            = "GGUF"
	version          = 3
	defaultAlignment = 32
)

// valueType is the type of a metadata value as the file numbers it.
type valueType uint32

const (
	typeUint8 valueType = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// size returns the bytes of one value, 0 for those of no fixed size and for
// types that the format does not have.
func (t valueType) size() int64 {
	switch t {
	case typeUint8, typeInt8, typeBool:
		return 1
	case typeUint16, typeInt16:
		return 2
	case typeUint32, typeInt32, typeFloat32:
		return 4
	case typeUint64, typeInt64, typeFloat64:
		return 8
	default:
		return 0
	}
}

// TensorType is the type of a tensor's values as the file numbers it.
type TensorType uint32

// Tensor types that [Write] can make. The reader knows all types of llama.cpp
// v0.5.0.
const (
	F32  TensorType = 0
	F16  TensorType = 1
	Q8_0 TensorType = 8
)

// CacheType returns the type that a KV cache is asked for by name: f32, f16,
// bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl, as llama.cpp v0.5.0 takes them;
// ok is false for other names.
func CacheType(name string) (t TensorType, ok bool) {
	t, ok = map[string]TensorType{
		"f32": F32, "f16": F16, "bf16": 30, "q8_0": Q8_0, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "iq4_nl": 20,
	}[name]
	return t, ok
}

// layout says how a tensor type is stored: in blocks of so many values, so many
// bytes each.
type layout struct {
	name   string
	values int64
	bytes  int64
}

// layoutOf returns the layout of a type, and whether it is known.
// Source: ggml's type traits, as of llama.cpp v0.5.0.
func layoutOf(t TensorType) (layout, bool) {
	l, ok := map[TensorType]layout{
		0:  {"F32", 1, 4},
		1:  {"F16", 1, 2},
		2:  {"Q4_0", 32, 18},
		3:  {"Q4_1", 32, 20},
		6:  {"Q5_0", 32, 22},
		7:  {"Q5_1", 32, 24},
		8:  {"Q8_0", 32, 34},
		9:  {"Q8_1", 32, 36},
		10: {"Q2_K", 256, 84},
		11: {"Q3_K", 256, 110},
		12: {"Q4_K", 256, 144},
		13: {"Q5_K", 256, 176},
		14: {"Q6_K", 256, 210},
		15: {"Q8_K", 256, 292},
		16: {"IQ2_XXS", 256, 66},
		17: {"IQ2_XS", 256, 74},
		18: {"IQ3_XXS", 256, 98},
		19: {"IQ1_S", 256, 50},
		20: {"IQ4_NL", 32, 18},
		21: {"IQ3_S", 256, 110},
		22: {"IQ2_S", 256, 82},
		23: {"IQ4_XS", 256, 136},
		24: {"I8", 1, 1},
		25: {"I16", 1, 2},
		26: {"I32", 1, 4},
		27: {"I64", 1, 8},
		28: {"F64", 1, 8},
		29: {"IQ1_M", 256, 56},
		30: {"BF16", 1, 2},
		34: {"TQ1_0", 256, 54},
		35: {"TQ2_0", 256, 66},
		39: {"MXFP4", 32, 17},
		40: {"NVFP4", 64, 36},
		41: {"Q1_0", 128, 18},
	}[t]
	return l, ok
}

// String returns ggml's name of the type, or its number if it is not known.
func (t TensorType) String() string {
	if l, ok := layoutOf(t); ok {
		return l.name
	}
	return "type " + group(int64(t))
}

// bytesOf returns the size of a tensor; ok is false where it does not fit an
// int64 or the first dimension is not whole blocks.
func (l layout) bytesOf(dims []int64) (n int64, ok bool) {
	if dims[0]%l.values != 0 {
		return 0, false
	}
	n = dims[0] / l.values
	for _, d := range append([]int64{l.bytes}, dims[1:]...) {
		if d != 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// align rounds n up to a multiple of a, a power of two. n + a must fit an int64.
func align(n, a int64) int64 {
	return (n + a - 1) &^ (a - 1)
}
