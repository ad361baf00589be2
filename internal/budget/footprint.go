package budget

import "fmt"

// Line is a line of a ledger: what a part of a device's memory is used for.
type Line int

// Lines of a ledger.
const (
	Weights       Line = iota // model tensors
	KVCache                   // the pool in which the leases of jobs lie: KV; on the host what jobs hold there
	ParallelBatch             // compute and logits buffers of a full batch
	Overhead                  // runtime and everything else that the processes hold
	lineCount
)

// String returns the line's name in statistics, like "kv_cache".
func (l Line) String() string {
	names := [lineCount]string{"weights", "kv_cache", "parallel_batch", "overhead"}
	if l < 0 || l >= lineCount {
		return fmt.Sprintf("line %d", int(l))
	}
	return names[l]
}

// Footprint is memory by line: an estimate, a booking or a measurement.
type Footprint struct {
	Weights       Bytes
	KVCache       Bytes
	ParallelBatch Bytes
	Overhead      Bytes
}

// Total is the sum of all lines.
func (f Footprint) Total() Bytes {
	return f.Weights.Add(f.KVCache).Add(f.ParallelBatch).Add(f.Overhead)
}

// Plus adds line by line.
func (f Footprint) Plus(g Footprint) Footprint {
	return combine(f, g, Bytes.Add)
}

// String lists the lines for messages.
func (f Footprint) String() string {
	return fmt.Sprintf("weights %v, KV cache %v, parallel batch %v, overhead %v", f.Weights, f.KVCache, f.ParallelBatch, f.Overhead)
}

// charge is what each line counts for in a ledger: the larger of booking and
// measurement.
func charge(booked, measured Footprint) Footprint {
	return combine(booked, measured, func(a, b Bytes) Bytes { return max(a, b) })
}

// held is what each line really holds as far as it is known: as measured; a line
// that was not, as booked.
func held(booked, measured Footprint) Footprint {
	return combine(booked, measured, func(booked, measured Bytes) Bytes {
		if measured > 0 {
			return measured
		}
		return booked
	})
}

// at returns the field of a line, nil if there is no such line.
func (f *Footprint) at(line Line) *Bytes {
	switch line {
	case Weights:
		return &f.Weights
	case KVCache:
		return &f.KVCache
	case ParallelBatch:
		return &f.ParallelBatch
	case Overhead:
		return &f.Overhead
	}
	return nil
}

// combine applies pick line by line.
func combine(f, g Footprint, pick func(a, b Bytes) Bytes) Footprint {
	return Footprint{
		Weights:       pick(f.Weights, g.Weights),
		KVCache:       pick(f.KVCache, g.KVCache),
		ParallelBatch: pick(f.ParallelBatch, g.ParallelBatch),
		Overhead:      pick(f.Overhead, g.Overhead),
	}
}
