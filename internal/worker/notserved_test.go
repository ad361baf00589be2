package worker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAJobForAnotherModel that reaches a worker all the same.
func TestAJobForAnotherModel(t *testing.T) {
	t.Parallel()
	w := newWorker(t, newQueue(t), &script{}, nil)
	j := newJob(t, w.Worker, "j", 100)
	j.delivery.Job.Model = "large"
	r, err := w.Worker.run(j)
	require.NoError(t, err)
	e := requireFailed(t, *r, 404)
	require.Equal(t, "model_not_found", *e.Code)
	require.Equal(t, "model", *e.Param)
	require.Equal(t, `the model "large" is not served here; served are "tiny"`, e.Message)
	w.common = &common{models: []string{"a", "b"}}
	r, err = w.Worker.run(j)
	require.NoError(t, err)
	require.Contains(t, requireFailed(t, *r, 404).Message, `served are "a", "b"`)
	w.common = nil
	finish(w.Worker, j)
}
