package infer_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

func TestSleeper(t *testing.T) {
	t.Parallel()
	infertest.Test(t, func(t *testing.T) infer.Engine {
		s := sleeper()
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}, infer.Spec{})
}

func TestHostOverSleeper(t *testing.T) {
	t.Parallel()
	infertest.Test(t, func(t *testing.T) infer.Engine { return newHost(t, options(modeSleeper)) }, infer.Spec{})
}

// newHost makes a Host that is closed at the end of the test.
func newHost(t *testing.T, o infer.HostOptions) *infer.Host {
	t.Helper()
	h := infer.NewHost(o, nil)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}
