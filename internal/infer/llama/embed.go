package llama

import (
	"errors"
	"fmt"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// Pooling is how one vector is made of those of all tokens of a text.
type Pooling string

// Poolings that model files name.
const (
	PoolMean  Pooling = "mean"  // of all tokens
	PoolFirst Pooling = "first" // the first token's
	PoolLast  Pooling = "last"  // the last token's
)

// Pooling is what the model file says; a file that says nothing is pooled by the mean,
// as its tokens' vectors were not trained to stand for a text.
// Source: GGUF pooling_type.
func (m *Model) Pooling() Pooling {
	arch, _ := llama.ModelMetaValStr(m.handle, "general.architecture")
	kind, _ := llama.ModelMetaValStr(m.handle, arch+".pooling_type")
	switch kind {
	case fmt.Sprint(int(llama.PoolingTypeCLS)):
		return PoolFirst
	case fmt.Sprint(int(llama.PoolingTypeLast)):
		return PoolLast
	default:
		return PoolMean
	}
}

// NoPooling says why the model makes no vector of a text, nil if it does.
func (m *Model) NoPooling() error {
	arch, _ := llama.ModelMetaValStr(m.handle, "general.architecture")
	if kind, _ := llama.ModelMetaValStr(m.handle, arch+".pooling_type"); kind == fmt.Sprint(int(llama.PoolingTypeRank)) {
		return errors.New("it ranks pairs of texts")
	}
	return nil
}

// EmbeddingSize is how many numbers the vector of a token has.
func (m *Model) EmbeddingSize() int { return int(llama.ModelNEmbdOut(m.handle)) }

// Embedding is the vector of the token at index i of the last batch, in a context with
// Embeddings. The memory is llama.cpp's and is overwritten by the next Decode.
func (c *Context) Embedding(i int) ([]float32, error) {
	v, err := llama.GetEmbeddingsIth(c.handle, int32(i), int32(c.model.EmbeddingSize()))
	if err != nil {
		return nil, fmt.Errorf("read embeddings: %w", err)
	}
	if v == nil {
		return nil, fmt.Errorf("read embeddings: batch index %d has none", i)
	}
	return v, nil
}
