package gguf

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// file builds a GGUF file by hand: keys as the test wants them, and tensors that
// are all called token_embd.weight.
type file struct {
	pairs   []func(*encoder)
	dims    []uint64
	typ     uint32
	offset  uint64
	data    int
	tensors int
}

func (f file) bytes(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	e := newEncoder(&b)
	e.bytes([]byte(magic))
	e.uint32(version)
	e.uint64(uint64(f.tensors))
	e.uint64(uint64(len(f.pairs)))
	for _, p := range f.pairs {
		p(e)
	}
	for range f.tensors {
		e.string("token_embd.weight")
		e.uint32(uint32(len(f.dims)))
		for _, d := range f.dims {
			e.uint64(d)
		}
		e.uint32(f.typ)
		e.uint64(f.offset)
	}
	e.pad()
	e.bytes(make([]byte, f.data))
	require.NoError(t, e.w.Flush())
	return b.Bytes()
}

func u32(key string, v uint32) func(*encoder) { return func(e *encoder) { e.u32(key, v)() } }
func str(key, v string) func(*encoder)        { return func(e *encoder) { e.str(key, v)() } }
func tokens(key string) func(*encoder) {
	return func(e *encoder) { e.strs(key, []string{"a", "b"})() }
}

func u32s(key string, list ...uint32) func(*encoder) {
	return func(e *encoder) {
		e.key(key, typeArray)
		e.uint32(uint32(typeUint32))
		e.uint64(uint64(len(list)))
		for _, v := range list {
			e.uint32(v)
		}
	}
}

// keys returns what a header needs, less the key that is left out, plus more.
func keys(without string, more ...func(*encoder)) []func(*encoder) {
	all := map[string]func(*encoder){
		"general.architecture":       str("general.architecture", "qwen2"),
		"qwen2.block_count":          u32("qwen2.block_count", 3),
		"qwen2.context_length":       u32("qwen2.context_length", 100),
		"qwen2.embedding_length":     u32("qwen2.embedding_length", 8),
		"qwen2.attention.head_count": u32("qwen2.attention.head_count", 2),
		"tokenizer.ggml.tokens":      tokens("tokenizer.ggml.tokens"),
	}
	delete(all, without)
	for _, p := range all {
		more = append(more, p)
	}
	return more
}

func good(without string, more ...func(*encoder)) file {
	return file{pairs: keys(without, more...), dims: []uint64{2, 2}, data: 16, tensors: 1}
}

func save(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func TestReadHeaderPerLayer(t *testing.T) {
	t.Parallel()
	h, err := ReadHeader(save(t, good("",
		u32s("qwen2.attention.head_count_kv", 2, 0, 1),
		u32("qwen2.attention.key_length", 5),
		u32("qwen2.attention.value_length", 7)).bytes(t)))
	require.NoError(t, err)
	require.Equal(t, []int{2, 0, 1}, h.KVHeads)
	require.Equal(t, []int{5, 7}, []int{h.KeyLength, h.ValueLength})

	h, err = ReadHeader(save(t, good("").bytes(t)))
	require.NoError(t, err)
	require.Equal(t, []int{2, 2, 2}, h.KVHeads, "absent: as many as heads")
	require.Equal(t, 4, h.KeyLength, "absent: embedding / heads")
}

func TestEncoderOnly(t *testing.T) {
	t.Parallel()
	causal := func(v byte) func(*encoder) {
		return func(e *encoder) {
			e.key("qwen2.attention.causal", typeBool)
			e.bytes([]byte{v})
		}
	}
	for _, c := range []struct {
		pairs []func(*encoder)
		want  bool
	}{{nil, false}, {[]func(*encoder){causal(1)}, false}, {[]func(*encoder){causal(0)}, true}} {
		h, err := ReadHeader(save(t, good("", c.pairs...).bytes(t)))
		require.NoError(t, err)
		require.Equal(t, c.want, h.EncoderOnly())
	}
}

func TestReadHeaderChatTemplate(t *testing.T) {
	t.Parallel()
	const key = "tokenizer.chat_template"
	for name, c := range map[string]struct {
		pair func(*encoder)
		want bool
	}{
		"short":            {str(key, "{{ x }}"), true},
		"as long as kept":  {str(key, strings.Repeat("x", maxKept)), true},
		"longer than that": {str(key, strings.Repeat("x", maxKept+1)), true},
		"empty":            {str(key, ""), false}, // llama.cpp tells no difference from none
		"no text":          {u32(key, 1), false},
		"a list":           {tokens(key), false},
		"only a name":      {str("general.name", key), false},
		"of another use":   {str(key+".tool_use", "{{ x }}"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := ReadHeader(save(t, good("", c.pair).bytes(t)))
			require.NoError(t, err)
			require.Equal(t, c.want, h.HasChatTemplate)
			kept, _ := h.meta[key].(string)
			require.LessOrEqual(t, len(kept), maxKept)
		})
	}
}

func TestReadHeaderFaults(t *testing.T) {
	t.Parallel()
	tiny := tinyBytes(t)
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":        {nil, "the file is empty"},
		"short":        {[]byte("GG"), `it begins with "GG" instead of "GGUF"`},
		"not GGUF":     {[]byte("PK\x03\x04 and more"), `it is not a GGUF file: it begins with "PK\x03\x04"`},
		"version":      {[]byte("GGUF\x01\x00\x00\x00"), "it is GGUF version 1"},
		"big endian":   {[]byte("GGUF\x00\x00\x00\x03"), "it is GGUF version 50331648"},
		"header cut":   {tiny[:5000], "it is cut off: the file has 5,000 bytes and ends inside its header"},
		"data cut":     {tiny[:len(tiny)-1000], "it is cut off: the file has 570,008 bytes, its tensors need 571,008"},
		"architecture": {good("general.architecture").bytes(t), "the key general.architecture is missing"},
		"layers":       {good("qwen2.block_count").bytes(t), "the key qwen2.block_count is missing"},
		"context":      {good("qwen2.context_length").bytes(t), "the key qwen2.context_length is missing"},
		"embedding":    {good("qwen2.embedding_length").bytes(t), "the key qwen2.embedding_length is missing"},
		"heads":        {good("qwen2.attention.head_count").bytes(t), "the key qwen2.attention.head_count is missing"},
		"tokens":       {good("tokenizer.ggml.tokens").bytes(t), "the key tokenizer.ggml.tokens is missing"},
		"twice":        {good("", u32("qwen2.block_count", 3)).bytes(t), `the key "qwen2.block_count" stands in it twice`},
		"no layers":    {good("qwen2.block_count", u32("qwen2.block_count", 0)).bytes(t), "qwen2.block_count is 0, allowed are whole numbers from 1"},
		"text":         {good("qwen2.block_count", str("qwen2.block_count", "x")).bytes(t), "qwen2.block_count is x, allowed"},
		"many layers":  {good("qwen2.block_count", u32("qwen2.block_count", 1<<29)).bytes(t), "qwen2.block_count is 536,870,912, more than any model has"},
		"list":         {good("", u32s("qwen2.attention.head_count_kv", 1, 2)).bytes(t), "qwen2.attention.head_count_kv has 2 values, but there are 3 layers"},
		"uneven":       {good("qwen2.attention.head_count", u32("qwen2.attention.head_count", 3)).bytes(t), "qwen2.attention.key_length is absent"},
		"alignment":    {good("", u32("general.alignment", 33)).bytes(t), "general.alignment is 33, allowed are powers of two"},
		"split":        {good("", u32("split.count", 3)).bytes(t), "one part of a model in 3 files"},
		"no tensor":    {file{pairs: keys("")}.bytes(t), "the tensor token_embd.weight is missing"},
		"two tensors":  {file{pairs: keys(""), dims: []uint64{2}, data: 16, tensors: 2}.bytes(t), `the tensor "token_embd.weight" stands in it twice`},
		"type":         {file{pairs: keys(""), dims: []uint64{2}, typ: 99, tensors: 1}.bytes(t), "has the type 99"},
		"block":        {file{pairs: keys(""), dims: []uint64{33}, typ: 8, tensors: 1}.bytes(t), "of type Q8_0 cannot have the shape [33]"},
		"offset":       {file{pairs: keys(""), dims: []uint64{2}, offset: 7, tensors: 1}.bytes(t), "begins at 7, which is not a multiple of 32"},
		"dimensions":   {file{pairs: keys(""), dims: make([]uint64, 5), tensors: 1}.bytes(t), "has 5 dimensions"},
		"huge":         {file{pairs: keys(""), dims: []uint64{math.MaxInt64, 2}, tensors: 1}.bytes(t), "cannot have the shape"},
		"counts":       {binary.LittleEndian.AppendUint64([]byte("GGUF\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"), math.MaxUint64), "ends inside its header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := save(t, c.content)
			_, err := ReadHeader(path)
			require.ErrorContains(t, err, c.want)
			var fe *FormatError
			require.ErrorAs(t, err, &fe)
			require.Equal(t, path, fe.Path)
			require.NotEmpty(t, fe.Hint())
		})
	}
}

func TestReadHeaderNoFile(t *testing.T) {
	t.Parallel()
	_, err := ReadHeader(filepath.Join(t.TempDir(), "none.gguf"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = ReadHeader(t.TempDir())
	require.ErrorContains(t, err, "it is not a file")
}

// FuzzParse: no input makes the reader panic or take memory that the input does
// not back, and what it accepts is consistent.
func FuzzParse(f *testing.F) {
	f.Add(good("", u32s("qwen2.attention.head_count_kv", 2, 0, 1)).bytes(f))
	f.Add(file{pairs: keys(""), dims: []uint64{33}, typ: 8, tensors: 1}.bytes(f))
	for _, architecture := range architectures() {
		s := small(architecture)
		s.Embedding, s.Heads, s.HeadSize, s.FeedForward, s.Vocab, s.ChatTemplate = 16, 4, 0, 4, firstMerged, ""
		var b bytes.Buffer
		require.NoError(f, Write(&b, s))
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		h, err := parse(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		require.LessOrEqual(t, h.TokenEmbdBytes, h.TensorBytes)
		require.Len(t, h.KVHeads, h.Layers)
		require.LessOrEqual(t, h.OtherBytes(), h.TensorBytes)
		require.LessOrEqual(t, h.OffloadedBytes(), h.TensorBytes)
		loaded, _ := h.LoadedBytes([]string{BufferAMX})
		require.GreaterOrEqual(t, loaded, h.TensorBytes)
		for _, l := range h.LayerMemory(F16, F16) {
			require.GreaterOrEqual(t, l.CacheBytes(CacheShape{Cells: 1, Sequences: 1}), int64(0))
		}
	})
}
