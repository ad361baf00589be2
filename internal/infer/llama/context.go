package llama

import (
	"errors"
	"fmt"
	"math"

	"github.com/hybridgroup/yzma/pkg/llama"

	"tempo/internal/budget"
)

// ContextOptions give a context its shape. All sequences share one pool of
// cells (llama.cpp's unified KV cache): one cell is one token of one sequence.
type ContextOptions struct {
	Cells     int // size of the pool in tokens, a multiple of 256
	Sequences int // 1 to 256
	Batch     int // most tokens in one Decode
	Threads   int
}

// Context is a KV pool and the compute buffers over a model.
type Context struct {
	model   *Model
	opts    ContextOptions
	handle  llama.Context
	memory  llama.Memory
	batch   llama.Batch
	cache   budget.Bytes
	compute budget.Bytes
}

// NewContext allocates the KV pool and the compute buffers. In a model that was
// opened with DryRun nothing is allocated and only the sizes are known.
func (m *Model) NewContext(opts ContextOptions) (*Context, error) {
	params := llama.ContextDefaultParams()
	params.NCtx = uint32(opts.Cells)
	params.NSeqMax = uint32(opts.Sequences)
	params.NBatch = uint32(opts.Batch)
	params.NUbatch = uint32(opts.Batch)
	params.NOutputsMax = uint32(opts.Sequences)
	params.NThreads = int32(opts.Threads)
	params.NThreadsBatch = int32(opts.Threads)
	params.KVUnified = 1
	m.lib.allocating.Lock()
	defer m.lib.allocating.Unlock()
	m.lib.log.reset()
	handle, err := llama.InitFromModel(m.handle, params)
	sizes, reason := m.lib.log.take()
	if err != nil {
		return nil, fmt.Errorf("create a context of %d tokens for %d sequences: %w", opts.Cells, opts.Sequences, preferReason(err, reason))
	}
	c := &Context{model: m, opts: opts, handle: handle, cache: sizes.cache, compute: m.onDevice(sizes.compute)}
	if c.memory, err = llama.GetMemory(handle); err != nil {
		return nil, errors.Join(fmt.Errorf("get KV memory: %w", err), c.Close())
	}
	c.batch = llama.BatchInit(int32(opts.Batch), 0, 1)
	return c, nil
}

// Close gives the context's memory back to the system.
func (c *Context) Close() error {
	if c.batch.Token != nil {
		if err := llama.BatchFree(c.batch); err != nil {
			return fmt.Errorf("free batch: %w", err)
		}
	}
	if err := llama.Free(c.handle); err != nil {
		return fmt.Errorf("free context: %w", err)
	}
	return nil
}

// Cache is the size of the KV pool in bytes.
func (c *Context) Cache() budget.Bytes { return c.cache }

// Compute is the size of the compute and logits buffers in bytes.
func (c *Context) Compute() budget.Bytes { return c.compute }

// Options is the context's shape.
func (c *Context) Options() ContextOptions { return c.opts }

// Clear empties the batch.
func (c *Context) Clear() { c.batch.NTokens = 0 }

// Add puts a token at position pos of sequence seq into the batch. With output
// set its logits can be read after Decode, at the index that Add returns.
func (c *Context) Add(t Token, pos, seq int, output bool) (int, error) {
	i := int(c.batch.NTokens)
	if err := c.batch.Add(t, llama.Pos(pos), []llama.SeqId{llama.SeqId(seq)}, output); err != nil {
		return 0, fmt.Errorf("add token %d of sequence %d to the batch: %w", pos, seq, err)
	}
	return i, nil
}

// Room is how many tokens the batch still takes.
func (c *Context) Room() int { return c.opts.Batch - int(c.batch.NTokens) }

// ErrNoCells says that the pool has no room for the batch; nothing was changed.
var ErrNoCells = errors.New("no free cells in the KV pool")

// Decode runs the batch through the model.
// It returns ErrNoCells if the pool cannot hold it. Any other error leaves the
// context in an unknown state.
func (c *Context) Decode() error {
	code, err := llama.Decode(c.handle, c.batch)
	switch {
	case err != nil:
		return fmt.Errorf("decode: %w", err)
	case code == 1:
		return ErrNoCells
	case code != 0:
		_, reason := c.model.lib.log.take()
		return fmt.Errorf("decode: llama.cpp returned %d: %s", code, reason)
	}
	return nil
}

// Forget removes a whole sequence from the pool.
func (c *Context) Forget(seq int) error {
	if _, err := llama.MemorySeqRm(c.memory, llama.SeqId(seq), -1, -1); err != nil {
		return fmt.Errorf("remove sequence %d: %w", seq, err)
	}
	return nil
}

// Argmax is the most likely token at output i of the last Decode.
func (c *Context) Argmax(i int) (Token, error) {
	logits, err := llama.GetLogitsIth(c.handle, int32(i), c.model.Vocabulary())
	if err != nil {
		return 0, fmt.Errorf("read logits: %w", err)
	}
	if logits == nil {
		return 0, fmt.Errorf("read logits: batch index %d has no output", i)
	}
	best, at := float32(math.Inf(-1)), -1
	for t, v := range logits {
		if v > best {
			best, at = v, t
		}
	}
	if at < 0 {
		return 0, errors.New("logits are not numbers: the model file or the library is damaged")
	}
	return Token(at), nil
}

// WarmUp runs the worst shape once: a full batch over all sequences with an
// output for each. Pages and temporary pools that only appear then are there
// when memory is measured. It leaves the pool empty.
func (c *Context) WarmUp() error {
	c.Clear()
	n := min(c.opts.Batch, c.opts.Cells)
	perSequence := max(n/c.opts.Sequences, 1)
	for i := range n {
		seq := min(i/perSequence, c.opts.Sequences-1)
		pos := i - seq*perSequence
		last := pos == perSequence-1
		if seq == c.opts.Sequences-1 { // takes what the division left over
			last = i == n-1
		}
		if _, err := c.Add(0, pos, seq, last); err != nil {
			return err
		}
	}
	if err := c.Decode(); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	if err := llama.MemoryClear(c.memory, false); err != nil {
		return fmt.Errorf("clear KV memory: %w", err)
	}
	return nil
}
