package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
)

// WriteFile writes the model s to a file, as [Write] does. A file that could not
// be written whole is removed.
func WriteFile(path string, s Spec) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	if err := errors.Join(Write(f, s), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Write writes a GGUF file (version 3) of the llama architecture with random
// weights and a byte-level BPE tokenizer. The same s gives the same bytes. It
// writes as it goes: the memory it takes depends on the vocabulary, not on the
// size of the model. It returns an error that names the field if s makes no
// model.
func Write(w io.Writer, s Spec) error {
	if err := s.validate(); err != nil {
		return err
	}
	e := newEncoder(w)
	tensors := s.tensors()
	e.bytes([]byte(magic))
	e.uint32(version)
	e.uint64(uint64(len(tensors)))
	e.metadata(s)
	var offset int64
	for _, t := range tensors {
		e.string(t.name)
		e.uint32(uint32(len(t.dims)))
		for _, d := range t.dims {
			e.uint64(uint64(d))
		}
		e.uint32(uint32(t.typ))
		e.uint64(uint64(offset))
		offset = align(offset+t.values()*t.width(), defaultAlignment)
	}
	e.pad()
	for i, t := range tensors {
		// A generator for each tensor: its values do not depend on the others.
		e.values(t, rand.New(rand.NewPCG(s.Seed, uint64(i))))
		e.pad()
	}
	if err := errors.Join(e.err, e.w.Flush()); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return nil
}

func (t blueprint) values() int64 {
	n := int64(1)
	for _, d := range t.dims {
		n *= d
	}
	return n
}

// width returns the bytes of one value.
func (t blueprint) width() int64 {
	if t.typ == F16 {
		return 2
	}
	return 4
}

// metadata writes the number of keys and the keys with their values.
func (e *encoder) metadata(s Spec) {
	fileType := uint32(s.Type) // llama.cpp's numbers are the same for F32 and F16
	v := newVocabulary(s.Vocab)
	pairs := []func(){
		e.str("general.architecture", "llama"),
		e.str("general.type", "model"),
		e.str("general.name", s.Name),
		e.u32("general.alignment", defaultAlignment),
		e.u32("general.file_type", fileType),
		e.u32("general.quantization_version", 2),
		e.u32("llama.block_count", uint32(s.Layers)),
		e.u32("llama.context_length", uint32(s.Context)),
		e.u32("llama.embedding_length", uint32(s.Embedding)),
		e.u32("llama.feed_forward_length", uint32(s.FeedForward)),
		e.u32("llama.attention.head_count", uint32(s.Heads)),
		e.u32("llama.attention.head_count_kv", uint32(s.KVHeads)),
		e.f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
		e.u32("llama.rope.dimension_count", uint32(s.Embedding/s.Heads)),
		e.f32("llama.rope.freq_base", 10000),
		e.u32("llama.vocab_size", uint32(s.Vocab)),
		e.str("tokenizer.ggml.model", "gpt2"),
		e.str("tokenizer.ggml.pre", "smollm"),
		e.strs("tokenizer.ggml.tokens", v.tokens),
		e.tokenTypes("tokenizer.ggml.token_type", len(v.tokens)),
		e.strs("tokenizer.ggml.merges", v.merges),
		e.u32("tokenizer.ggml.bos_token_id", imStart),
		e.u32("tokenizer.ggml.eos_token_id", imEnd),
		e.u32("tokenizer.ggml.unknown_token_id", endOfText),
		e.u32("tokenizer.ggml.padding_token_id", imEnd),
		e.flag("tokenizer.ggml.add_bos_token", false),
		e.flag("tokenizer.ggml.add_space_prefix", false),
	}
	if s.ChatTemplate != "" {
		pairs = append(pairs, e.str("tokenizer.chat_template", s.ChatTemplate))
	}
	e.uint64(uint64(len(pairs)))
	for _, write := range pairs {
		write()
	}
}

// encoder writes little-endian values and keeps the first error.
type encoder struct {
	w   *bufio.Writer
	pos int64
	err error
}

func newEncoder(w io.Writer) *encoder {
	return &encoder{w: bufio.NewWriterSize(w, 1<<16)}
}

func (e *encoder) bytes(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
		e.pos += int64(len(b))
	}
}

func (e *encoder) uint32(v uint32) { e.bytes(binary.LittleEndian.AppendUint32(nil, v)) }
func (e *encoder) uint64(v uint64) { e.bytes(binary.LittleEndian.AppendUint64(nil, v)) }

func (e *encoder) string(s string) {
	e.uint64(uint64(len(s)))
	e.bytes([]byte(s))
}

func (e *encoder) key(name string, t valueType) {
	e.string(name)
	e.uint32(uint32(t))
}

func (e *encoder) pad() {
	e.bytes(make([]byte, align(e.pos, defaultAlignment)-e.pos))
}

func (e *encoder) str(name, v string) func() {
	return func() { e.key(name, typeString); e.string(v) }
}

func (e *encoder) u32(name string, v uint32) func() {
	return func() { e.key(name, typeUint32); e.uint32(v) }
}

func (e *encoder) f32(name string, v float32) func() {
	return func() { e.key(name, typeFloat32); e.uint32(math.Float32bits(v)) }
}

func (e *encoder) flag(name string, v bool) func() {
	return func() {
		e.key(name, typeBool)
		if v {
			e.bytes([]byte{1})
		} else {
			e.bytes([]byte{0})
		}
	}
}

func (e *encoder) strs(name string, list []string) func() {
	return func() {
		e.key(name, typeArray)
		e.uint32(uint32(typeString))
		e.uint64(uint64(len(list)))
		for _, s := range list {
			e.string(s)
		}
	}
}

func (e *encoder) tokenTypes(name string, n int) func() {
	return func() {
		e.key(name, typeArray)
		e.uint32(uint32(typeInt32))
		e.uint64(uint64(n))
		for id := range n {
			e.uint32(uint32(tokenType(id)))
		}
	}
}

// values writes a tensor's data: ones, or values that are uniform between the
// bounds that give the spread.
func (e *encoder) values(t blueprint, random *rand.Rand) {
	const chunk = 1 << 12
	bound := t.spread * math.Sqrt(3)
	buf := make([]byte, 0, chunk*t.width())
	for left := t.values(); left > 0 && e.err == nil; left -= min(left, chunk) {
		buf = buf[:0]
		for range min(left, chunk) {
			v := float32(1)
			if t.spread != 0 {
				v = float32(bound * (2*random.Float64() - 1))
			}
			if t.typ == F16 {
				buf = binary.LittleEndian.AppendUint16(buf, half(v))
			} else {
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
			}
		}
		e.bytes(buf)
	}
}

// half converts a weight, whose magnitude is far below the largest half of
// 65,504, cutting off the bits that do not fit: the weights are random, so
// rounding would add nothing. What is too small for a normal half becomes zero.
func half(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits>>16) & 0x8000
	exponent := int(bits>>23&0xff) - 127 + 15
	if exponent < 1 {
		return sign
	}
	return sign | uint16(exponent)<<10 | uint16(bits>>13)&0x3ff
}
