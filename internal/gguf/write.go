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

// Write writes a GGUF file (version 3) with random weights and a byte-level BPE
// tokenizer. The same s gives the same bytes. It
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
		offset = align(offset+t.bytes(), defaultAlignment)
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

// bytes returns the size of the tensor's data.
func (t blueprint) bytes() int64 {
	l, _ := layoutOf(t.typ)
	return t.values() / l.values * l.bytes
}

// fileType is llama.cpp's number for a model that is mostly of the type t.
func fileType(t TensorType) uint32 {
	return map[TensorType]uint32{F32: 0, F16: 1, Q8_0: 7}[t]
}

// metadata writes the number of keys and the keys with their values.
func (e *encoder) metadata(s Spec) {
	v := newVocabulary(s.Vocab)
	name := s.architecture()
	a, _ := architectureOf(name)
	pairs := []func(){
		e.str("general.architecture", name),
		e.str("general.type", "model"),
		e.str("general.name", s.Name),
		e.u32("general.alignment", defaultAlignment),
		e.u32("general.file_type", fileType(s.Type)),
		e.u32("general.quantization_version", 2),
		e.u32(name+".block_count", uint32(s.Layers)),
		e.u32(name+".context_length", uint32(s.Context)),
		e.u32(name+".embedding_length", uint32(s.Embedding)),
		e.u32(name+".feed_forward_length", uint32(s.FeedForward)),
		e.u32(name+".attention.head_count", uint32(a.heads(s))),
		e.f32(name+".attention.layer_norm_rms_epsilon", 1e-5),
		e.u32(name+".vocab_size", uint32(s.Vocab)),
	}
	for _, p := range a.keys(s) {
		pairs = append(pairs, e.pair(name+"."+p.key, p.value))
	}
	pairs = append(pairs,
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
	)
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

// pair writes a key of an architecture.
func (e *encoder) pair(name string, value any) func() {
	switch v := value.(type) {
	case float32:
		return e.f32(name, v)
	case []uint32:
		return e.u32s(name, v)
	default:
		return e.u32(name, v.(uint32)) // the architectures have no other type
	}
}

func (e *encoder) u32s(name string, list []uint32) func() {
	return func() {
		e.key(name, typeArray)
		e.uint32(uint32(typeUint32))
		e.uint64(uint64(len(list)))
		for _, v := range list {
			e.uint32(v)
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
