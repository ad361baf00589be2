package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFirstLine(t *testing.T) {
	t.Parallel()
	l := firstLine{there: make(chan struct{})}
	for _, part := range []string{"http://127.0.0.1", ":80", "80\nmore\n", "and more\n"} {
		n, err := fmt.Fprint(&l, part)
		require.NoError(t, err)
		require.Equal(t, len(part), n)
	}
	<-l.there
	require.Equal(t, "http://127.0.0.1:8080", l.text)
}
