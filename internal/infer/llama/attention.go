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
	pairs  []Attended     // of the batch
	memory unsafe.Pointer // for the pairs and the rows of a batch
	size   uintptr

	pairRows, pairCells []C.int32_t
	sums                []C.double
	cells               []C.int64_t
}

// Attended is how much a row of a batch attends to a cell of the pool.
type Attended struct {
	Row, Cell int
	// Weight is the mean over all layers and heads, after Decode.
	Weight float64
}

func newAttention(f attentionFunctions) (*attention, error) {
	reader := C.attention_new(pointer(f.opDesc), pointer(f.isHost), pointer(f.get))
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
func (a *attention) want(pairs []Attended, rows int) {
	n := len(pairs)
	const each = unsafe.Sizeof(C.double(0)) + 2*unsafe.Sizeof(C.int32_t(0))
	if need := uintptr(n)*each + uintptr(rows)*unsafe.Sizeof(C.int64_t(0)); need > a.size {
		C.free(a.memory)
		a.size = 2 * need
		a.memory = C.malloc(C.size_t(a.size))
	}
	a.pairs = pairs
	a.sums = unsafe.Slice((*C.double)(a.memory), n)
	at := unsafe.Add(a.memory, n*int(unsafe.Sizeof(C.double(0))))
	a.cells = unsafe.Slice((*C.int64_t)(at), rows)
	at = unsafe.Add(at, rows*int(unsafe.Sizeof(C.int64_t(0))))
	a.pairRows = unsafe.Slice((*C.int32_t)(at), n)
	a.pairCells = unsafe.Slice((*C.int32_t)(unsafe.Add(at, n*int(unsafe.Sizeof(C.int32_t(0))))), n)
	for i, p := range pairs {
		a.sums[i], a.pairRows[i], a.pairCells[i] = 0, C.int32_t(p.Row), C.int32_t(p.Cell)
	}
	C.attention_want(a.reader, C.int32_t(n), unsafe.SliceData(a.pairRows), unsafe.SliceData(a.pairCells),
		unsafe.SliceData(a.sums), C.int32_t(rows), unsafe.SliceData(a.cells))
}

// take makes weights of the sums.
func (a *attention) take() error {
	if !bool(C.attention_placed(a.reader)) {
		return errors.New("read attention: where llama.cpp puts a token's keys is not as expected")
	}
	layers := int(C.attention_layers(a.reader))
	if len(a.pairs) > 0 && layers <= 0 {
		return errors.New("read attention: llama.cpp's weights are not where they are expected")
	}
	for i := range a.pairs {
		a.pairs[i].Weight = float64(a.sums[i]) / float64(layers)
	}
	return nil
}

func (a *attention) close() {
	C.attention_free(a.reader)
	C.free(a.memory)
}

// forget has nothing read of the batches to come.
func (a *attention) forget() {
	C.attention_want(a.reader, 0, nil, nil, nil, 0, nil)
}

// Attend has the next Decode find out how much rows of the batch attend to cells, and which
// cell each row goes to; see Cell. The batch must be complete, and go through the model at
// once. The pairs stand in the order of rows, and Decode fills them in; a cell that is not in
// use has no weight. It needs ContextOptions.Attention.
func (c *Context) Attend(pairs []Attended) {
	c.attention.want(pairs, int(c.batch.NTokens))
	c.attending = true
}

// attended takes what Decode has read.
func (c *Context) attended() error {
	c.attending = false
	defer c.attention.forget()
	return c.attention.take()
}

// Cell is the cell of the pool that a row of the last batch for which Attend was called went
// to.
func (c *Context) Cell(row int) int { return int(c.attention.cells[row]) }

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
	pairs := make([]Attended, min(256, c.opts.Cells))
	for cell := range pairs {
		pairs[cell] = Attended{Row: row, Cell: cell}
	}
	c.Attend(pairs)
	if err := c.Decode(); err != nil {
		return err
	}
	sum, seen := 0.0, 0
	for _, p := range pairs {
		sum += p.Weight
		if p.Weight > 0 {
			seen++
		}
	}
	if math.Abs(sum-1) > 0.01 || seen != row+1 || pairs[c.Cell(0)].Weight == 0 || pairs[c.Cell(row)].Weight == 0 {
		return fmt.Errorf("read attention: a token that sees %d has weights for %d, %.3f in all", row+1, seen, sum)
	}
	return nil
}
