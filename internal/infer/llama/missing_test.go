package llama_test

import (
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tempo/internal/infer/llama"
)

// missingVar has the test binary look for libraries in a process that has none.
const missingVar = "LLAMA_TEST_MISSING"

func TestLoadWithoutLibraries(t *testing.T) {
	if os.Getenv(missingVar) == "" {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLoadWithoutLibraries$")
		cmd.Env = append(os.Environ(), missingVar+"=1", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	dir := t.TempDir()
	_, err := llama.Load(dir, zap.NewNop())
	var missing *llama.LibraryError
	require.ErrorAs(t, err, &missing)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Contains(t, err.Error(), dir)
	require.Contains(t, err.Error(), "libllama.so")
	require.Contains(t, missing.Hint(), "--llama-lib")
}
