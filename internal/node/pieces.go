package node

import (
	"errors"
	"fmt"
	"path/filepath"

	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/infer"
	"tempo/internal/setup"
)

// findPieces finds libraries and models: as configured, else in the cache. The spec
// is that of the first model.
func findPieces(c *config.Config) (infer.Spec, []ModelFile, error) {
	spec := infer.Spec{
		LibDir: c.Engine.LlamaLib, GPU: -1,
		Threads: c.Engine.Threads, Batch: c.Engine.BatchSize, Context: c.Engine.ContextSize,
		CacheTypeK: c.Memory.CacheTypeK, CacheTypeV: c.Memory.CacheTypeV, Layout: c.Memory.KVLayout,
	}
	if spec.Threads == 0 {
		spec.Threads = budget.UsableCores()
	}
	var missing []setup.Part
	if spec.LibDir == "" {
		if found, _ := setup.Locate(""); found != nil {
			spec.LibDir = found.LlamaLib
		}
		if spec.LibDir == "" {
			missing = append(missing, setup.Lib)
		}
	}
	models, err := Models(c)
	if errors.Is(err, setup.ErrNotSetUp) {
		missing = append(missing, setup.Model)
	} else if err != nil {
		return spec, nil, err
	}
	if missing != nil {
		return spec, nil, fmt.Errorf("find libraries and model: %w", &setup.NotSetUpError{Parts: missing})
	}
	spec.Model = models[0].Path
	return spec, models, nil
}

// hasCUDA reports whether the libraries at dir carry the CUDA backend.
func hasCUDA(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "libggml-cuda*.so"))
	return err == nil && len(found) > 0
}
