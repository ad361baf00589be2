package llama

/*
#cgo CFLAGS: -O2 -std=gnu11
#cgo LDFLAGS: -lpthread
#include "decoder.h"

#cgo noescape decoder_run
#cgo nocallback decoder_run
#cgo noescape decoder_code
#cgo nocallback decoder_code
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/ebitengine/purego"
	"github.com/hybridgroup/yzma/pkg/llama"
	"golang.org/x/sys/unix"
)

// decoder decodes on a thread of its own, that is not Go's. While a goroutine is in a
// long call of C, Go's monitor wakes up to 50,000 times a second to see whether its
// processor is wanted elsewhere; on two cores that costs llama.cpp's threads, of which
// each waits for all others many times in a step, 5 to 10 %. A goroutine that waits for a
// file has no processor.
type decoder struct {
	thread *C.struct_decoder
	done   *os.File // an eventfd
}

// decodeFunctions are what a decoder calls of llama.cpp.
type decodeFunctions struct{ decode, synchronize uintptr }

// findDecodeFunctions finds them in the library that yzma has loaded.
func findDecodeFunctions(file string) (f decodeFunctions, err error) {
	handle, err := purego.Dlopen(file, purego.RTLD_NOW|purego.RTLD_LOCAL) // it is loaded already: the same
	if err != nil {
		return f, fmt.Errorf("open %s: %w", file, err)
	}
	if f.decode, err = purego.Dlsym(handle, "llama_decode"); err != nil {
		return f, fmt.Errorf("find llama_decode: %w", err)
	}
	if f.synchronize, err = purego.Dlsym(handle, "llama_synchronize"); err != nil {
		return f, fmt.Errorf("find llama_synchronize: %w", err)
	}
	return f, nil
}

func newDecoder(f decodeFunctions) (*decoder, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	d := &decoder{done: os.NewFile(uintptr(fd), "decoded")}
	if d.thread = C.decoder_start(pointer(f.decode), pointer(f.synchronize), C.int(fd)); d.thread == nil {
		return nil, errors.Join(errors.New("start a thread for decoding: the system has none left"), d.done.Close())
	}
	return d, nil
}

// pointer is an address of C's as C's pointer.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// decode runs a batch through a context, and returns llama_decode's code.
func (d *decoder) decode(ctx llama.Context, b llama.Batch) (int, error) {
	C.decoder_run(d.thread, pointer(uintptr(ctx)), *(*C.struct_batch)(unsafe.Pointer(&b.BatchData)))
	var count [8]byte
	if _, err := d.done.Read(count[:]); err != nil {
		return 0, fmt.Errorf("wait for the decoding thread: %w", err)
	}
	return int(C.decoder_code(d.thread)), nil
}

func (d *decoder) close() error {
	C.decoder_stop(d.thread)
	if err := d.done.Close(); err != nil {
		return fmt.Errorf("close an eventfd: %w", err)
	}
	return nil
}
