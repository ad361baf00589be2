package plain

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"

	"tempo/internal/gguf"
)

// Model is a model of the llama architecture, all weights as 64-bit floats. It is
// read-only, and safe for concurrent use.
type Model struct {
	heads       int
	keyLength   int // values of a head's key
	valueLength int // values of a head's value
	rotated     int // the first values of a key, which tell the position
	base        float64
	epsilon     float64

	embeddings matrix // a row for each token
	layers     []layer
	norm       []float64
	output     matrix
}

type layer struct {
	kvHeads                  int
	attentionNorm, feedNorm  []float64
	query, key, value, mixed matrix
	gate, up, down           matrix
}

// matrix has a row for each value that comes out, with a weight for each that goes in.
type matrix [][]float64

// Load reads a GGUF file of the llama architecture with tensors in F32 or F16. It
// refuses what Forward would calculate wrongly: tensors that it does not know (biases,
// experts, scaled rotation) and keys that change the arithmetic.
func Load(path string) (*Model, error) {
	h, err := gguf.ReadHeader(path)
	if err != nil {
		return nil, err
	}
	if h.Architecture != gguf.Llama {
		return nil, fmt.Errorf("load %s: the architecture is %s, known is %s", path, h.Architecture, gguf.Llama)
	}
	for _, k := range []string{"attention.scale", "attention.sliding_window", "rope.scaling.factor", "rope.scale_linear"} {
		if _, there := h.Number(k); there {
			return nil, fmt.Errorf("load %s: the key %s is not known", path, k)
		}
	}
	epsilon, there := h.Number("attention.layer_norm_rms_epsilon")
	if !there {
		return nil, fmt.Errorf("load %s: the key attention.layer_norm_rms_epsilon is missing", path)
	}
	tensors, err := readTensors(h)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	m := &Model{
		heads: h.Heads, keyLength: h.KeyLength, valueLength: h.ValueLength,
		rotated: int(numberOr(h, "rope.dimension_count", float64(h.KeyLength))),
		base:    numberOr(h, "rope.freq_base", 10000),
		epsilon: epsilon,
	}
	if err := m.take(tensors, h); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	for name := range tensors {
		return nil, fmt.Errorf("load %s: the tensor %s is not known", path, name)
	}
	return m, nil
}

func numberOr(h *gguf.Header, key string, absent float64) float64 {
	if v, there := h.Number(key); there {
		return v
	}
	return absent
}

// take moves the tensors to their places, and refuses if one is missing.
func (m *Model) take(tensors map[string]matrix, h *gguf.Header) (missing error) {
	get := func(name string) matrix {
		w, there := tensors[name+".weight"]
		if !there {
			missing = fmt.Errorf("the tensor %s.weight is missing", name)
			return matrix{nil}
		}
		delete(tensors, name+".weight")
		return w
	}
	m.embeddings, m.norm = get("token_embd"), get("output_norm")[0]
	m.output = m.embeddings
	if !h.TiedOutput {
		m.output = get("output")
	}
	for i, kvHeads := range h.KVHeads {
		of := func(name string) matrix { return get(fmt.Sprintf("blk.%d.%s", i, name)) }
		m.layers = append(m.layers, layer{
			kvHeads:       kvHeads,
			attentionNorm: of("attn_norm")[0], feedNorm: of("ffn_norm")[0],
			query: of("attn_q"), key: of("attn_k"), value: of("attn_v"), mixed: of("attn_output"),
			gate: of("ffn_gate"), up: of("ffn_up"), down: of("ffn_down"),
		})
	}
	return missing
}

// readTensors reads the data of all tensors, by their names.
func readTensors(h *gguf.Header) (map[string]matrix, error) {
	file, err := os.ReadFile(h.Path)
	if err != nil {
		return nil, fmt.Errorf("read tensors: %w", err)
	}
	tensors := make(map[string]matrix)
	for _, t := range h.Tensors {
		start := h.DataStart + t.Offset
		values, err := floats(file[start:start+t.Bytes], t.Type)
		if err != nil {
			return nil, fmt.Errorf("read the tensor %s: %w", t.Name, err)
		}
		for width := int(t.Dims[0]); len(values) > 0; values = values[width:] {
			tensors[t.Name] = append(tensors[t.Name], values[:width])
		}
	}
	return tensors, nil
}

func floats(data []byte, t gguf.TensorType) ([]float64, error) {
	var values []float64
	switch t {
	case gguf.F32:
		for ; len(data) > 0; data = data[4:] {
			values = append(values, float64(math.Float32frombits(binary.LittleEndian.Uint32(data))))
		}
	case gguf.F16:
		for ; len(data) > 0; data = data[2:] {
			values = append(values, half(binary.LittleEndian.Uint16(data)))
		}
	default:
		return nil, fmt.Errorf("it is of type %s, known are F32 and F16", t)
	}
	return values, nil
}

// half is the value of a 16-bit float that is a number.
func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	v := math.Ldexp(1024+fraction, exponent-25)
	if exponent == 0 {
		v = math.Ldexp(fraction, -24)
	}
	if bits&0x8000 != 0 {
		return -v
	}
	return v
}
