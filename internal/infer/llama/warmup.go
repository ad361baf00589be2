package llama

import (
	"fmt"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// WarmUp runs the worst shapes once: the largest piece of one prompt, then a full
// batch over all sequences with an output for each. Pages and temporary pools that
// only appear then are there when memory is measured. It leaves the pool empty.
func (c *Context) WarmUp() error {
	n := min(c.opts.Batch, c.opts.Cells)
	if _, err := c.warm(min(n, c.opts.Longest()), 1); err != nil {
		return err
	}
	_, err := c.warm(n, min(c.opts.Sequences, n))
	return err
}

// warm decodes n tokens, spread over the first sequences, each of which has an
// output, and returns the index of the last. The pool is empty again then.
func (c *Context) warm(n, sequences int) (int, error) {
	c.Clear()
	at := 0
	for i := range n {
		// Sequence s has the tokens from s·n/sequences on.
		seq := ((i+1)*sequences - 1) / n
		pos := i - seq*n/sequences
		last := i == (seq+1)*n/sequences-1
		index, err := c.Add(0, pos, seq, last)
		if err != nil {
			return 0, err
		}
		if last {
			at = index
		}
	}
	if err := c.Decode(); err != nil {
		return 0, fmt.Errorf("warm up with %d tokens in %d sequences: %w", n, sequences, err)
	}
	if err := llama.MemoryClear(c.memory, false); err != nil {
		return 0, fmt.Errorf("clear KV memory: %w", err)
	}
	return at, nil
}
