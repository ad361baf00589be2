package sample

/*
#cgo CFLAGS: -O3 -std=c11
#cgo LDFLAGS: -lm
#include "kernel.h"

#cgo noescape sample_scan
#cgo nocallback sample_scan
#cgo noescape sample_scan_sums
#cgo nocallback sample_scan_sums
#cgo noescape sample_scan_mass
#cgo nocallback sample_scan_mass
#cgo noescape sample_mark
#cgo nocallback sample_mark
#cgo noescape sample_mix
#cgo nocallback sample_mix
#cgo noescape sample_sums
#cgo nocallback sample_sums
#cgo noescape sample_list_sums
#cgo nocallback sample_list_sums
#cgo noescape sample_weigh
#cgo nocallback sample_weigh
#cgo noescape sample_find
#cgo nocallback sample_find
#cgo noescape sample_collect
#cgo nocallback sample_collect
#cgo noescape sample_zoom
#cgo nocallback sample_zoom
*/
import "C"

import (
	"math"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// blockSize is how many logits share a top and a sum.
const blockSize = C.SAMPLE_BLOCK

// level is with what instructions the kernels compute: 1 is AVX2 and FMA, 0 what every CPU
// of the architecture has. The results are the same.
type level C.int

// bestLevel is the fastest that this CPU has.
func bestLevel() level {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		return 1
	}
	return 0
}

// prefix is the beginning of a row's tokens in order of likelihood: those whose logit is
// over least, and those that have least up to the token last.
type prefix struct {
	least float32
	last  int32
}

// everything is the prefix of all tokens that are not banned.
func everything() prefix { return prefix{float32(math.Inf(-1)), math.MaxInt32} }

// within is the shorter of two prefixes.
func (p prefix) within(o prefix) prefix {
	if p.least > o.least || p.least == o.least && p.last < o.last {
		return p
	}
	return o
}

// scan notes the tops of a row. It returns false if a logit is not a number.
func (l level) scan(logits, tops []float32) bool {
	return C.sample_scan(C.int(l), floats(logits), length(logits), floats(tops)) == 0
}

// scanSums is scan and sums of everything in one pass.
func (l level) scanSums(logits []float32, scale float32, tops []float32, sums []uint64) bool {
	return C.sample_scan_sums(C.int(l), floats(logits), length(logits), C.float(scale), floats(tops), longs(sums)) == 0
}

// scanMass is scan, and in the same pass the sum over the row of two to the power of (logit -
// largest) · scale, right within a millionth.
func (l level) scanMass(logits []float32, scale float64, tops []float32) (mass float64, numbers bool) {
	var sum C.double
	odd := C.sample_scan_mass(C.int(l), floats(logits), length(logits), C.double(scale), floats(tops), &sum)
	return float64(sum), odd == 0
}

// mark sets the bits of the tokens whose logit is least or more: that of token t is the bit t%64
// of the word t/64. The words are those of whole blocks.
func (l level) mark(logits, tops []float32, least float32, words []uint64) {
	C.sample_mark(C.int(l), floats(logits), length(logits), floats(tops), C.float(least), longs(words))
}

// mix adds to the sums of the tokens share times two to the power of (logit - top) · scale, right
// within a third of a millionth; but nothing of what is 2^-100 or less.
func (l level) mix(logits []float32, tokens []int32, top float32, scale, share float64, sums []float64) {
	C.sample_mix(C.int(l), floats(logits), ints(tokens), length(tokens), C.float(top), C.double(scale), C.double(share),
		doubles(sums))
}

// sums adds up the values of what is kept of each block.
func (l level) sums(logits, tops []float32, top, scale float32, kept prefix, sums []uint64) {
	C.sample_sums(C.int(l), floats(logits), length(logits), floats(tops), C.float(top), C.float(scale),
		C.float(kept.least), C.int64_t(kept.last), longs(sums))
}

// listSums is sums for a row of which all that is kept is listed.
func (l level) listSums(tokens []int32, logits []float32, vocab int, tops []float32, scale float32, kept prefix, sums []uint64) {
	C.sample_list_sums(C.int(l), ints(tokens), floats(logits), length(tokens), C.int64_t(vocab), floats(tops),
		C.float(scale), C.float(kept.least), C.int64_t(kept.last), longs(sums))
}

// weigh makes weights of sums relative to the logit top, and returns their total. Without
// sums (nil) it makes those of single tokens.
func (l level) weigh(logits []float32, sums []uint64, top, scale float32, weights []uint64) uint64 {
	return uint64(C.sample_weigh(C.int(l), floats(logits), longs(sums), length(logits), C.float(top), C.float(scale),
		longs(weights)))
}

// find returns the token of a block at which the values of what is kept, added up, pass
// at.
func (l level) find(logits []float32, block int, top, scale float32, kept prefix, at uint64) int32 {
	return int32(C.sample_find(C.int(l), floats(logits), length(logits), C.int64_t(block), C.float(top), C.float(scale),
		C.float(kept.least), C.int64_t(kept.last), C.uint64_t(at)))
}

// collect lists the tokens whose logit is least or more, as far as there is room, and
// returns how many there are.
func (l level) collect(logits, tops []float32, least float32, tokens []int32, values []float32) int {
	return int(C.sample_collect(C.int(l), floats(logits), length(logits), floats(tops), C.float(least),
		length(tokens), ints(tokens), floats(values)))
}

// zoom lists, as collect does, the bucket of like tokens in which the largest logits,
// counted or weighed, first reach the target, and returns the sum before it too.
func (l level) zoom(logits []float32, top, scale float32, counting bool, target uint64, tokens []int32, values []float32) (above uint64, n int) {
	var count C.int
	if counting {
		count = 1
	}
	var before C.uint64_t
	n = int(C.sample_zoom(C.int(l), floats(logits), length(logits), C.float(top), C.float(scale), count,
		C.uint64_t(target), &before, length(tokens), ints(tokens), floats(values)))
	return uint64(before), n
}

func length[T any](s []T) C.int64_t { return C.int64_t(len(s)) }

func floats(s []float32) *C.float { return (*C.float)(unsafe.SliceData(s)) }

func ints(s []int32) *C.int32_t { return (*C.int32_t)(unsafe.SliceData(s)) }

func doubles(s []float64) *C.double { return (*C.double)(unsafe.SliceData(s)) }

func longs(s []uint64) *C.uint64_t { return (*C.uint64_t)(unsafe.Pointer(unsafe.SliceData(s))) }
