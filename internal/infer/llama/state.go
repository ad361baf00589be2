package llama

import (
	"fmt"

	"github.com/hybridgroup/yzma/pkg/llama"
	"golang.org/x/sys/unix"
)

// Saved is the KV of a sequence outside the pool, in host memory. It can be put
// into any context over the same model with the same cache types, whatever the
// size. It takes the bytes that its cells take in the pool, 12 more for each and 24
// for each layer, and must be freed.
type Saved struct{ data []byte }

// Save copies a sequence out of the pool.
func (c *Context) Save(seq int) (*Saved, error) {
	size := llama.StateSeqGetSize(c.handle, llama.SeqId(seq))
	if size == 0 {
		return nil, fmt.Errorf("save sequence %d: llama.cpp gives it no size", seq)
	}
	// Not Go's heap: what is freed must go back to the system at once. And shared,
	// which for a process alone is the same as private, but is not counted by the
	// bound on its private memory: whoever has sequences saved has booked it.
	data, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("take %d bytes to save sequence %d: %w", size, seq, err)
	}
	s := &Saved{data}
	if n := llama.StateSeqGetData(c.handle, data, llama.SeqId(seq)); n != size {
		s.Free()
		return nil, fmt.Errorf("save sequence %d: llama.cpp wrote %d bytes of %d", seq, n, size)
	}
	return s, nil
}

// Restore puts a saved sequence into the pool as seq, which must be free there.
// What was saved stays, to be freed.
func (c *Context) Restore(s *Saved, seq int) error {
	if n := llama.StateSeqSetData(c.handle, s.data, llama.SeqId(seq)); n != uint64(len(s.data)) {
		_, reason := c.model.lib.log.take()
		return fmt.Errorf("restore sequence %d: llama.cpp read %d bytes of %d: %s", seq, n, len(s.data), reason)
	}
	return nil
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
