package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

// success makes the result of a job that was answered.
func (w *Worker) success(j *job, request *api.Request, out *infer.Output) *api.Result {
	id := j.delivery.Job.Batch + "-" + j.delivery.Job.ID
	body := api.Completion{
		ID:      "chatcmpl-" + id,
		Object:  "chat.completion",
		Created: time.Now().Unix(),
		Model:   w.opts.Model,
		Choices: []api.Choice{{FinishReason: out.Choices[0].FinishReason}},
		Usage: api.Usage{
			PromptTokens: out.PromptTokens, CompletionTokens: out.CompletionTokens,
			TotalTokens:         out.PromptTokens + out.CompletionTokens,
			PromptTokensDetails: &api.PromptTokensDetails{CachedTokens: out.CachedTokens},
		},
	}
	if request.URL == api.Completions {
		body.ID, body.Object = "cmpl-"+id, "text_completion"
		text := out.Text()
		body.Choices[0].Text = &text
	} else {
		body.Choices[0].Message = &api.AnswerMessage{Role: "assistant", Content: out.Text()}
	}
	r := w.result(j, 200, body)
	r.Tempo.CutByMemory = out.Choices[0].FinishReason == "length" && out.CompletionTokens != request.MaxTokens &&
		out.PromptTokens+out.CompletionTokens < w.facts.Context
	r.Tempo.Timing = &api.Timing{
		QueueSeconds:   max(out.Started.Sub(j.delivery.Published).Seconds(), 0),
		PrefillSeconds: out.Prefill.Seconds(),
		DecodeSeconds:  out.Decode.Seconds(),
	}
	return r
}

// failure makes the result of a job that cannot be answered.
func (w *Worker) failure(j *job, err error) *api.Result {
	status, detail := describe(err)
	r := w.result(j, status, api.ErrorBody{Error: detail})
	if memory, ok := errors.AsType[*MemoryError](err); ok {
		r.Tempo.MemoryError = memory.wire()
	}
	return r
}

// describe turns an error into OpenAI's form. The statuses: 400 the request is
// at fault, 507 its memory can never be had here, 500 anything else.
func describe(err error) (int, api.ErrorDetail) {
	detail := api.ErrorDetail{Message: err.Error(), Type: "server_error"}
	status := 500
	var request *infer.RequestError
	var field *api.FieldError
	var large *budget.TooLargeError
	var memory *MemoryError
	var died *infer.DiedError
	var attempts *attemptsError
	switch {
	case errors.As(err, &request):
		status, detail.Type, detail.Param = 400, "invalid_request_error", param(request.Param)
	case errors.As(err, &field):
		status, detail.Type, detail.Param = 400, "invalid_request_error", param(field.Field)
	case errors.As(err, &memory), errors.As(err, &large):
		status, detail.Type, detail.Code = 507, "memory_error", param("memory_error")
	case errors.As(err, &died):
		detail.Code = param("engine_crashed")
	case errors.As(err, &attempts):
		detail.Code = param("too_many_attempts")
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		detail.Hint = hinted.Hint()
	}
	return status, detail
}

// attemptsError says that a job was tried as often as it may be and never ended.
type attemptsError struct{ tried int }

func (e *attemptsError) Error() string {
	return fmt.Sprintf("the job was tried %d times, and no worker ended it or gave it back", e.tried)
}

// Hint says where to look.
func (e *attemptsError) Hint() string {
	return "look in the workers' logs for why they ended while they had it (out of memory, a crash); send the job again when that is mended"
}

// param is nil for an empty string, as OpenAI writes it.
func param(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (w *Worker) result(j *job, status int, body any) *api.Result {
	raw, err := json.Marshal(body)
	if err != nil { // strings and numbers only: cannot happen
		status, raw = 500, []byte(`{"error":{"message":"the answer cannot be written as JSON","type":"server_error","param":null,"code":null}}`)
	}
	d := j.delivery
	memory := w.memory()
	return &api.Result{
		ID:       api.ResultID(d.Job.Batch, d.Job.ID),
		CustomID: d.Job.CustomID,
		Response: &api.Response{StatusCode: status, RequestID: "req_" + d.Job.Batch + "-" + d.Job.ID, Body: raw},
		Tempo: &api.Tempo{
			Worker: w.opts.Name, Device: w.opts.Device.ID, Attempt: d.Attempt + j.deaths,
			Memory: &memory, Line: d.Job.Line,
		},
	}
}
