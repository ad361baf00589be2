package schedule

import (
	"sync/atomic"
	"time"
)

// steps adds up how long steps took.
type steps struct {
	count           atomic.Int64
	decode, outside atomic.Int64 // nanoseconds
}

func (s *steps) add(decode, outside time.Duration) {
	s.count.Add(1)
	s.decode.Add(int64(decode))
	s.outside.Add(int64(outside))
}

// StepTimes is how many steps there were, how long llama.cpp's decoding took in all of
// them, and how long all else between the beginning and the end of a step: admission,
// batches, the choice of tokens.
func (s *Scheduler) StepTimes() (steps int64, decode, outside time.Duration) {
	return s.steps.count.Load(), time.Duration(s.steps.decode.Load()), time.Duration(s.steps.outside.Load())
}
