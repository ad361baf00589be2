package submit

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/batchfile"
)

func TestRunEmbeddings(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	o := options(write(t,
		`{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"input":"The cat"}}`,
		`{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{"input":["The cat","The dog"],"encoding_format":"base64"}}`))
	s := send(t, c, o)
	require.Equal(t, 2, s.Succeeded)
	require.Equal(t, 16, s.Embedded)
	require.Zero(t, s.Tokens)
	require.Zero(t, s.TokensPerSecond)
	require.ElementsMatch(t, []string{"a", "b"}, ids(t, o.Output))
	b, err := c.Batch(t.Context(), s.Batch)
	require.NoError(t, err)
	require.Equal(t, api.Embeddings, b.Endpoint)
}

// What is read for embeddings counts as work on the status line.
func TestProgressOfEmbeddings(t *testing.T) {
	t.Parallel()
	f := newFollower(&Batch{ID: "b"}, &output{writer: batchfile.NewWriter(io.Discard, nil)})
	f.expect(1)
	require.NoError(t, f.take(*answer(api.Job{ID: jobID(1), Batch: "b", URL: api.Embeddings}, "w")))
	f.first = f.last.Add(-2 * time.Second)
	require.Equal(t, "1 of 1 done, 0 failed, 4 tokens/s, 1m15s", f.line(f.started.Add(75*time.Second)))
}

// One long job has no tokens to show until it is done, but its time.
func TestProgressOfOneJob(t *testing.T) {
	t.Parallel()
	f := newFollower(&Batch{ID: "b"}, &output{writer: batchfile.NewWriter(io.Discard, nil)})
	f.expect(1)
	require.Equal(t, "0 of 1 done, 0 failed, 0s", f.line(f.started.Add(900*time.Millisecond)))
	require.Equal(t, "0 of 1 done, 0 failed, 12s", f.line(f.started.Add(12*time.Second)))
}
