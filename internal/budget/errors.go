package budget

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// States that a caller can meet.
var (
	// ErrNoRoom: the lease cannot grow now. It keeps its size; ask again after
	// others have released, or shrink something.
	ErrNoRoom = errors.New("no room in the KV pool now")
	// ErrReleased: the lease has been released and cannot be used any more.
	ErrReleased = errors.New("lease is released")
	// ErrNegative: an amount below zero was asked for. Nothing has changed.
	ErrNegative = errors.New("amount of memory is negative")
	// ErrBadRequest: a lease was asked for from no ledger, from one of another
	// group or twice from the same one. Nothing has changed.
	ErrBadRequest = errors.New("must ask each ledger of one group at most once, and at least one")
	// ErrNoDriver: NVML, the NVIDIA driver's library, is missing or finds no driver.
	ErrNoDriver = errors.New("no NVIDIA driver")
	// ErrGPULost: the GPU has fallen off the bus or must be reset. It does not
	// come back by itself; every process that used it is lost.
	ErrGPULost = errors.New("GPU is lost")
	// ErrProcessNotFound: the process has ended, or it holds no memory on the
	// device (yet). In a container whose process ids differ from the host's, an
	// old driver also answers so.
	ErrProcessNotFound = errors.New("process not found")
	// ErrNotMeasured: the driver does not tell this process's use.
	ErrNotMeasured = errors.New("process memory is not reported by the driver")
)

// TooLargeError says that something can never fit into what there is, however
// long one waits.
type TooLargeError struct {
	What     string // what does not fit, and where
	Need     Bytes
	Capacity Bytes    // the most that it could have
	Hints    []string // remedies that would help here, with numbers; the best first
}

// Error names the need and the capacity.
func (e *TooLargeError) Error() string {
	need, capacity := e.Need.String(), e.Capacity.String()
	if need == capacity { // the difference is lost in rounding
		need, capacity = fmt.Sprintf("%d bytes", e.Need), fmt.Sprintf("%d bytes", e.Capacity)
	}
	return fmt.Sprintf("no room for %s: %s needed, at most %s can be had", e.What, need, capacity)
}

// Hint says what to change.
func (e *TooLargeError) Hint() string {
	return strings.Join(e.Hints, "; or ")
}

// hintedError is any other failure that the user can do something about.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }
func (e *hintedError) Hint() string  { return e.hint }

// raiseLimit is the hint to allow at least n bytes, rounded up to what the flag
// can be given as.
func raiseLimit(n Bytes) string {
	return fmt.Sprintf("raise --max-memory-gb to at least %.2f, if the device has it", math.Ceil(n.GiB()*100)/100)
}
