package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/infer"
	"tempo/internal/setup"
)

// findPieces finds libraries and model: as configured, else in the cache.
func findPieces(c *config.Config) (infer.Spec, string, error) {
	name, path := c.Engine.NamePath()
	spec := infer.Spec{
		Model: path, LibDir: c.Engine.LlamaLib, GPU: -1,
		Threads: c.Engine.Threads, Batch: c.Engine.BatchSize, Context: c.Engine.ContextSize,
		CacheTypeK: c.Memory.CacheTypeK, CacheTypeV: c.Memory.CacheTypeV,
	}
	if spec.Threads == 0 {
		spec.Threads = budget.UsableCores()
	}
	if spec.Model == "" || spec.LibDir == "" {
		found, err := setup.Locate("")
		if found == nil {
			found = &setup.Paths{}
		}
		if spec.LibDir == "" {
			spec.LibDir = found.LlamaLib
		}
		if spec.Model == "" {
			spec.Model = found.Model
			name, _ = config.Engine{Model: found.Model}.NamePath()
		}
		if spec.Model == "" || spec.LibDir == "" {
			return spec, "", fmt.Errorf("find libraries and model: %w", err)
		}
	}
	if info, err := os.Stat(spec.Model); err != nil || info.IsDir() {
		if err == nil {
			err = errors.New("it is a directory")
		}
		return spec, "", &ModelError{Path: spec.Model, Err: err}
	}
	return spec, name, nil
}

// ModelError says that there is no model file where it should be.
type ModelError struct {
	Path string
	Err  error
}

func (e *ModelError) Error() string {
	err := e.Err
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err // the path is said already
	}
	return fmt.Sprintf("open the model file %s: %v", e.Path, err)
}

func (e *ModelError) Unwrap() error { return e.Err }

// Hint says what to check.
func (e *ModelError) Hint() string {
	return "give the path of a GGUF file with --model; without it the model of `worker setup` is taken"
}

// hasCUDA reports whether the libraries at dir carry the CUDA backend.
func hasCUDA(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "libggml-cuda*.so"))
	return err == nil && len(found) > 0
}
