package infer_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/infer"
)

func TestMPSEnv(t *testing.T) {
	t.Parallel()
	bounded := []string{"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=36864M"}
	running := fstest.MapFS{"tmp/nvidia-mps/control": &fstest.MapFile{}}
	elsewhere := fstest.MapFS{"run/mps/control": &fstest.MapFile{}}
	for _, c := range []struct {
		name  string
		env   []string
		files fstest.MapFS
		want  []string
	}{
		{"no service", []string{"HOME=/root"}, fstest.MapFS{}, nil},
		{"where it is by default", nil, running, bounded},
		{"elsewhere", []string{"CUDA_MPS_PIPE_DIRECTORY=/run/mps"}, elsewhere, bounded},
		{"elsewhere, and nobody says so", nil, elsewhere, nil},
		{"the last one counts", []string{"CUDA_MPS_PIPE_DIRECTORY=/run/mps", "CUDA_MPS_PIPE_DIRECTORY=/none"}, elsewhere, nil},
		{"an empty name is none", []string{"CUDA_MPS_PIPE_DIRECTORY="}, running, bounded},
		{"turned off by a directory that is not there", []string{"CUDA_MPS_PIPE_DIRECTORY=/none"}, running, nil},
		{"a file is no directory", nil, fstest.MapFS{"tmp/nvidia-mps": &fstest.MapFile{}}, nil},
	} {
		require.Equal(t, c.want, infer.MPSEnv(36*budget.GiB+budget.KiB, c.env, c.files), c.name)
	}
}
