package schedule

import "slices"

// Layouts that can be asked for.
const (
	Auto    = "auto"    // by what the jobs need
	Streams = "streams" // a stream of cells for each sequence, whatever the jobs
	Unified = "unified" // one pool of cells for all, whatever the jobs
)

// streamUnit is what llama.cpp rounds the cells of a stream up to.
const streamUnit = 256

// layout is one context: how many cells it has, and how they are divided.
type layout struct {
	cells   int
	streams int  // 0 = one pool for all sequences
	exact   bool // for reproducible jobs
	single  bool // and these must run one at a time, in the same pieces always
	vectors bool // for embeddings, with the vectors of all tokens instead of an answer
	pooled  bool // for jobs with sets, which want one pool
	attends bool // what tokens attend to can be read
}

// longest is how many cells one job can have.
func (l layout) longest() int {
	if l.streams == 0 {
		return l.cells
	}
	return l.cells / l.streams
}

// streamed divides cells into streams for jobs of up to longest tokens, at most n of
// them; ok is false if there is not room for one.
func streamed(cells, n, longest int) (l layout, ok bool) {
	size := max(streamUnit, (longest+streamUnit-1)/streamUnit*streamUnit)
	n = min(n, cells/size)
	if n == 0 {
		return layout{}, false
	}
	size = cells / n / streamUnit * streamUnit // empty cells of a stream cost no time
	return layout{cells: n * size, streams: n}, true
}

// divider divides cells among contexts.
type divider struct {
	kind      string // Auto, Streams or Unified
	cells     int
	attended  int   // most of them where attention is read
	n         int   // most jobs at once
	singly    bool  // reproducible jobs must run one at a time
	undivided bool  // there cannot be two contexts
	costs     costs // of a decoding step; for Auto
}

// choose divides the cells. Every job with one of the needs fits into one of the contexts,
// if it fits into the cells at all.
//
// Streams are the faster, so all jobs get one if as many fit as can run. If long jobs
// stand in the way of that, what generates most is taken: fewer streams, a pool
// for the long ones beside the streams, or one pool for all, where the short ones leave
// room to the long ones.
// Reproducible jobs get streams, or, if they must run singly, the only one. Jobs with sets whose
// members are kept apart get one pool, whatever is asked for.
func (d divider) choose(needs []need) []layout {
	cells, n := d.cells, d.n
	needs, all := d.together(needs)
	wanted := n
	if len(needs) > 0 {
		wanted = min(n, len(needs))
	}
	if all.exact && d.singly {
		n = 1
	}
	unified := []layout{{cells: cells}}
	whole, ok := streamed(cells, n, max(1, all.tokens))
	switch {
	case all.vectors && ok:
		whole.vectors = true
		return []layout{whole}
	case all.exact && ok:
		whole.exact, whole.single = true, d.singly
		return []layout{whole}
	case all.attends:
		return []layout{{cells: d.attended, pooled: true, attends: true}}
	case all.pooled:
		return []layout{{cells: cells, pooled: true}}
	case d.kind == Unified:
		return unified
	case ok && (d.kind == Streams || whole.streams >= wanted):
		return []layout{whole}
	case d.kind == Streams:
		return unified
	}
	best := unified
	others := [][]layout{d.split(needs)}
	if mostToAStream*whole.streams >= wanted {
		others = append(others, []layout{whole})
	}
	for _, other := range others {
		if d.pace(other, needs) > d.pace(best, needs) {
			best = other
		}
	}
	return best
}

// together is those of the needs that contexts can serve together with the first; the others
// wait. all is what these need in all.
func (d divider) together(needs []need) (kept []need, all need) {
	for i, e := range needs {
		e.tokens = min(e.tokens, d.cells)
		if i > 0 && d.apart(all, e) {
			continue
		}
		kept = append(kept, e)
		all.tokens = max(all.tokens, e.tokens)
		all.exact, all.vectors = all.exact || e.exact, all.vectors || e.vectors
		all.sets, all.pooled, all.attends = all.sets || e.sets, all.pooled || e.pooled, all.attends || e.attends
	}
	return kept, all
}

// apart reports whether two needs are for other contexts: answers and embeddings, reproducible
// jobs and sets; and where attention is read the pool is smaller.
func (d divider) apart(a, b need) bool {
	return a.vectors != b.vectors || a.exact && b.sets || a.sets && b.exact ||
		(a.attends || b.attends) && max(a.tokens, b.tokens) > d.attended
}

// mostToAStream is how many of the jobs that could run at once may come to a stream. Where
// a long job leaves fewer streams, all others would wait for its answer.
const mostToAStream = 4

// split gives the longest jobs, of which there are at most a quarter, a pool of their
// own of at most half of the cells, and the others streams. It returns nil if that
// leaves not every one of the others a stream.
func (d divider) split(needs []need) []layout {
	if d.undivided {
		return nil
	}
	var sorted []int
	for _, e := range needs {
		sorted = append(sorted, e.tokens)
	}
	slices.Sort(sorted)
	for long := 1; long <= len(sorted)/4; long++ {
		short := len(sorted) - long
		pool := 0
		for _, l := range sorted[short:] {
			pool += l
		}
		pool = (pool + streamUnit - 1) / streamUnit * streamUnit
		if pool > d.cells/2 {
			return nil
		}
		streams, ok := streamed(d.cells-pool, d.n, sorted[short-1])
		if ok && streams.streams >= min(d.n, short) {
			return []layout{streams, {cells: d.cells - streams.cells}}
		}
	}
	return nil
}
