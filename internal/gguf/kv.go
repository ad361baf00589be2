package gguf

import "math"

// KVBytesPerToken returns the bytes of key-value cache in f16 that one token of
// one sequence takes: 2 · Σ over layers of KVHeads · (KeyLength + ValueLength).
// Where a model looks back through a sliding window in some layers it is the
// most that the token can take.
//
// It returns *FormatError for models that keep their state in another form:
// latent attention, recurrent layers, caches shared between layers.
// Source: llama.cpp v0.5.0, llama_kv_cache.
func (h *Header) KVBytesPerToken() (int64, error) {
	for _, k := range []string{
		"attention.kv_lora_rank",
		"attention.shared_kv_layers",
		"attention.key_length_swa",
		"attention.value_length_swa",
		"ssm.state_size",
		"wkv.head_size",
		"shortconv.l_cache",
		"kda.head_dim",
	} {
		if _, there := h.meta[h.key(k)]; there {
			return 0, &FormatError{
				Path: h.Path,
				What: "its cache is not one key and one value a token in each layer (" + h.key(k) + " is set), so its size cannot be told from the header",
				Fix:  fixOther,
			}
		}
	}
	const f16 = 2
	each := int64(h.KeyLength) + int64(h.ValueLength)
	var sum int64
	for _, n := range h.KVHeads {
		layer := int64(n) * each // at most 2⁶¹
		if layer > (math.MaxInt64/f16)-sum {
			return 0, named(broken("its key-value cache is larger than any memory"), h.Path)
		}
		sum += layer
	}
	return f16 * sum, nil
}
