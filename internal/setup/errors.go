package setup

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotSetUp is what [Locate]'s error is when a piece is not in the cache; the
// cache is left as it was.
var ErrNotSetUp = errors.New("not set up")

// NotSetUpError names the parts that are not in the cache. It is ErrNotSetUp.
type NotSetUpError struct{ Parts []Part }

func (e *NotSetUpError) Error() string {
	names := make([]string, len(e.Parts))
	for i, p := range e.Parts {
		names[i] = map[Part]string{Lib: "the llama.cpp libraries", Model: "the model"}[p]
	}
	return "look in the cache: " + strings.Join(names, " and ") + " not found"
}

// Is makes errors.Is(err, ErrNotSetUp) true.
func (e *NotSetUpError) Is(target error) bool { return target == ErrNotSetUp }

// Hint says what to do.
func (e *NotSetUpError) Hint() string {
	flags := make([]string, len(e.Parts))
	for i, p := range e.Parts {
		flags[i] = without(p)
	}
	return "run make setup, or give " + strings.Join(flags, " and ")
}

// without is the flag that does without a part of the cache.
func without(p Part) string {
	if p == Model {
		return "--model PATH"
	}
	return "--llama-lib DIR"
}

// MissingError says that a package client is not installed.
type MissingError struct {
	Tool string // what is missing
	For  string // what it is to fetch
	Get  string // how to install it
	Part Part
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("fetch %s: %s is missing: %s", e.For, e.Tool, e.Get)
}

// Hint says how to do without.
func (e *MissingError) Hint() string {
	return "or do without: " + without(e.Part)
}

// ClientError says that a package client failed, with the last lines it wrote.
type ClientError struct {
	Command string
	Tail    []string
	Err     error
	Part    Part
}

func (e *ClientError) Error() string {
	s := fmt.Sprintf("run %s: %v", e.Command, e.Err)
	if len(e.Tail) > 0 {
		s += "; its last lines:\n  " + strings.Join(e.Tail, "\n  ")
	}
	return s
}

func (e *ClientError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *ClientError) Hint() string {
	return "check the network, the free disk space and the client's proxy and registry settings; or do without: " + without(e.Part)
}

// DigestError says that a package is not the one that is pinned. Nothing of it
// was kept.
type DigestError struct {
	Package   string
	Got, Want string // SHA-256, in hexadecimal
	Part      Part
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("verify %s: its SHA-256 is %s, pinned is %s", e.Package, e.Got, e.Want)
}

// Hint says what to do.
func (e *DigestError) Hint() string {
	return "the download was changed or cut off on its way: try again, or ask whoever runs the registry mirror; or do without: " + without(e.Part)
}

// SystemError says that there are no pinned libraries for this system.
type SystemError struct {
	System string // as Go names it, "darwin/arm64"
	CUDA   bool   // there are none with CUDA
}

func (e *SystemError) Error() string {
	kind := "llama.cpp libraries"
	if e.CUDA {
		kind += " with CUDA"
	}
	return fmt.Sprintf("fetch %s: none are pinned for %s", kind, e.System)
}

// Hint says what to do.
func (e *SystemError) Hint() string {
	if e.CUDA {
		return "do without CUDA, or build llama.cpp v0.5.0 as shared libraries and give --llama-lib DIR"
	}
	return "build llama.cpp v0.5.0 as shared libraries and give --llama-lib DIR"
}
