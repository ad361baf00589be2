package llama

/*
#include <stdlib.h>
#include "attention.h"

#cgo noescape attention_layers
#cgo nocallback attention_layers
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/ebitengine/purego"
)

// attentionFunctions are what reading attention takes of ggml.
type attentionFunctions struct{ opDesc, isHost, get uintptr }

func findAttentionFunctions(file string) (f attentionFunctions, err error) {
	handle, err := purego.Dlopen(file, purego.RTLD_NOW|purego.RTLD_LOCAL) // it is loaded already: the same
	if err != nil {
		return f, fmt.Errorf("open %s: %w", file, err)
	}
	for name, at := range map[string]*uintptr{
		"ggml_op_desc": &f.opDesc, "ggml_backend_buffer_is_host": &f.isHost, "ggml_backend_tensor_get": &f.get,
	} {
		if *at, err = purego.Dlsym(handle, name); err != nil {
			return f, fmt.Errorf("find %s: %w", name, err)
		}
	}
	return f, nil
}

// attention reads weights while batches are decoded. What C writes to is C's memory: the
// decoding is not done on Go's threads.
type attention struct {
	reader *C.struct_attention
	asked  []*Attended    // of the batch
	memory unsafe.Pointer // for what follows
	size   uintptr

	sums     []C.double  // of all cells that are asked for
	placed   []C.int64_t // for each row of the batch
	attended []C.struct_attended
	cells    []C.int32_t
}

// Attended is how much some rows of a batch attend to some cells of the pool.
type Attended struct {
	Row, Rows int // the first of the rows, and how many follow each other
	Cells     []int
	// Weights are those of the cells after Decode, the mean over the rows, all layers and heads; a
	// cell that is not in use has none.
	Weights []float64
}

// mostCopied is how many bytes of weights are copied from a device at once. So much host memory a
// reader has at most for them.
const mostCopied = 256 << 20

func newAttention(f attentionFunctions, mostCopied int) (*attention, error) {
	reader := C.attention_new(pointer(f.opDesc), pointer(f.isHost), pointer(f.get), C.size_t(mostCopied))
	if reader == nil {
		return nil, errors.New("make a reader of attention: there is no memory")
	}
	return &attention{reader: reader}, nil
}

// callback is what llama.cpp is to call, and with what.
func (a *attention) callback() (function, data uintptr) {
	return uintptr(C.attention_callback()), uintptr(unsafe.Pointer(a.reader))
}

// want prepares for a batch of so many rows.
func (a *attention) want(asked []*Attended, rows int) {
	cells := 0
	for _, one := range asked {
		cells += len(one.Cells)
	}
	a.reserve(rows, len(asked), cells)
	a.asked = asked
	at := 0
	for i, one := range asked {
		a.attended[i] = C.struct_attended{
			first_row: C.int32_t(one.Row), rows: C.int32_t(one.Rows), at: C.int32_t(at), n: C.int32_t(len(one.Cells)),
		}
		for _, cell := range one.Cells {
			a.sums[at], a.cells[at] = 0, C.int32_t(cell)
			at++
		}
	}
	C.attention_want(a.reader, C.int32_t(len(asked)), unsafe.SliceData(a.attended), unsafe.SliceData(a.cells),
		unsafe.SliceData(a.sums), C.int32_t(rows), unsafe.SliceData(a.placed))
}

// reserve makes room for a batch, those with the largest elements first, so that all are aligned.
func (a *attention) reserve(rows, asked, cells int) {
	need := uintptr(cells)*(unsafe.Sizeof(C.double(0))+unsafe.Sizeof(C.int32_t(0))) +
		uintptr(rows)*unsafe.Sizeof(C.int64_t(0)) + uintptr(asked)*unsafe.Sizeof(C.struct_attended{})
	if need > a.size {
		C.free(a.memory)
		a.size = 2 * need
		a.memory = C.malloc(C.size_t(a.size))
	}
	at := a.memory
	a.sums, at = carve[C.double](at, cells)
	a.placed, at = carve[C.int64_t](at, rows)
	a.attended, at = carve[C.struct_attended](at, asked)
	a.cells, _ = carve[C.int32_t](at, cells)
}

// carve makes a slice of n of the memory at a place, and returns what is behind it.
func carve[T any](at unsafe.Pointer, n int) (slice []T, behind unsafe.Pointer) {
	var one T
	return unsafe.Slice((*T)(at), n), unsafe.Add(at, n*int(unsafe.Sizeof(one)))
}

// take makes weights of the sums.
func (a *attention) take() error {
	if !bool(C.attention_placed(a.reader)) {
		return errors.New("read attention: where llama.cpp puts a token's keys is not as expected")
	}
	layers := int(C.attention_layers(a.reader))
	if len(a.asked) > 0 && layers <= 0 {
		return errors.New("read attention: llama.cpp's weights are not where they are expected")
	}
	at := 0
	for _, one := range a.asked {
		one.Weights = one.Weights[:0]
		for range one.Cells {
			one.Weights = append(one.Weights, float64(a.sums[at])/float64(layers*one.Rows))
			at++
		}
	}
	return nil
}

func (a *attention) close() {
	C.attention_free(a.reader)
	C.free(a.memory)
	a.reader, a.memory = nil, nil
}

// forget has nothing read of the batches to come.
func (a *attention) forget() {
	C.attention_want(a.reader, 0, nil, nil, nil, 0, nil)
}

// Attend has the next Decode find out how much rows of the batch attend to cells, and which
// cell each row goes to; see Attention. The batch must be complete, and go through the model at
// once. It needs ContextOptions.Attention.
func (c *Context) Attend(asked []*Attended) {
	c.attention.want(asked, int(c.batch.NTokens))
	c.attending = true
}

// Attention takes what the last Decode has read, if Attend was called before it: the weights,
// and what Cell tells. After an error the context is as good as before, and nothing is known
// of the batch.
func (c *Context) Attention() error {
	if !c.attending {
		return nil
	}
	c.attending = false
	defer c.attention.forget()
	return c.attention.take()
}

// Cell is the cell of the pool that a row of the last batch for which Attend was called went
// to.
func (c *Context) Cell(row int) int { return int(c.attention.placed[row]) }

// CheckAttention decodes a few tokens in an empty pool to see that attention can be read: what a
// row attends to adds up to 1. The pool is empty again then.
func (c *Context) CheckAttention() error { return errors.Join(c.checkAttention(), c.Forget(0)) }

func (c *Context) checkAttention() error {
	const n = 4
	c.Clear()
	for pos := range n {
		if _, err := c.Add(0, pos, 0, pos == n-1); err != nil {
			return err
		}
	}
	const row = 1 // attends to two
	read := Attended{Row: row, Rows: 1}
	for cell := range min(256, c.opts.Cells) {
		read.Cells = append(read.Cells, cell)
	}
	c.Attend([]*Attended{&read})
	if err := errors.Join(c.Decode(), c.Attention()); err != nil {
		return err
	}
	sum, seen := 0.0, 0
	for _, weight := range read.Weights {
		sum += weight
		if weight > 0 {
			seen++
		}
	}
	if math.Abs(sum-1) > 0.01 || seen != row+1 || read.Weights[c.Cell(0)] == 0 || read.Weights[c.Cell(row)] == 0 {
		return fmt.Errorf("read attention: a token that sees %d has weights for %d, %.3f in all", row+1, seen, sum)
	}
	return nil
}
