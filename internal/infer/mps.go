package infer

import (
	"fmt"
	"io/fs"
	"strings"

	"tempo/internal/budget"
)

// MPSEnv is what bounds an engine's memory on its GPU where NVIDIA's Multi-Process
// Service runs, to be added to the engine's environment; nothing elsewhere. env is
// the environment in which the engine will be, files the file system at "/". The
// engine must see one GPU only.
// Source: NVIDIA's guide to MPS, CUDA_MPS_PINNED_DEVICE_MEM_LIMIT.
func MPSEnv(limit budget.Bytes, env []string, files fs.FS) []string {
	pipes := "/tmp/nvidia-mps" // the service's own default
	for _, v := range env {    // the last one counts
		if dir, ok := strings.CutPrefix(v, "CUDA_MPS_PIPE_DIRECTORY="); ok && dir != "" {
			pipes = dir
		}
	}
	if info, err := fs.Stat(files, strings.Trim(pipes, "/")); err != nil || !info.IsDir() {
		return nil
	}
	return []string{fmt.Sprintf("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=%dM", limit/budget.MiB)}
}
