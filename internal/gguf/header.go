package gguf

import (
	"fmt"
	"os"
	"slices"
)

// Header is what a model file says of itself, without its weights. It is
// read-only after [ReadHeader] and safe for concurrent use.
type Header struct {
	Path          string
	Architecture  string // [Llama], "qwen2", …
	Name          string // general.name; "" if the file has none
	Layers        int    // block_count
	Heads         int    // attention.head_count, of the first layer where it is a list; 0 = no attention (Mamba)
	KVHeads       []int  // attention.head_count_kv of each layer; len = Layers, 0 = no attention there
	KeyLength     int    // values of a head's key
	ValueLength   int    // values of a head's value
	ContextLength int    // tokens that the model was trained for
	Embedding     int    // embedding_length
	Vocabulary    int    // tokens
	// HasChatTemplate says that the file has a template, which is not kept.
	HasChatTemplate bool
	// TensorBytes is the size of all tensors, without the padding between them.
	TensorBytes int64
	// TokenEmbdBytes is the size of token_embd.weight, a part of TensorBytes.
	TokenEmbdBytes int64
	// TiedOutput says that the file has no output.weight: token_embd.weight
	// serves as both.
	TiedOutput bool
	Tensors    []Tensor // in the file's order
	// DataStart is where in the file the tensor data begins, in bytes.
	DataStart int64
	FileBytes int64 // length of the file

	meta map[string]any
}

// Tensor is one tensor of a file.
type Tensor struct {
	Name   string
	Type   TensorType
	Dims   []int64 // 1 to 4, the fastest-running first
	Offset int64   // bytes from Header.DataStart
	Bytes  int64
}

// ReadHeader reads the header of a GGUF file, version 2 or 3, and checks that
// the file is long enough for its tensors. It reads no weights.
//
// It returns *FormatError if the file is not GGUF, is cut off, contradicts
// itself or lacks a key, and the system's error, wrapped, if it cannot be read.
func ReadHeader(path string) (*Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &FormatError{path, "it is not a file", fixNotGGUF}
	}
	h, err := parse(f, info.Size())
	if err != nil {
		return nil, named(err, path)
	}
	h.Path = path
	return h, nil
}

// fill sets the header's fields from its keys and tensors.
func (h *Header) fill() error {
	if n, ok := h.uint("split.count"); ok && n > 1 {
		return &FormatError{
			What: fmt.Sprintf("it is one part of a model in %d files", n),
			Fix:  "merge the parts with llama.cpp's llama-gguf-split --merge",
		}
	}
	var ok bool
	if h.Architecture, ok = h.meta["general.architecture"].(string); !ok || h.Architecture == "" {
		return missing("general.architecture")
	}
	h.Name, _ = h.meta["general.name"].(string)
	template, there := h.meta["tokenizer.chat_template"]
	text, _ := template.(string)
	h.HasChatTemplate = text != "" || there && template == nil // nil: too long to be kept
	for _, k := range []struct {
		key string
		dst *int
	}{
		{"block_count", &h.Layers},
		{"context_length", &h.ContextLength},
		{"embedding_length", &h.Embedding},
	} {
		if err := h.required(k.key, k.dst); err != nil {
			return err
		}
	}
	if err := h.fillHeads(); err != nil {
		return err
	}
	if err := h.fillTensors(); err != nil {
		return err
	}
	return h.fillVocabulary()
}

// maxLayers bounds block_count: the largest models have a few hundred, and what
// is kept for each layer must not grow with a garbage number.
const maxLayers = 1 << 14

func (h *Header) fillHeads() error {
	if h.Layers > maxLayers {
		return broken("%s is %s, more than any model has", h.key("block_count"), group(int64(h.Layers)))
	}
	least := 1
	if h.withoutAttention() {
		least = 0
	}
	heads, err := h.perLayer("attention.head_count", least)
	if err != nil {
		return err
	}
	if heads == nil {
		return missing(h.key("attention.head_count"))
	}
	h.Heads = heads[0]
	// llama.cpp defines both: no head_count_kv is as many as head_count, no
	// key_length or value_length is embedding_length / head_count.
	if h.KVHeads, err = h.perLayer("attention.head_count_kv", least); err != nil {
		return err
	}
	if h.KVHeads == nil {
		h.KVHeads = heads
	}
	if h.Heads == 0 && h.withoutAttention() {
		return nil // no heads, no sizes
	}
	for _, k := range []struct {
		key string
		dst *int
	}{
		{"attention.key_length", &h.KeyLength},
		{"attention.value_length", &h.ValueLength},
	} {
		if _, there := h.meta[h.key(k.key)]; there {
			if err := h.required(k.key, k.dst); err != nil {
				return err
			}
			continue
		}
		if h.Heads == 0 || h.Embedding%h.Heads != 0 {
			return broken("%s is absent, and %s (%d) is not a multiple of %s (%d)",
				h.key(k.key), h.key("embedding_length"), h.Embedding, h.key("attention.head_count"), h.Heads)
		}
		*k.dst = h.Embedding / h.Heads
	}
	return nil
}

// withoutAttention reports whether the architecture may have no heads at all.
func (h *Header) withoutAttention() bool {
	return h.Architecture == Mamba || h.Architecture == "mamba2"
}

func (h *Header) fillTensors() error {
	h.TiedOutput = true
	for _, t := range h.Tensors {
		switch t.Name {
		case tokenEmbeddings:
			h.TokenEmbdBytes = t.Bytes
		case "output.weight":
			h.TiedOutput = false
		}
		h.TensorBytes += t.Bytes // parse has checked that the sum fits
	}
	if h.TokenEmbdBytes == 0 {
		return broken("the tensor token_embd.weight is missing")
	}
	return nil
}

func (h *Header) fillVocabulary() error {
	if n, ok := h.meta["tokenizer.ggml.tokens"].(arrayLen); ok && n > 0 {
		h.Vocabulary = int(n)
		return nil
	}
	return missing("tokenizer.ggml.tokens")
}

// EncoderOnly says that the model reads texts as a whole and writes none (BERT).
// Source: GGUF attention.causal.
func (h *Header) EncoderOnly() bool {
	causal, ok := h.meta[h.key("attention.causal")].(bool)
	return ok && !causal
}

// Number returns the number, whole or not, under a key of the model's architecture:
// "rope.freq_base". ok is false if the file has no number there.
func (h *Header) Number(k string) (v float64, ok bool) {
	switch n := h.meta[h.key(k)].(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	default:
		return 0, false
	}
}

// key returns the full name of a key of the model's architecture.
func (h *Header) key(k string) string { return h.Architecture + "." + k }

// uint returns the number under a full name.
func (h *Header) uint(name string) (int64, bool) {
	n, ok := h.meta[name].(int64)
	return n, ok && n >= 0
}

// required reads a key of the architecture that must be a number from 1 up.
func (h *Header) required(k string, dst *int) error {
	if _, there := h.meta[h.key(k)]; !there {
		return missing(h.key(k))
	}
	n, err := h.from(1, k)
	*dst = n
	return err
}

// from reads a key of the architecture that is there and must be a number from
// least up.
func (h *Header) from(least int, k string) (int, error) {
	v := h.meta[h.key(k)]
	n, ok := v.(int64)
	if !ok || n < int64(least) || n > maxCount {
		return 0, broken("%s is %v, allowed are whole numbers from %d to %s", h.key(k), v, least, group(maxCount))
	}
	return int(n), nil
}

// perLayer reads a key that is one number, from least up, for all layers, or a
// list with one from 0 up for each; nil if it is absent.
func (h *Header) perLayer(k string, least int) ([]int, error) {
	v, there := h.meta[h.key(k)]
	if !there {
		return nil, nil
	}
	list, isList := v.([]int64)
	if !isList {
		n, err := h.from(least, k)
		if err != nil {
			return nil, err
		}
		list = slices.Repeat([]int64{int64(n)}, h.Layers)
	}
	if len(list) != h.Layers {
		return nil, broken("%s has %d values, but there are %d layers", h.key(k), len(list), h.Layers)
	}
	out := make([]int, len(list))
	for i, n := range list {
		if n < 0 || n > maxCount {
			return nil, broken("%s of layer %d is %d, allowed are whole numbers from 0 to %s", h.key(k), i, n, group(maxCount))
		}
		out[i] = int(n)
	}
	return out, nil
}
