package llama

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hybridgroup/yzma/pkg/llama"
	"golang.org/x/sys/unix"
)

// Saved is the KV of a sequence outside the pool, in host memory. It can be put
// into any context over the same model with the same cache types and attention,
// whatever the size. It takes the bytes that its cells take in the pool, 12 more for
// each, 24 for each layer and 1 KiB, and must be freed.
//
// llama.cpp writes 8 bytes, the number of streams, and for each stream the number of
// its cells and, unless that is 0, their data. It takes the data back from whichever
// stream stands there, if only the number of streams is its own: so that is what
// is written anew.
type Saved struct {
	data     []byte // the memory
	start, n int    // what of it is in llama.cpp's form
	streams  int    // of a context that takes it as it is
	// Where in data the one stream with cells begins, with their number, and ends; 0 = unknown.
	from, end int
}

// margin is the room behind what llama.cpp writes, for streams without cells.
const margin = 4 * 256

// ErrOtherLayout says that a saved sequence cannot be put into a context with
// another number of streams: the model keeps more than keys and values of tokens.
var ErrOtherLayout = errors.New("a saved sequence of this model goes back into the same layout only")

// Save copies a sequence out of the pool.
func (c *Context) Save(seq int) (*Saved, error) {
	size := int(llama.StateSeqGetSize(c.handle, llama.SeqId(seq)))
	if size == 0 {
		return nil, fmt.Errorf("save sequence %d: llama.cpp gives it no size", seq)
	}
	// Not Go's heap: what is freed must go back to the system at once. And shared,
	// which for a process alone is the same as private, but is not counted by the
	// bound on its private memory: whoever has sequences saved has booked it.
	data, err := unix.Mmap(-1, 0, size+margin, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("take %d bytes to save sequence %d: %w", size, seq, err)
	}
	s := &Saved{data: data, n: size, streams: c.opts.streams()}
	if n := llama.StateSeqGetData(c.handle, s.written(), llama.SeqId(seq)); n != uint64(size) {
		s.Free()
		return nil, fmt.Errorf("save sequence %d: llama.cpp wrote %d bytes of %d", seq, n, size)
	}
	s.find()
	return s, nil
}

// headBytes stand before the number of streams.
const headBytes = 8

func (s *Saved) written() []byte { return s.data[s.start : s.start+s.n] }

// find looks for the one stream with cells.
func (s *Saved) find() {
	at := headBytes + 4
	for behind := s.streams - 1; behind >= 0; behind-- {
		end := s.n - 4*behind
		if at+4 > end {
			return
		}
		if binary.NativeEndian.Uint32(s.data[at:]) > 0 {
			s.from, s.end = at, end
			return
		}
		at += 4
	}
}

// Restore puts a saved sequence into the pool as seq, which must be free there.
// What was saved stays, to be freed. It returns ErrOtherLayout, and seq stays free, if
// the model's memory cannot be moved to a context with another number of streams.
func (c *Context) Restore(s *Saved, seq int) error {
	moved := c.opts.streams() != s.streams
	if moved {
		if s.from == 0 {
			return ErrOtherLayout
		}
		s.rewrite(c.opts.streams())
	}
	n := llama.StateSeqSetData(c.handle, s.written(), llama.SeqId(seq))
	if n == uint64(s.n) {
		return nil
	}
	_, reason := c.model.lib.log.take()
	if moved {
		return errors.Join(ErrOtherLayout, c.Forget(seq))
	}
	return fmt.Errorf("restore sequence %d: llama.cpp read %d bytes of %d: %s", seq, n, s.n, reason)
}

// rewrite makes it what a context of so many streams would have written.
func (s *Saved) rewrite(streams int) {
	var head [headBytes]byte
	copy(head[:], s.written())
	s.start, s.n, s.streams = s.from-4-headBytes, 4+headBytes+s.end-s.from+4*(streams-1), streams
	copy(s.written(), head[:])
	binary.NativeEndian.PutUint32(s.data[s.from-4:], uint32(streams))
	clear(s.data[s.end:]) // the other streams have no cells
}

// Bytes is how much host memory it takes.
func (s *Saved) Bytes() int { return len(s.data) }

// Free gives the memory back. It may be called again.
func (s *Saved) Free() {
	if s.data != nil {
		_ = unix.Munmap(s.data) // it fails only for what is not mapped
		s.data = nil
	}
}
