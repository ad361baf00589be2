package llama

import (
	"fmt"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// WarmUp runs the worst shapes once: the largest piece of one prompt, then a full
// batch over all sequences with an output for each, and all stages of a sampler
// chain on it. Pages and temporary pools that only appear then are there when
// memory is measured. It leaves the pool empty.
func (c *Context) WarmUp() error {
	n := min(c.opts.Batch, c.opts.Cells)
	if _, err := c.warm(n, 1); err != nil {
		return err
	}
	at, err := c.warm(n, min(c.opts.Sequences, n))
	if err != nil {
		return err
	}
	s, err := c.NewSampler(SamplerOptions{
		Temperature: 1, TopK: 40, TopP: 0.9, MinP: 0.05, RepeatPenalty: 1.1, FrequencyPenalty: 0.1, PresencePenalty: 0.1,
	})
	if err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	defer s.Close()
	if _, err := s.Sample(at); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	return nil
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
