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
		require.NoError(t, f.take(*r))
	}
	require.Equal(t, []int{4, 2}, []int{f.summary().Succeeded, f.summary().Narrowed})
}
