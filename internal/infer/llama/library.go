package llama

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/hybridgroup/yzma/pkg/llama"
	"go.uber.org/zap"
)

// LibraryError says that llama.cpp's shared libraries cannot be used.
type LibraryError struct {
	Dir string
	Err error
}

func (e *LibraryError) Error() string {
	return fmt.Sprintf("load llama.cpp libraries from %s: %v", e.Dir, e.Err)
}

func (e *LibraryError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *LibraryError) Hint() string {
	return "run `make setup` to install the pinned libraries, or name a directory that holds libllama.so and libggml.so with --llama-lib DIR"
}

// Library is llama.cpp, loaded into this process.
type Library struct {
	log     *logSink
	malloc  malloc
	decodes decodeFunctions
	attends attentionFunctions
	// allocating is held while a model or a context is made, so that the sizes
	// that the log tells meanwhile are its own.
	allocating sync.Mutex
}

// loaded keeps yzma's state, which is one for a process, behind one Library.
var loaded struct { //nolint:gochecknoglobals // it mirrors what is one for a process
	sync.Mutex
	dir string
	lib *Library
}

// Load loads llama.cpp and its backends from dir. llama.cpp's state is one for a
// process: a second call with the same directory returns the same Library, with
// another directory it is an error. Warnings and errors of llama.cpp go to log; nil = nowhere.
func Load(dir string, log *zap.Logger) (*Library, error) {
	loaded.Lock()
	defer loaded.Unlock()
	if loaded.lib != nil {
		if loaded.dir != dir {
			return nil, &LibraryError{dir, fmt.Errorf("this process already has those of %s", loaded.dir)}
		}
		return loaded.lib, nil
	}
	for _, name := range []string{"libllama.so", "libggml.so", "libggml-base.so"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return nil, &LibraryError{dir, fmt.Errorf("find %s: %w", name, errors.Unwrap(err))}
		}
	}
	if err := llama.Load(dir); err != nil {
		return nil, &LibraryError{dir, err}
	}
	malloc := tuneMalloc()
	decodes, err := findDecodeFunctions(filepath.Join(dir, "libllama.so"))
	if err != nil {
		return nil, &LibraryError{dir, err}
	}
	attends, err := findAttentionFunctions(filepath.Join(dir, "libggml-base.so"))
	if err != nil {
		return nil, &LibraryError{dir, err}
	}
	if log == nil {
		log = zap.NewNop()
	}
	sink := newLogSink(log)
	llama.LogSet(sink.callback())
	if err := llama.GGMLBackendLoadAllFromPath(dir); err != nil {
		return nil, &LibraryError{dir, err}
	}
	llama.Init()
	loaded.dir, loaded.lib = dir, &Library{log: sink, malloc: malloc, decodes: decodes, attends: attends}
	return loaded.lib, nil
}

// HasGPU reports whether the libraries carry a GPU backend that found a device.
func (l *Library) HasGPU() bool { return llama.SupportsGpuOffload() }
