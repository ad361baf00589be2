package infer

import (
	"errors"
	"fmt"
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

// DiedError says that the engine's process ended while it had the job. Nothing
// is known of the job's part in that.
type DiedError struct {
	Reason string // "signal: killed", with the last lines that it wrote
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
