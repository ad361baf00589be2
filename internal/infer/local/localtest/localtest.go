// Package localtest has test binaries be engine processes with the real engine.
package localtest

import (
	"context"
	"fmt"
	"os"
	"slices"

	"tempo/internal/infer"
	"tempo/internal/infer/local"
)

// EngineArg is the argument with which a test binary becomes an engine process.
const EngineArg = "an-engine"

// Main is for TestMain: where the binary was started with EngineArg it is an engine
// process until its parent ends it; else it runs the tests.
func Main(tests func()) {
	if !slices.Contains(os.Args, EngineArg) {
		tests()
		return
	}
	engine := local.New(nil)
	if err := infer.ServeParent(context.Background(), engine, engine.Broken()); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}
