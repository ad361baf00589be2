package infer

import (
	"errors"
	"fmt"
	"time"
)

// ErrStopped says that the engine ended under a job: it was closed, or it broke.
// A Host returns it for jobs that come after Close; for jobs in a process that
// ended it returns a *DiedError.
var ErrStopped = errors.New("the engine has stopped")

// ErrNotOpen is what calls get that come before Open or before Load.
var ErrNotOpen = errors.New("the engine has no model open")

// RequestError says that a job can never be run as it is.
type RequestError struct {
	Param   string `json:"param"` // the field at fault, "" if none
	Message string `json:"message"`
	Advice  string `json:"hint"`
}

func (e *RequestError) Error() string { return e.Message }

// Hint says what to change.
func (e *RequestError) Hint() string { return e.Advice }

// PoolError says that a job's prompt does not fit into the KV pool as it is now,
// though the model itself could take it: memory is at fault, not the job.
type PoolError struct {
	Need int `json:"need"` // tokens: the prompt and one of output
	Have int `json:"have"` // tokens that it could have if it were alone
}

func (e *PoolError) Error() string {
	return fmt.Sprintf("the job needs %d tokens of the KV cache, which has %d in all", e.Need, e.Have)
}

// Hint says what to change.
func (e *PoolError) Hint() string {
	return "give the worker more memory with --max-memory-gb, raise --max-cache-tokens, or shorten the prompt"
}

// BusyError says that a Reshape was refused, and nothing changed, because the
// running jobs need more than the new shape has. Some must leave first.
type BusyError struct {
	Jobs  int   `json:"jobs"`  // that have a sequence; to unload: all
	Cells int   `json:"cells"` // of all leases together
	Shape Shape `json:"shape"` // refused
}

func (e *BusyError) Error() string {
	if e.Shape.Empty() {
		return fmt.Sprintf("the model cannot be unloaded while %d jobs run", e.Jobs)
	}
	return fmt.Sprintf("%d running jobs with leases of %d tokens do not fit into %d sequences and %d tokens",
		e.Jobs, e.Cells, e.Shape.Sequences, e.Shape.Cells)
}

// DiedError says that the engine's process ended while it had the job. Nothing
// is known of the job's part in that.
type DiedError struct {
	Reason string // "signal: killed", with the last lines that it wrote
	// Reshaping says that its shape was being changed: no job can be at fault.
	Reshaping bool
}

func (e *DiedError) Error() string { return "the engine process died: " + e.Reason }

// NoGPUError says that llama.cpp sees no GPU, where one was asked for.
type NoGPUError struct{ LibDir string }

func (e *NoGPUError) Error() string {
	return "llama.cpp finds no GPU with the libraries in " + e.LibDir
}

// Hint says what is missing most often.
func (e *NoGPUError) Hint() string {
	return "its CUDA backend needs libcudart.so.13 and libcublas.so.13 where the loader finds them (LD_LIBRARY_PATH); --device cpu does without"
}

// StartError says that the engine could not be started or could not load.
type StartError struct {
	What   string // "" = Err says it all
	Advice string
	Err    error
}

func (e *StartError) Error() string {
	if e.What == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.What, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *StartError) Hint() string { return e.Advice }

// TimeoutError says that a job's own time limit passed before its last token.
type TimeoutError struct {
	Limit time.Duration `json:"limit"`
	Made  int           `json:"made"` // tokens until then
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the job's timeout of %v passed after %d tokens", e.Limit, e.Made)
}

// Hint says what to change.
func (e *TimeoutError) Hint() string {
	if e.Made == 0 {
		return "raise timeout, shorten the prompt, or run fewer jobs at once with --max-parallel-tokens"
	}
	return "raise timeout, or lower max_tokens"
}
