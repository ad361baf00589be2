package main

import (
	"fmt"

	"tempo/internal/gguf"
)

// trial is a model and the shape that it is loaded in.
type trial struct {
	name         string
	model        gguf.Spec
	file         string // a model that is there already, instead of model
	cells        int
	typeK, typeV string // of the cache
	batch        int
	sequences    int
}

// String names the shape: layers × heads/KV heads × head size, cells and types of
// the cache, batch and sequences.
func (c trial) String() string {
	shape := c.name
	if c.file == "" {
		m := c.model
		size := m.HeadSize
		if size == 0 {
			size = m.Embedding / m.Heads
		}
		shape += fmt.Sprintf(" %d×%d/%d×%d", m.Layers, m.Heads, m.KVHeads, size)
		if m.Architecture == gguf.Mamba {
			shape = fmt.Sprintf("%s %d×%d", c.name, m.Layers, m.Embedding)
		}
	}
	return fmt.Sprintf("%s, %d cells %s/%s, batch %d, %d sequences", shape, c.cells, c.typeK, c.typeV, c.batch, c.sequences)
}

// sized is a model of that shape with heads of so many values each.
func sized(layers, heads, kvHeads, headSize int, t gguf.TensorType) gguf.Spec {
	s := gguf.Tiny()
	s.Layers, s.Heads, s.KVHeads, s.HeadSize = layers, heads, kvHeads, headSize
	s.Embedding, s.FeedForward, s.Vocab, s.Context, s.Type = 512, 1536, 16384, 65536, t
	return s
}

// with changes a shape.
func with(s gguf.Spec, architecture string, change func(*gguf.Spec)) gguf.Spec {
	s.Architecture = architecture
	change(&s)
	return s
}

// trials are the shapes: each part of each is over 8 MiB, so that the two decimals
// of a MiB that llama.cpp tells do not matter. example is the model of `make run`,
// "" if it is not there.
func trials(example string) []trial {
	tied := func(s *gguf.Spec) { s.Tied = true }
	list := []trial{
		{"llama F16", sized(8, 8, 8, 64, gguf.F16), "", 8192, "f16", "f16", 512, 8},
		{"llama F32", sized(4, 8, 2, 64, gguf.F32), "", 16384, "f32", "f32", 512, 16},
		{"llama F16", sized(8, 8, 1, 128, gguf.F16), "", 32768, "q8_0", "q8_0", 512, 32},
		{"llama Q8_0", sized(16, 8, 2, 64, gguf.Q8_0), "", 32768, "q4_0", "q4_0", 512, 64},
		{"llama Q8_0 tied", with(sized(12, 16, 4, 32, gguf.Q8_0), gguf.Llama, tied), "", 16384, "f16", "f16", 1024, 16},
		{"llama F16 tied", with(sized(6, 4, 4, 128, gguf.F16), gguf.Llama, tied), "", 12288, "q8_0", "f16", 256, 128},
		{"llama Q8_0", sized(24, 8, 4, 64, gguf.Q8_0), "", 2048, "f16", "q8_0", 2048, 4},
		{"gemma2 F16", with(sized(8, 8, 4, 64, gguf.F16), gguf.Gemma2, func(s *gguf.Spec) { s.Window, s.Tied = 1024, true }), "", 12288, "f16", "f16", 512, 8},
		{"gemma2 Q8_0", with(sized(6, 4, 1, 256, gguf.Q8_0), gguf.Gemma2, func(s *gguf.Spec) { s.Window, s.Tied = 512, true }), "", 16384, "q8_0", "q8_0", 512, 32},
		{"deepseek2 F32", with(sized(6, 8, 1, 64, gguf.F32), gguf.DeepSeek2, func(s *gguf.Spec) { s.Latent = 256 }), "", 8192, "f16", "f16", 512, 16},
		{"lfm2 F32", with(sized(9, 8, 4, 0, gguf.F32), gguf.LFM2, func(*gguf.Spec) {}), "", 16384, "f16", "f16", 512, 16},
		{"mamba F32", with(sized(6, 8, 8, 0, gguf.F32), gguf.Mamba, func(*gguf.Spec) {}), "", 4096, "f16", "f16", 512, 48},
		{"qwen3moe F16", with(sized(4, 8, 2, 64, gguf.F16), gguf.Qwen3MoE, func(s *gguf.Spec) { s.Experts, s.FeedForward = 8, 512 }), "", 16384, "f16", "f16", 512, 16},
	}
	if example != "" {
		list = append(list,
			trial{name: "example model", file: example, cells: 8192, typeK: "f16", typeV: "f16", batch: 512, sequences: 16},
			trial{name: "example model", file: example, cells: 16384, typeK: "q8_0", typeV: "q8_0", batch: 1024, sequences: 64})
	}
	return list
}
