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
// number must be at least 1.
type Spec struct {
	Name         string
	Layers       int
	Heads        int // Embedding is a multiple of 2 · Heads
	KVHeads      int // a divisor of Heads
	Embedding    int
	FeedForward  int
	Vocab        int // from 259: three special tokens and a token for each byte
	Context      int // tokens that the model claims to be trained for
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

func (s Spec) validate() error {
	for _, f := range []struct {
		name     string
		got, min int
	}{
		{"Layers", s.Layers, 1},
		{"Heads", s.Heads, 1},
		{"KVHeads", s.KVHeads, 1},
		{"Embedding", s.Embedding, 1},
		{"FeedForward", s.FeedForward, 1},
		{"Vocab", s.Vocab, firstMerged},
		{"Context", s.Context, 1},
	} {
		if f.got < f.min || f.got > maxCount {
			return fmt.Errorf("write model: %s is %d, allowed are %d to %d", f.name, f.got, f.min, maxCount)
		}
	}
	switch {
	case s.Layers > maxLayers:
		return fmt.Errorf("write model: Layers is %d, allowed are 1 to %d", s.Layers, maxLayers)
	case s.Embedding%(2*s.Heads) != 0:
		return fmt.Errorf("write model: Embedding is %d, allowed are multiples of twice the Heads (%d)", s.Embedding, s.Heads)
	case s.Heads%s.KVHeads != 0:
		return fmt.Errorf("write model: KVHeads is %d, allowed are divisors of the Heads (%d)", s.KVHeads, s.Heads)
	case s.Type != F32 && s.Type != F16:
		return fmt.Errorf("write model: Type is %v, allowed are F32 and F16", s.Type)
	}
	return nil
}

// blueprint is a tensor that is to be written.
type blueprint struct {
	name   string
	typ    TensorType
	dims   []int64
	spread float64 // standard deviation of the random values; 0 = all ones (norms)
}

// tensors lists the model's tensors in the file's order. The spreads keep the
// values inside the model at about 1, so that every layer has its say, and the
// logits at about logitSpread, so that one token stands out and the others do
// not vanish.
func (s Spec) tensors() []blueprint {
	const logitSpread = 4
	var (
		embd   = int64(s.Embedding)
		ff     = int64(s.FeedForward)
		vocab  = int64(s.Vocab)
		kv     = embd / int64(s.Heads) * int64(s.KVHeads)
		perIn  = func(in int64) float64 { return 1 / math.Sqrt(float64(in)) }
		norm   = func(name string) blueprint { return blueprint{name, F32, []int64{embd}, 0} }
		matrix = func(name string, in, out int64, spread float64) blueprint {
			return blueprint{name, s.Type, []int64{in, out}, spread}
		}
	)
	embdSpread := 1.0
	if s.Tied {
		embdSpread = logitSpread * perIn(embd)
	}
	list := []blueprint{matrix("token_embd.weight", embd, vocab, embdSpread)}
	for i := range s.Layers {
		blk := fmt.Sprintf("blk.%d.", i)
		list = append(list,
			norm(blk+"attn_norm.weight"),
			matrix(blk+"attn_q.weight", embd, embd, perIn(embd)),
			matrix(blk+"attn_k.weight", embd, kv, perIn(embd)),
			matrix(blk+"attn_v.weight", embd, kv, perIn(embd)),
			matrix(blk+"attn_output.weight", embd, embd, perIn(embd)),
			norm(blk+"ffn_norm.weight"),
			matrix(blk+"ffn_gate.weight", embd, ff, perIn(embd)),
			matrix(blk+"ffn_up.weight", embd, ff, perIn(embd)),
			matrix(blk+"ffn_down.weight", ff, embd, perIn(ff)),
		)
	}
	list = append(list, norm("output_norm.weight"))
	if !s.Tied {
		list = append(list, matrix("output.weight", embd, vocab, logitSpread*perIn(embd)))
	}
	return list
}
