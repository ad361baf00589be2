package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	// maxCount bounds every number that the header's fields hold, so that
	// products of two of them fit an int64.
	maxCount = 1 << 30
	// maxKept bounds the strings whose text is kept (names, architecture): longer
	// ones, like templates, are skipped.
	maxKept = 1 << 12
	// maxName bounds the names of keys and tensors. The format allows keys of
	// 65,535 bytes, and ggml names tensors with less than 64.
	maxName = 1<<16 - 1
	maxDims = 4
	// minPair and minTensor are the least bytes of a key with its value and of a
	// tensor's description: a count that says more than fits the file is garbage.
	minPair   = 8 + 4 + 1
	minTensor = 8 + 4 + 8 + 4 + 8
)

// arrayLen stands for a list that was skipped: its number of values.
type arrayLen int64

// parser reads a header of a file of size bytes. Errors inside are sticky: after
// the first every read returns zero.
type parser struct {
	r    *bufio.Reader
	size int64
	pos  int64
	err  error
}

// parse reads a header from r, which holds size bytes in all.
func parse(r io.Reader, size int64) (*Header, error) {
	p := &parser{r: bufio.NewReaderSize(r, 1<<16), size: size}
	if err := p.head(); err != nil {
		return nil, err
	}
	tensors, pairs := p.uint64(), p.uint64()
	if p.err == nil && (pairs > uint64(size/minPair) || tensors > uint64(size/minTensor)) {
		p.cutOff()
	}
	if p.err != nil {
		return nil, p.err
	}
	h := &Header{FileBytes: size, meta: make(map[string]any)}
	if err := p.pairs(h, pairs); err != nil {
		return nil, err
	}
	if err := p.tensors(h, tensors); err != nil {
		return nil, err
	}
	if err := h.fill(); err != nil {
		return nil, err
	}
	return h, nil
}

func (p *parser) head() error {
	var m [len(magic)]byte
	p.read(m[:])
	if string(m[:]) != magic {
		if p.pos == 0 {
			return &FormatError{What: "the file is empty", Fix: fixTruncated}
		}
		if _, ok := errors.AsType[*FormatError](p.err); p.err != nil && !ok {
			return p.err // the system's: the file could not be read
		}
		return &FormatError{What: fmt.Sprintf("it is not a GGUF file: it begins with %q instead of %q", m[:min(p.pos, int64(len(m)))], magic), Fix: fixNotGGUF}
	}
	switch v := p.uint32(); {
	case p.err != nil:
		return p.err
	case v != 2 && v != version:
		return &FormatError{What: fmt.Sprintf("it is GGUF version %d, known are 2 and %d (little-endian)", v, version), Fix: fixBroken}
	}
	return nil
}

// pairs reads n keys with their values into h.meta.
func (p *parser) pairs(h *Header, n uint64) error {
	for range n {
		key := p.string(maxName, "a key")
		t := valueType(p.uint32())
		if p.err != nil {
			return p.err
		}
		if _, twice := h.meta[key]; twice {
			return broken("the key %q stands in it twice", key)
		}
		h.meta[key] = p.value(key, t)
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// value reads one value: int64 for whole numbers, float64, bool, string (nil if
// longer than maxKept), []int64 for short lists of whole numbers, arrayLen for
// other lists.
func (p *parser) value(key string, t valueType) any {
	switch t {
	case typeString:
		return p.text()
	case typeArray:
		return p.array(key)
	case typeUint8, typeInt8, typeUint16, typeInt16, typeUint32, typeInt32, typeUint64, typeInt64,
		typeFloat32, typeFloat64, typeBool:
		return p.scalar(t)
	default:
		p.fail(broken("the key %q has values of the unknown type %d", key, t))
		return nil
	}
}

func (p *parser) scalar(t valueType) any {
	var b [8]byte
	p.read(b[:t.size()])
	bits := binary.LittleEndian.Uint64(b[:])
	switch t {
	case typeInt8:
		return int64(int8(bits))
	case typeInt16:
		return int64(int16(bits))
	case typeInt32:
		return int64(int32(bits))
	case typeFloat32:
		return float64(math.Float32frombits(uint32(bits)))
	case typeFloat64:
		return math.Float64frombits(bits)
	case typeBool:
		return bits != 0
	default:
		if bits > math.MaxInt64 {
			return float64(bits) // no count: whoever needs one refuses it
		}
		return int64(bits)
	}
}

// text reads a string value; nil if it is too long to be kept.
func (p *parser) text() any {
	n := p.length()
	if n > maxKept {
		p.skip(n)
		return nil
	}
	b := make([]byte, n)
	p.read(b)
	return string(b)
}

func (p *parser) array(key string) any {
	t, n := valueType(p.uint32()), p.uint64()
	if p.err != nil {
		return nil
	}
	switch size := t.size(); {
	case t == typeString:
		// The shortest string takes the eight bytes of its length.
		if n > uint64(p.size-p.pos)/8 {
			p.cutOff()
		}
		for i := uint64(0); i < n && p.err == nil; i++ {
			p.skip(p.length())
		}
	case size == 0:
		p.fail(broken("the key %q is a list of the type %d, which the format does not have", key, t))
	case n > uint64(p.size-p.pos)/uint64(size):
		p.cutOff()
	case n > maxLayers || t == typeFloat32 || t == typeFloat64:
		p.skip(int64(n) * size)
	default:
		return p.numbers(t, int(n))
	}
	return arrayLen(n)
}

// numbers reads a short list of whole numbers (or booleans, as 0 and 1).
func (p *parser) numbers(t valueType, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		switch v := p.scalar(t).(type) {
		case int64:
			out[i] = v
		case bool:
			if v {
				out[i] = 1
			}
		default: // over an int64
			out[i] = math.MaxInt64
		}
	}
	return out
}

// tensors reads the descriptions of n tensors and checks that the file is long
// enough for their data.
func (p *parser) tensors(h *Header, n uint64) error {
	alignment := int64(defaultAlignment)
	if v, there := h.meta["general.alignment"]; there {
		a, ok := v.(int64)
		if !ok || a < 1 || a > maxCount || a&(a-1) != 0 {
			return broken("general.alignment is %v, allowed are powers of two", v)
		}
		alignment = a
	}
	var need, sum int64
	seen := make(map[string]bool)
	for range n {
		t, err := p.tensor(alignment)
		if err != nil {
			return err
		}
		if seen[t.Name] {
			return broken("the tensor %q stands in it twice", t.Name)
		}
		seen[t.Name] = true
		if t.Bytes > math.MaxInt64-sum || t.Bytes > math.MaxInt64-t.Offset {
			return broken("the tensor %q is larger than any file", t.Name)
		}
		sum += t.Bytes
		need = max(need, t.Offset+t.Bytes)
		h.Tensors = append(h.Tensors, t)
	}
	start := align(p.pos, alignment)
	if need > math.MaxInt64-start {
		return broken("its tensors are larger than any file")
	}
	if start+need > p.size {
		return &FormatError{
			What: fmt.Sprintf("it is cut off: the file has %s bytes, its tensors need %s", group(p.size), group(start+need)),
			Fix:  fixTruncated,
		}
	}
	h.DataStart = start
	return nil
}

func (p *parser) tensor(alignment int64) (Tensor, error) {
	t := Tensor{Name: p.string(maxName, "a tensor's name")}
	dims := p.uint32()
	if p.err == nil && (dims < 1 || dims > maxDims) {
		return t, broken("the tensor %q has %d dimensions, allowed are 1 to %d", t.Name, dims, maxDims)
	}
	for range dims {
		d := p.uint64()
		if p.err == nil && (d < 1 || d > math.MaxInt64) {
			return t, broken("the tensor %q has a dimension of %d", t.Name, d)
		}
		if p.err != nil {
			return t, p.err
		}
		t.Dims = append(t.Dims, int64(d))
	}
	t.Type = TensorType(p.uint32())
	offset := p.uint64()
	if p.err != nil {
		return t, p.err
	}
	l, ok := layoutOf(t.Type)
	if !ok {
		return t, broken("the tensor %q has the type %d, which llama.cpp v0.5.0 does not have", t.Name, uint32(t.Type))
	}
	if t.Bytes, ok = l.bytesOf(t.Dims); !ok {
		return t, broken("the tensor %q of type %s cannot have the shape %v", t.Name, l.name, t.Dims)
	}
	if offset > math.MaxInt64 || offset%uint64(alignment) != 0 {
		return t, broken("the tensor %q begins at %d, which is not a multiple of %d", t.Name, offset, alignment)
	}
	t.Offset = int64(offset)
	return t, nil
}

// cutOff fails because the file ends inside the header.
func (p *parser) cutOff() {
	p.fail(&FormatError{
		What: fmt.Sprintf("it is cut off: the file has %s bytes and ends inside its header", group(p.size)),
		Fix:  fixTruncated,
	})
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// read fills b.
func (p *parser) read(b []byte) {
	if p.err != nil {
		return
	}
	n, err := io.ReadFull(p.r, b)
	p.done(int64(n), err)
}

func (p *parser) skip(n int64) {
	for n > 0 && p.err == nil {
		// Discard counts in int, which is 32 bits on some machines.
		k, err := p.r.Discard(int(min(n, maxCount)))
		p.done(int64(k), err)
		n -= int64(k)
	}
}

func (p *parser) done(n int64, err error) {
	p.pos += n
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		p.cutOff()
	case err != nil:
		p.fail(fmt.Errorf("read header: %w", err))
	}
}

func (p *parser) uint32() uint32 {
	var b [4]byte
	p.read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (p *parser) uint64() uint64 {
	var b [8]byte
	p.read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// length reads the length of a string and checks that the file has so much left.
func (p *parser) length() int64 {
	n := p.uint64()
	if p.err == nil && n > uint64(max(0, p.size-p.pos)) {
		p.cutOff()
	}
	if p.err != nil {
		return 0
	}
	return int64(n)
}

// string reads a string of at most limit bytes; what names it in messages.
func (p *parser) string(limit int64, what string) string {
	n := p.length()
	if n > limit {
		p.fail(broken("%s at byte %s has %s bytes, allowed are %s", what, group(p.pos), group(n), group(limit)))
		return ""
	}
	b := make([]byte, n)
	p.read(b)
	return string(b)
}
