package gguf

import (
	"strconv"
	"strings"
)

// Kind says what a layer keeps of the sequences that run.
type Kind string

const (
	Attention Kind = "attention" // keys and values of every token
	Window    Kind = "window"    // keys and values of the latest tokens
	Latent    Kind = "latent"    // one compressed vector of every token (MLA)
	Recurrent Kind = "recurrent" // a state of one size for each sequence
	Hybrid    Kind = "hybrid"    // keys and values of every token, and a state
	Unknown   Kind = "unknown"   // not known
)

// Layer is what one layer of a model takes.
type Layer struct {
	Index       int
	Kind        Kind
	WeightBytes int64 // its tensors, as they are in the file
	// What follows is 0 where Kind is Unknown.
	KVBytesPerToken int64 // in each cell of the KV cache
	StateBytes      int64 // of each sequence
	Window          int   // tokens that a layer of the kind Window sees
}

// KVKnown reports whether it is known what the layer keeps of sequences.
func (l Layer) KVKnown() bool { return l.Kind != Unknown }

// CacheShape is what the size of a cache depends on.
type CacheShape struct {
	Cells     int // tokens of all sequences together
	Sequences int
	Batch     int // most tokens in one decode step
	// FullWindow gives layers of the kind Window as many cells as the others have,
	// so that sequences can be cut back and copied: llama.cpp's swa_full.
	FullWindow bool
}

// cellPad is what llama.cpp rounds numbers of cells up to.
const cellPad = 256

// CacheBytes is the size of the layer's part of a cache that all sequences share;
// it is 0 where Kind is Unknown.
// Source: llama.cpp v0.5.0, llama_kv_cache_iswa and llama_memory_recurrent.
func (l Layer) CacheBytes(s CacheShape) int64 {
	cells := align(int64(s.Cells), cellPad)
	if l.Kind == Window && !s.FullWindow {
		cells = align(min(cells, int64(l.Window)*int64(s.Sequences)+int64(s.Batch)), cellPad)
	}
	return cells*l.KVBytesPerToken + int64(s.Sequences)*l.StateBytes
}

// LayerMemory returns what each layer takes, with keys of type k and values of
// type v in the cache. Where the architecture is not known, or a key that it
// needs is missing, the Kind of all layers is Unknown: it never guesses. Compare
// the sum over the layers with llama.cpp's dry run.
//
// Source: llama.cpp v0.5.0, llama_model::create_memory and llama_kv_cache with
// flash attention (without it, all layers keep as many values as the widest).
func (h *Header) LayerMemory(k, v TensorType) []Layer {
	layers := make([]Layer, h.Layers)
	for i := range layers {
		layers[i] = Layer{Index: i, Kind: Unknown}
	}
	for _, t := range h.Tensors {
		if i, ok := layerOf(t.Name); ok && i < len(layers) {
			layers[i].WeightBytes += t.Bytes
		}
	}
	kinds, window, ok := h.kinds()
	if !ok {
		return layers
	}
	known := make([]Layer, len(layers))
	for i, l := range layers {
		l.Kind = kinds[i]
		if l.Kind == Window {
			l.Window = window
		}
		if l.KVBytesPerToken, ok = h.cellBytes(l, k, v); !ok {
			return layers
		}
		if l.StateBytes, ok = h.stateBytes(l); !ok {
			return layers
		}
		known[i] = l
	}
	return known
}

// OtherBytes is the size of the tensors that belong to no layer: embeddings,
// output, norms.
func (h *Header) OtherBytes() int64 {
	var sum int64
	for _, t := range h.Tensors {
		if i, ok := layerOf(t.Name); !ok || i >= h.Layers {
			sum += t.Bytes
		}
	}
	return sum
}

// layerOf returns the layer that a tensor belongs to: "blk.7.attn_q.weight" → 7.
func layerOf(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ".")
	i, err := strconv.Atoi(number)
	return i, err == nil && i >= 0
}

// cellBytes is what a layer keeps of a token; ok is false if the types cannot hold
// it, or a key is missing.
func (h *Header) cellBytes(l Layer, k, v TensorType) (n int64, ok bool) {
	if l.Kind == Recurrent {
		return 0, true
	}
	heads := int64(h.KVHeads[l.Index])
	keys, values := heads*int64(h.KeyLength), heads*int64(h.ValueLength)
	switch l.Kind {
	case Latent: // the values are a part of what is kept as keys
		values = 0
	case Window:
		if n, ok := h.uint(h.key("attention.key_length_swa")); ok {
			keys = heads * n
		}
		if n, ok := h.uint(h.key("attention.value_length_swa")); ok {
			values = heads * n
		}
	}
	keyBytes, ok := rowBytes(keys, k)
	if !ok {
		return 0, false
	}
	valueBytes, ok := rowBytes(values, v)
	return keyBytes + valueBytes, ok
}

// rowBytes is the size of n values in the type t.
func rowBytes(n int64, t TensorType) (int64, bool) {
	l, ok := layoutOf(t)
	if !ok || n > maxCount*maxCount/l.bytes { // n is a product of two counts
		return 0, false
	}
	return n / l.values * l.bytes, n%l.values == 0
}

// stateBytes is what a layer keeps of a sequence, whatever its length, in single
// floats; ok is false if a key is missing.
// Source: llama.cpp v0.5.0, llama_hparams::n_embd_r and n_embd_s.
func (h *Header) stateBytes(l Layer) (n int64, ok bool) {
	const float = 4
	if l.Kind != Recurrent && l.Kind != Hybrid {
		return 0, true
	}
	if h.Architecture == LFM2 {
		width, ok := h.count("shortconv.l_cache")
		return (width - 1) * int64(h.Embedding) * float, ok && width > 0
	}
	conv, ok1 := h.count("ssm.conv_kernel")
	inner, ok2 := h.count("ssm.inner_size")
	state, ok3 := h.count("ssm.state_size")
	groups, ok4 := int64(0), true
	if h.Architecture != Mamba && h.Architecture != "jamba" {
		groups, ok4 = h.count("ssm.group_count")
	}
	const most = 1 << 20 // keeps the products below in an int64
	if !ok1 || !ok2 || !ok3 || !ok4 || conv < 1 || max(conv, state, groups) > most/16 || inner > most {
		return 0, false
	}
	return ((conv-1)*(inner+2*groups*state) + inner*state) * float, true
}

// count returns the number under a key of the architecture.
func (h *Header) count(k string) (int64, bool) {
	n, ok := h.uint(h.key(k))
	return n, ok && n <= maxCount
}
