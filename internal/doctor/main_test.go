package doctor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"tempo/internal/infer"
	"tempo/internal/infer/local"
)

// engineArg has the test binary be an engine process.
const engineArg = "an-engine"

func TestMain(m *testing.M) {
	if !slices.Contains(os.Args, engineArg) {
		goleak.VerifyTestMain(m)
		return
	}
	engine := local.New(nil)
	if err := infer.ServeParent(context.Background(), engine, engine.Broken()); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}
