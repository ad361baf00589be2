package worker

import (
	"fmt"
	"strings"

	"tempo/api"
)

// modelError says that a job names a model that this worker does not have.
type modelError struct {
	Model  string
	Served []string
}

func (e *modelError) Error() string {
	return fmt.Sprintf("the model %q is not served here; served are %s", e.Model, strings.Join(quoted(e.Served), ", "))
}

// Hint says what to do.
func (e *modelError) Hint() string {
	return fmt.Sprintf("name one of them in the job, or start a worker with --model %s=PATH", e.Model)
}

func quoted(names []string) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = fmt.Sprintf("%q", n)
	}
	return list
}

// notServed makes the result of a job for another model, which no queue should give
// to this worker.
func (w *Worker) notServed(j *job) *api.Result {
	err := &modelError{Model: j.delivery.Job.Model, Served: []string{w.opts.Model}}
	if w.common != nil {
		err.Served = w.common.models
	}
	return w.result(j, 404, api.ErrorBody{Error: api.ErrorDetail{
		Message: err.Error(), Type: "invalid_request_error", Param: param("model"), Code: param("model_not_found"), Hint: err.Hint(),
	}})
}
