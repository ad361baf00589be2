package worker

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/infer/toolcall"
	"tempo/internal/settext"
)

// success makes the result of a job that was answered.
func (w *Worker) success(j *job, request *api.Request, out *infer.Output) *api.Result {
	a := answer{
		id: j.delivery.Job.Batch + "-" + j.delivery.Job.ID, model: w.opts.Model, created: time.Now().Unix(),
		request: request, out: out, tools: toolcall.Names(request.Tools),
	}
	r := w.result(j, 200, a.body())
	r.Tempo.CutByMemory, r.Tempo.Parallel = cutByMemory(request, out, w.facts.Context), out.Parallel
	r.Tempo.Timing = &api.Timing{
		QueueSeconds:   max(out.Started.Sub(j.delivery.Published).Seconds(), 0),
		PrefillSeconds: out.Prefill.Seconds(),
		DecodeSeconds:  out.Decode.Seconds(),
	}
	return r
}

// cutByMemory reports whether a choice ended neither at max_tokens nor at the end of the
// model's context, but where memory did, the cache's or that for the result. Both count
// positions, each of which can have several tokens.
func cutByMemory(request *api.Request, out *infer.Output, longest int) bool {
	return slices.ContainsFunc(out.Choices, func(c infer.Choice) bool {
		positions := c.Tokens
		if len(out.Choices) == 1 {
			positions = out.CompletionTokens
		}
		if out.Parallel != nil {
			positions = out.Parallel.Positions
		}
		return c.FinishReason == "length" && positions != request.MaxTokens && out.PromptTokens+positions < longest
	})
}

// answer is what a job generated, on its way to OpenAI's form.
type answer struct {
	id      string // of the job, in all batches
	model   string
	created int64 // Unix seconds
	request *api.Request
	out     *infer.Output
	tools   []string // names of the functions that the model may call
}

// body is the answer in the form of its endpoint.
func (a answer) body() any {
	if a.request.URL == api.Embeddings {
		return a.embeddings()
	}
	body := api.Completion{
		ID: "chatcmpl-" + a.id, Object: "chat.completion", Created: a.created, Model: a.model,
		Choices: make([]api.Choice, len(a.out.Choices)),
		Usage: api.Usage{
			PromptTokens: a.out.PromptTokens, CompletionTokens: a.out.CompletionTokens,
			TotalTokens:         a.out.PromptTokens + a.out.CompletionTokens,
			PromptTokensDetails: &api.PromptTokensDetails{CachedTokens: a.out.CachedTokens},
		},
	}
	choice := a.chatChoice
	if a.request.URL == api.Completions {
		body.ID, body.Object, choice = "cmpl-"+a.id, "text_completion", a.textChoice
	}
	for i, c := range a.out.Choices {
		body.Choices[i] = choice(i, c)
	}
	return body
}

func (a answer) embeddings() api.EmbeddingList {
	list := api.EmbeddingList{
		Object: api.ObjectList, Model: a.model, Data: make([]api.Embedding, len(a.out.Embeddings)),
		Usage: api.EmbeddingUsage{PromptTokens: a.out.PromptTokens, TotalTokens: a.out.PromptTokens},
	}
	for i, vector := range a.out.Embeddings {
		list.Data[i] = api.Embedding{
			Object: "embedding", Index: i, Embedding: api.Vector{Values: vector, Base64: a.request.Base64},
		}
	}
	return list
}

// chatChoice is a choice of a chat, with the calls of tools taken out of its text.
func (a answer) chatChoice(index int, c infer.Choice) api.Choice {
	text, calls := toolcall.Find(c.Text, a.tools)
	message := &api.AnswerMessage{Role: "assistant", Content: text}
	for i, call := range calls {
		message.ToolCalls = append(message.ToolCalls, api.ToolCall{
			ID: a.callID(index, i), Type: "function", Function: api.FunctionCall{Name: call.Name, Arguments: call.Arguments},
		})
	}
	choice := api.Choice{Index: index, Message: message, FinishReason: c.FinishReason}
	if len(calls) > 0 && c.FinishReason == "stop" {
		choice.FinishReason = "tool_calls"
	}
	if a.request.Logprobs {
		choice.Logprobs = &api.Logprobs{ChatLogprobs: chatLogprobs(c.Logprobs)}
	}
	return choice
}

// callID is the same for every attempt at the job. Mistral's templates take only ids of
// nine letters and digits, the others take any.
func (a answer) callID(choice, call int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", a.id, choice, call))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:9]
}

// textChoice is a choice of a completion, behind its prompt if that was asked for.
func (a answer) textChoice(index int, c infer.Choice) api.Choice {
	text := c.Text
	if a.request.Echo {
		text = a.request.Prompt + text
	}
	choice := api.Choice{Index: index, Text: &text, FinishReason: c.FinishReason}
	if a.request.Logprobs {
		choice.Logprobs = &api.Logprobs{TextLogprobs: textLogprobs(c.Logprobs, a.request)}
	}
	return choice
}

// chatLogprobs are a choice's log probabilities in the form of a chat.
func chatLogprobs(tokens []infer.TokenLogprobs) *api.ChatLogprobs {
	list := make([]api.TokenLogprob, len(tokens))
	for i, token := range tokens {
		list[i] = api.TokenLogprob{TopLogprob: topLogprob(token.TokenLogprob), TopLogprobs: make([]api.TopLogprob, len(token.Top))}
		for k, top := range token.Top {
			list[i].TopLogprobs[k] = topLogprob(top)
		}
	}
	return &api.ChatLogprobs{Content: list}
}

func topLogprob(token infer.TokenLogprob) api.TopLogprob {
	bytes := make([]int, len(token.Piece))
	for i, b := range token.Piece {
		bytes[i] = int(b)
	}
	return api.TopLogprob{Token: settext.Whole(string(token.Piece)), Logprob: finite(token.Logprob), Bytes: bytes}
}

// textLogprobs are a choice's log probabilities in the form of a completion.
func textLogprobs(tokens []infer.TokenLogprobs, request *api.Request) *api.TextLogprobs {
	out := &api.TextLogprobs{
		Tokens: make([]string, len(tokens)), TokenLogprobs: make([]float32, len(tokens)), TextOffset: make([]int, len(tokens)),
	}
	if request.TopLogprobs > 0 {
		out.TopLogprobs = make([]map[string]float32, len(tokens))
	}
	offset := utf8.RuneCountInString(request.Prompt)
	var begun []byte // of a character that the next token ends
	for i, token := range tokens {
		name := textToken(token.Piece)
		out.Tokens[i], out.TokenLogprobs[i], out.TextOffset[i] = name, finite(token.Logprob), offset
		if out.TopLogprobs != nil {
			top := map[string]float32{name: finite(token.Logprob)} // also if it is none of the likeliest
			for _, t := range token.Top {
				if _, likelier := top[textToken(t.Piece)]; !likelier { // of two tokens with one text
					top[textToken(t.Piece)] = finite(t.Logprob)
				}
			}
			out.TopLogprobs[i] = top
		}
		for begun = append(begun, token.Piece...); utf8.FullRune(begun); offset++ {
			_, size := utf8.DecodeRune(begun)
			begun = begun[size:]
		}
	}
	return out
}

// textToken is a token in a completion's form, where one that is not whole in UTF-8 is
// marked.
func textToken(piece []byte) string {
	if utf8.Valid(piece) {
		return string(piece)
	}
	return "bytes:" + settext.Whole(string(piece))
}

// finite is a log probability that JSON can write.
func finite(logprob float32) float32 {
	if f := float64(logprob); math.IsNaN(f) || f < api.MinLogprob {
		return api.MinLogprob
	}
	return logprob
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
// at fault, 408 its timeout passed, 507 its memory can never be had here, 500 anything else.
func describe(err error) (int, api.ErrorDetail) {
	detail := api.ErrorDetail{Message: err.Error(), Type: "server_error"}
	status := 500
	var request *infer.RequestError
	var field *api.FieldError
	var large *budget.TooLargeError
	var memory *MemoryError
	var died *infer.DiedError
	var attempts *attemptsError
	var poisonous *poisonError
	var timeout *infer.TimeoutError
	switch {
	case errors.As(err, &timeout):
		status, detail.Type, detail.Param, detail.Code = 408, "timeout_error", param("timeout"), param("request_timeout")
	case errors.As(err, &request):
		status, detail.Type, detail.Param = 400, "invalid_request_error", param(request.Param)
	case errors.As(err, &field):
		status, detail.Type, detail.Param = 400, "invalid_request_error", param(field.Field)
	case errors.As(err, &memory), errors.As(err, &large):
		status, detail.Type, detail.Code = 507, "memory_error", param("memory_error")
	case errors.As(err, &died), errors.As(err, &poisonous):
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

// poisonError says that engines or workers died with a job each time that it was tried.
type poisonError struct{ attempts []api.Attempt }

func (e *poisonError) Error() string {
	last := e.attempts[len(e.attempts)-1]
	return fmt.Sprintf("the job was tried %d times, and each time what ran it died (the last time: %s)", len(e.attempts), last.Error)
}

// Hint says where to look.
func (e *poisonError) Hint() string {
	return "look at the job and at the workers' logs; `submit dead show` has every attempt"
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
	if err != nil { // a number that is none, in an embedding
		status, raw = 500, []byte(`{"error":{"message":"the answer cannot be written as JSON","type":"server_error","param":null,"code":null}}`)
	}
	d := j.delivery
	memory := w.memory()
	return &api.Result{
		ID:       api.ResultID(d.Job.Batch, d.Job.ID),
		CustomID: d.Job.CustomID,
		Response: &api.Response{StatusCode: status, RequestID: "req_" + d.Job.Batch + "-" + d.Job.ID, Body: raw},
		Tempo: &api.Tempo{
			Worker: w.opts.Name, Device: w.opts.Device.ID, Attempt: d.Attempt,
			Memory: &memory, Line: d.Job.Line,
		},
	}
}
