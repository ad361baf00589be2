package submit

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/batchfile"
)

// Answers whose sets memory has made narrower are counted; a limit of the job's own is none.
func TestNarrowedAnswers(t *testing.T) {
	t.Parallel()
	f := newFollower(&Batch{ID: "b"}, &output{writer: batchfile.NewWriter(io.Discard, nil)})
	for i, p := range []*api.ParallelResult{nil, {Cut: 3}, {Cut: 3, CutByMemory: 2}, {Cut: 1, CutByMemory: 1}} {
		f.expect(i)
		r := answer(api.Job{ID: jobID(i), Batch: "b"}, "w")
		r.Tempo.Parallel = p
		r.Tempo.Memory = &api.Memory{KVCache: int64(10 * i), Limit: 50} // the last holds more than half
		require.NoError(t, f.take(*r))
	}
	require.Equal(t, []int{4, 2, 1}, []int{f.summary().Succeeded, f.summary().Narrowed, f.summary().OfCache})
}
