package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if part(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// TestChaos is a short run of what `make chaos` does at length, with a seed by which everything goes
// wrong in the first eight times.
func TestChaos(t *testing.T) {
	t.Chdir("../..")
	require.NoError(t, run(t.Context(), options{jobs: 1000, workers: 2, seed: 164, faults: 8 * time.Second, limit: 3 * time.Minute}, t.Output()))
}
