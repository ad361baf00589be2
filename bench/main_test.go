package main

import (
	"os"
	"slices"
	"testing"

	"tempo/internal/cli"
)

// TestMain lets the test binary be the engine process of the paths that tests
// start, as the program itself is.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, engineProcessName) {
		os.Exit(cli.Main(command()))
	}
	os.Exit(m.Run())
}
