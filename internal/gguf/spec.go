package gguf

import (
	"fmt"
	"math"
)

// DefaultChatTemplate is the ChatML template of SmolLM2's shape: where a
// conversation begins without a system message it puts one in.
const DefaultChatTemplate = `{% for message in messages %}` +
	`{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}` +
	`{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}` +
	`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// Spec is the shape of a model that [Write] makes. Start from [Tiny]; every
// number must be at least 1, except where 0 is said to mean something.
type Spec struct {
	Architecture string // one that Write knows; "" = Llama
	Name         string
	Layers       int
	Heads        int
	KVHeads      int // a divisor of Heads; not used by DeepSeek2 and Mamba
	HeadSize     int // an even number; 0 = Embedding / Heads
	Embedding    int
	FeedForward  int // of each expert in Qwen3MoE; not used by Mamba
	Vocab        int // from 259: three special tokens and a token for each byte
	Context      int // tokens that the model claims to be trained for
	Window       int // Gemma2 only: tokens that every second layer sees
	Latent       int // DeepSeek2 only: values that stand for all keys and values of a token
	Experts      int // Qwen3MoE only, from 2: two of them work on each token
	Type         TensorType
	Tied         bool // no output.weight: the token embeddings serve as both
	Seed         uint64
	ChatTemplate string // Jinja; "" = the file has none
}

// Tiny returns the shape that tests use: 2 layers, about 0.6 MB in F32, loaded
// in milliseconds.
func Tiny() Spec {
	return Spec{
		Name:         "tiny",
		Layers:       2,
		Heads:        4,
		KVHeads:      2,
		Embedding:    64,
		FeedForward:  128,
		Vocab:        512,
		Context:      2048,
		Type:         F32,
		Seed:         1,
		ChatTemplate: DefaultChatTemplate,
	}
}

func (s Spec) architecture() string {
	if s.Architecture == "" {
		return Llama
	}
	return s.Architecture
}

func (s Spec) headSize() int {
	if s.HeadSize > 0 {
		return s.HeadSize
	}
	return s.Embedding / s.Heads
}

func (s Spec) validate() error {
	for _, f := range []struct {
		name     string
		got, min int
	}{
		{"Layers", s.Layers, 1},
		{"Heads", s.Heads, 1},
		{"KVHeads", s.KVHeads, 1},
		{"HeadSize", s.HeadSize, 0},
		{"Embedding", s.Embedding, 1},
		{"FeedForward", s.FeedForward, 1},
		{"Vocab", s.Vocab, firstMerged},
		{"Context", s.Context, 1},
		{"Window", s.Window, 0},
		{"Latent", s.Latent, 0},
		{"Experts", s.Experts, 0},
	} {
		if f.got < f.min || f.got > maxCount {
			return fmt.Errorf("write model: %s is %d, allowed are %d to %d", f.name, f.got, f.min, maxCount)
		}
	}
	switch {
	case s.Layers > maxLayers:
		return fmt.Errorf("write model: Layers is %d, allowed are 1 to %d", s.Layers, maxLayers)
	case s.HeadSize == 0 && s.Embedding%(2*s.Heads) != 0:
		return fmt.Errorf("write model: Embedding is %d, allowed are multiples of twice the Heads (%d)", s.Embedding, s.Heads)
	case s.HeadSize%2 != 0:
		return fmt.Errorf("write model: HeadSize is %d, allowed are even numbers", s.HeadSize)
	case s.Heads%s.KVHeads != 0:
		return fmt.Errorf("write model: KVHeads is %d, allowed are divisors of the Heads (%d)", s.KVHeads, s.Heads)
	case s.Type != F32 && s.Type != F16 && s.Type != Q8_0:
		return fmt.Errorf("write model: Type is %v, allowed are F32, F16 and Q8_0", s.Type)
	}
	a, ok := architectureOf(s.architecture())
	if !ok {
		return fmt.Errorf("write model: Architecture is %q, allowed are %v", s.Architecture, architectures())
	}
	if err := a.check(s); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return s.validateBlocks()
}

// validateBlocks checks that the rows of all tensors are whole blocks of the type.
func (s Spec) validateBlocks() error {
	for _, t := range s.tensors() {
		if l, _ := layoutOf(t.typ); t.dims[0]%l.values != 0 {
			return fmt.Errorf("write model: Type is %v, but %s has rows of %d values, allowed are multiples of %d", s.Type, t.name, t.dims[0], l.values)
		}
	}
	return nil
}

// blueprint is a tensor that is to be written.
type blueprint struct {
	name   string
	typ    TensorType
	dims   []int64
	spread float64 // standard deviation of the random values
	value  float32 // of all values, if spread is 0
}

// matrix is a tensor of random weights in the model's type. Its spread keeps the
// values inside the model at about 1, so that every layer has its say. more are
// further dimensions.
func (s Spec) matrix(name string, in, out int, more ...int) blueprint {
	b := blueprint{name: name, typ: s.Type, dims: []int64{int64(in), int64(out)}, spread: 1 / math.Sqrt(float64(in))}
	for _, d := range more {
		b.dims = append(b.dims, int64(d))
	}
	return b
}

// plain is a matrix of single floats, for what llama.cpp takes in no other type.
func plain(name string, in, out int) blueprint {
	return blueprint{name: name, typ: F32, dims: []int64{int64(in), int64(out)}, spread: 1 / math.Sqrt(float64(in))}
}

// constant is a tensor of equal values in single floats: norms of 1, biases of 0.
func constant(name string, value float32, dims ...int) blueprint {
	b := blueprint{name: name, typ: F32, value: value}
	for _, d := range dims {
		b.dims = append(b.dims, int64(d))
	}
	return b
}

// tensors lists the model's tensors in the file's order. The spread of the
// logits is about logitSpread, so that one token stands out and the others do
// not vanish.
func (s Spec) tensors() []blueprint {
	const logitSpread = 4
	a, _ := architectureOf(s.architecture())
	embeddings := s.matrix("token_embd.weight", s.Embedding, s.Vocab)
	output := s.matrix("output.weight", s.Embedding, s.Vocab)
	output.spread *= logitSpread
	embeddings.spread = 1
	if s.Tied {
		embeddings.spread = output.spread
	}
	list := []blueprint{embeddings}
	for i := range s.Layers {
		for _, t := range a.layer(s, i) {
			t.name = fmt.Sprintf("blk.%d.%s", i, t.name)
			list = append(list, t)
		}
	}
	list = append(list, constant(a.outputNorm, 1, s.Embedding))
	if !s.Tied {
		list = append(list, output)
	}
	return list
}
