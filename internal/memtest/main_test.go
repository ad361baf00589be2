package memtest

import (
	"testing"

	"go.uber.org/goleak"

	"tempo/internal/infer/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(func() { goleak.VerifyTestMain(m) }) }
