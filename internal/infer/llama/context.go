package llama

import (
	"errors"
	"fmt"
	"math"

	"github.com/hybridgroup/yzma/pkg/llama"

	"tempo/internal/budget"
)

// ContextOptions give a context its shape. One cell is one token of one sequence.
type ContextOptions struct {
	Cells     int // size of the pool in tokens, a multiple of 256
	Sequences int // 1 to 256
	Batch     int // most tokens in one Decode
	Micro     int // most tokens that go through the model at once; 0 = Batch
	Threads   int
	// Streams gives each sequence cells of its own, Cells / Sequences of them, which
	// must be a multiple of 256. Without it all share the pool (llama.cpp's unified
	// KV cache), and attention looks at the cells of all.
	Streams bool
	// NoFlash leaves out flash attention. The scores of all tokens that go through at once
	// are in memory then.
	NoFlash bool
	// Outputs is the most tokens of a batch of which the logits can be read, at least Sequences.
	// llama.cpp ends the process if there are more.
	Outputs int
	// Attention lets attention weights be read, see Context.Attend. It leaves out flash
	// attention, which has none.
	Attention bool
	// Embeddings gives every token of a batch its vector; see Context.Embedding.
	Embeddings bool
	// TypeK and TypeV are what a cell's keys and values are kept in: one of
	// CacheTypes, "" = f16.
	TypeK, TypeV string
}

// Context is a KV pool and the compute buffers over a model.
type Context struct {
	model   *Model
	opts    ContextOptions
	handle  llama.Context // 0 = closed
	memory  llama.Memory
	batch   llama.Batch
	decoder *decoder // nil before the first Decode

	attention *attention // nil without ContextOptions.Attention
	attending bool       // Attend was called, and Attention was not

	cache   budget.Bytes
	compute budget.Bytes
}

// NewContext allocates the KV pool and the compute buffers. In a model that was
// opened with DryRun nothing is allocated and only the sizes are known. It returns
// *CacheTypeError if the options name a type that there is not.
func (m *Model) NewContext(opts ContextOptions) (*Context, error) {
	c := &Context{model: m}
	if err := c.open(opts); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// open allocates what opts ask for.
func (c *Context) open(opts ContextOptions) error {
	params := llama.ContextDefaultParams()
	params.NCtx = uint32(opts.Cells)
	params.NSeqMax = uint32(opts.Sequences)
	params.NBatch = uint32(opts.Batch)
	params.NUbatch = uint32(opts.micro())
	params.NOutputsMax = uint32(max(opts.Outputs, opts.Sequences))
	params.NThreads = int32(opts.Threads)
	params.NThreadsBatch = int32(opts.Threads)
	params.KVUnified = 1
	if opts.Streams {
		params.KVUnified = 0
	}
	if opts.Embeddings {
		params.Embeddings, params.PoolingType = 1, llama.PoolingTypeNone
		params.NOutputsMax = uint32(max(opts.Sequences, opts.Batch))
	}
	if opts.Attention {
		var err error
		if c.attention, err = newAttention(c.model.lib.attends, mostCopied); err != nil {
			return err
		}
		opts.NoFlash = true
		params.CbEval, params.CbEvalUserData = c.attention.callback()
	}
	if opts.NoFlash {
		params.FlashAttentionType = llama.FlashAttentionTypeDisabled
	}
	var err error
	if params.TypeK, err = cacheType(opts.TypeK); err != nil {
		return err
	}
	if params.TypeV, err = cacheType(opts.TypeV); err != nil {
		return err
	}
	lib := c.model.lib
	lib.allocating.Lock()
	defer lib.allocating.Unlock()
	lib.log.reset()
	handle, err := llama.InitFromModel(c.model.handle, params)
	sizes, reason := lib.log.take()
	if err != nil {
		return fmt.Errorf("create a context of %d tokens for %d sequences%s: %w",
			opts.Cells, opts.Sequences, opts.quantised(), preferReason(err, reason))
	}
	c.opts, c.handle, c.cache, c.compute = opts, handle, sizes.cache, c.model.onDevice(sizes.compute)
	if c.memory, err = llama.GetMemory(handle); err != nil {
		return fmt.Errorf("get KV memory: %w", err)
	}
	c.batch = llama.BatchInit(int32(opts.Batch), 0, sharing)
	return nil
}

// Close gives the context's memory back to the system. It may be called again.
func (c *Context) Close() error {
	var failed error
	defer func() {
		if c.attention != nil {
			c.attention.close()
			c.attention = nil
		}
	}()
	if c.decoder != nil {
		failed = c.decoder.close()
		c.decoder = nil
	}
	if c.batch.Token != nil {
		if err := llama.BatchFree(c.batch); err != nil {
			return errors.Join(failed, fmt.Errorf("free batch: %w", err))
		}
		c.batch = llama.Batch{}
	}
	if c.handle != 0 {
		if err := llama.Free(c.handle); err != nil {
			return errors.Join(failed, fmt.Errorf("free context: %w", err))
		}
		c.handle, c.memory = 0, 0
	}
	return failed
}

// Cache is the size of the KV pool in bytes.
func (c *Context) Cache() budget.Bytes { return c.cache }

// Compute is the size of the compute and logits buffers in bytes.
func (c *Context) Compute() budget.Bytes { return c.compute }

// Options is the context's shape.
func (c *Context) Options() ContextOptions { return c.opts }

func (o ContextOptions) micro() int {
	if o.Micro > 0 {
		return min(o.Micro, o.Batch)
	}
	return o.Batch
}

// streams is how many pools of cells there are.
func (o ContextOptions) streams() int {
	if o.Streams {
		return o.Sequences
	}
	return 1
}

// Longest is how many cells one sequence can have.
func (o ContextOptions) Longest() int { return o.Cells / o.streams() }

// Clear empties the batch.
func (c *Context) Clear() { c.batch.NTokens = 0 }

// Add puts a token at position pos of sequence seq into the batch. With output
// set its logits can be read after Decode, at the index that Add returns.
func (c *Context) Add(t Token, pos, seq int, output bool) (int, error) {
	i := int(c.batch.NTokens)
	if err := c.batch.Add(llama.Token(t), llama.Pos(pos), []llama.SeqId{llama.SeqId(seq)}, output); err != nil {
		return 0, fmt.Errorf("add token %d of sequence %d to the batch: %w", pos, seq, err)
	}
	return i, nil
}

// sharing is in how many sequences a token can be.
const sharing = 2

// AddShared is Add for a token that is in the sequence also too, unless that is negative. Both
// must have the same before, in one pool of cells; the token sees what is in seq.
func (c *Context) AddShared(t Token, pos, seq, also int, output bool) (int, error) {
	if also < 0 {
		return c.Add(t, pos, seq, output)
	}
	i := int(c.batch.NTokens)
	if err := c.batch.Add(llama.Token(t), llama.Pos(pos), []llama.SeqId{llama.SeqId(seq), llama.SeqId(also)}, output); err != nil {
		return 0, fmt.Errorf("add token %d of sequences %d and %d to the batch: %w", pos, seq, also, err)
	}
	return i, nil
}

// MostSequences is how many sequences one pool of cells can have, whatever
// ContextOptions.Sequences is.
const MostSequences = 256

// Room is how many tokens the batch still takes.
func (c *Context) Room() int { return c.opts.Batch - int(c.batch.NTokens) }

// ErrNoCells says that the pool has no room for the batch; nothing was changed.
var ErrNoCells = errors.New("no free cells in the KV pool")

// Decode runs the batch through the model.
// It returns ErrNoCells if the pool cannot hold it. Any other error leaves the
// context in an unknown state.
func (c *Context) Decode() (err error) {
	if c.decoder == nil {
		if c.decoder, err = newDecoder(c.model.lib.decodes); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
	}
	code, err := c.decoder.decode(c.handle, c.batch)
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

// Share gives sequence to what from has, which must stay as it is until the next
// Decode. to must be empty, and both may be decoded then. In one pool of cells it
// costs nothing, between streams a copy of the stream within the next Decode.
func (c *Context) Share(from, to int) error {
	if err := llama.MemorySeqCp(c.memory, llama.SeqId(from), llama.SeqId(to), -1, -1); err != nil {
		return fmt.Errorf("share sequence %d with %d: %w", from, to, err)
	}
	return nil
}

// Join gives sequence to what from has at position pos, beside what it has. Both must be in
// one pool of cells.
func (c *Context) Join(from, to, pos int) error {
	if err := llama.MemorySeqCp(c.memory, llama.SeqId(from), llama.SeqId(to), llama.Pos(pos), llama.Pos(pos+1)); err != nil {
		return fmt.Errorf("give sequence %d position %d of sequence %d: %w", to, pos, from, err)
	}
	return nil
}

// Drop removes what sequence seq has at position pos, and nothing behind it.
func (c *Context) Drop(seq, pos int) error {
	if _, err := llama.MemorySeqRm(c.memory, llama.SeqId(seq), llama.Pos(pos), llama.Pos(pos+1)); err != nil {
		return fmt.Errorf("remove position %d of sequence %d: %w", pos, seq, err)
	}
	return nil
}

// Trim removes what sequence seq has from position n on. It returns false, and the
// sequence is as it was, if the model's memory cannot be cut there: that of
// recurrent models has no single tokens.
func (c *Context) Trim(seq, n int) (bool, error) {
	ok, err := llama.MemorySeqRm(c.memory, llama.SeqId(seq), llama.Pos(n), -1)
	if err != nil {
		return false, fmt.Errorf("cut sequence %d at %d: %w", seq, n, err)
	}
	return ok, nil
}

// Whole reports whether a sequence that was cut to n tokens has all that the next one sees.
// Layers with a sliding window may have lost what was out of it before the cut: llama.cpp
// saves no more than that, and uses the room of the rest. One token more is asked for than is seen.
func (c *Context) Whole(seq, n int) (bool, error) {
	window := c.model.Window()
	if window == 0 || n == 0 {
		return true, nil
	}
	first, err := llama.MemorySeqPosMin(c.memory, llama.SeqId(seq))
	if err != nil {
		return false, fmt.Errorf("find the first token of sequence %d: %w", seq, err)
	}
	return int(first) <= max(0, n-window), nil
}

// Logits are the logits at output i of the last Decode, one for each token of the
// vocabulary. The memory is llama.cpp's and is overwritten by the next Decode.
func (c *Context) Logits(i int) ([]float32, error) {
	logits, err := llama.GetLogitsIth(c.handle, int32(i), c.model.Vocabulary())
	if err != nil {
		return nil, fmt.Errorf("read logits: %w", err)
	}
	if logits == nil {
		return nil, fmt.Errorf("read logits: batch index %d has no output", i)
	}
	return logits, nil
}

// Argmax is the most likely token at output i of the last Decode.
func (c *Context) Argmax(i int) (Token, error) {
	logits, err := c.Logits(i)
	if err != nil {
		return 0, err
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
