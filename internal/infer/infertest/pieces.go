package infertest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/setup"
)

// LibDir is the directory of the llama.cpp libraries in the user's cache. The
// test fails if they are not there.
func LibDir(t testing.TB) string {
	t.Helper()
	paths, err := setup.Locate("")
	if paths == nil || paths.LlamaLib == "" { // the model may be missing
		require.FailNow(t, "the llama.cpp libraries are missing: run `make setup-lib`", "%v", err)
	}
	return paths.LlamaLib
}

// RealModel is the file of the model that `make run` takes. The test fails if it is not in the
// user's cache.
func RealModel(t testing.TB) string {
	t.Helper()
	paths, err := setup.Locate("")
	if paths == nil || paths.Model == "" {
		require.FailNow(t, "the model is missing: run `make setup`", "%v", err)
	}
	return paths.Model
}

// TinySpec is a tiny random model in a file of its own, on one thread.
func TinySpec(t testing.TB) infer.Spec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	require.NoError(t, gguf.WriteFile(path, gguf.Tiny()))
	return infer.Spec{Model: path, LibDir: LibDir(t), GPU: -1, Threads: 1, Batch: 64}
}

// Words is a prompt of n words, each of which is one token for a Sleeper and for
// the tiny model.
func Words(n int) string { return strings.TrimSpace(strings.Repeat(" a", n)) }
