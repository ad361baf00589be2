package gguf

import (
	"slices"
	"strings"
)

// Names of the buffers that llama.cpp puts a CPU's weights into, as its log has
// them, in a dry run too.
const (
	BufferAMX = "AMX" // in tiles, some types with sums beside them

	bufferCPU    = "CPU"
	bufferMapped = "CPU_Mapped"
	bufferRepack = "CPU_REPACK" // the same bytes in another order
)

// LoadedBytes is what the tensors take in a CPU's memory. buffers are the names of
// the model buffers in the log of llama.cpp's dry run, which tell how this CPU
// wants its weights. exact is false if one of them is not known; the size is then
// that of a plain buffer.
//
// It is more than TensorBytes for two reasons. AMX's layout of some types has sums
// in it. And a file without output.weight has the token embeddings twice in memory
// if they are looked up in the one layout and multiplied in the other.
//
// Source: llama.cpp v0.5.0, select_weight_buft and ggml-cpu (amx.cpp, mmq.cpp,
// repack.cpp).
func (h *Header) LoadedBytes(buffers []string) (n int64, exact bool) {
	exact = true
	for _, b := range buffers {
		exact = exact && slices.Contains([]string{bufferCPU, bufferMapped, bufferRepack, BufferAMX}, b)
	}
	amx, repack := slices.Contains(buffers, BufferAMX), slices.Contains(buffers, bufferRepack)
	for _, t := range h.Tensors {
		if amx && t.multiplied() {
			n += t.tileSums()
		}
		n += t.Bytes
		if t.Name != tokenEmbeddings || !h.TiedOutput {
			continue
		}
		switch {
		case amx && t.tiled():
			n += t.Bytes + t.tileSums()
		case repack && t.repacked():
			n += t.Bytes
		}
	}
	return n, exact
}

// Tileable reports whether llama.cpp v0.5.0 can run the model with weights in a
// BufferAMX. Where more than plain attention keeps a sequence it multiplies views
// that AMX does not take, finds nothing else for weights in tiles, and aborts.
func (h *Header) Tileable() bool {
	kinds, _, ok := h.kinds()
	return ok && !slices.ContainsFunc(kinds, func(k Kind) bool { return k != Attention && k != Window })
}

// OffloadedBytes is what the tensors take on a GPU that has all layers: what is
// only looked up (the token embeddings, where they are not the output too) stays
// in host memory.
// Source: llama.cpp v0.5.0, dev_input.
func (h *Header) OffloadedBytes() int64 {
	n := h.TensorBytes
	for _, t := range h.Tensors {
		if t.lookedUp() && (t.Name != tokenEmbeddings || !h.TiedOutput) {
			n -= t.Bytes
		}
	}
	return n
}

const tokenEmbeddings = "token_embd.weight"

// lookedUp reports whether rows of the tensor are taken, and nothing is
// multiplied with it.
func (t Tensor) lookedUp() bool {
	return slices.Contains([]string{tokenEmbeddings, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"}, t.Name)
}

// multiplied reports whether the tensor is a matrix that activations are
// multiplied with. Experts are, but by an operation that AMX has not.
func (t Tensor) multiplied() bool {
	return !t.lookedUp() && len(t.Dims) == 2 && strings.HasSuffix(t.Name, ".weight")
}

// tiled reports whether AMX takes a matrix of this type and shape.
// Source: amx.cpp, supports_op.
func (t Tensor) tiled() bool {
	row, ok := map[string]int64{
		"Q4_0": 32, "Q4_1": 32, "Q8_0": 32,
		"Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ4_XS": 256,
		"F16": 16,
	}[t.Type.String()]
	return ok && t.Dims[0]%row == 0 && len(t.Dims) > 1 && t.Dims[1]%32 == 0
}

// tileSums is what AMX's layout takes beyond the tensor's own bytes.
// Source: mmq.cpp, get_row_size.
func (t Tensor) tileSums() int64 {
	perBlock, ok := map[string]int64{"Q8_0": 4, "Q4_K": 4, "Q5_K": 4, "IQ4_XS": 2}[t.Type.String()]
	if !ok || !t.tiled() {
		return 0
	}
	l, _ := layoutOf(t.Type)
	return t.Bytes / l.bytes * perBlock
}

// repacked reports whether a CPU may want a matrix of this type and shape in
// another order. Which types depends on the CPU: these are those of x86 (the
// first four) and ARM together, so the answer is never too small.
// Source: repack.cpp, ggml_repack_get_optimal_repack_type.
func (t Tensor) repacked() bool {
	return len(t.Dims) == 2 && t.Dims[1]%4 == 0 &&
		slices.Contains([]string{"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K", "Q5_K", "Q6_K", "Q8_0", "Q1_0"}, t.Type.String())
}
