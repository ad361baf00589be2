package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// maxSeed leaves out 2^32-1, which llama.cpp takes as "choose a random seed".
const maxSeed = math.MaxUint32 - 1

// What can be wrong with a field.
const (
	problemMissing = "missing"
	problemType    = "wrong type"
	problemRange   = "out of range"
	problemUnknown = "unknown field"
	problemLater   = "not supported yet"
	problemTwice   = "given twice"
)

// ParseRequest checks the body of a job for the endpoint url (ChatCompletions
// or Completions) and returns what the engine is to do, with DefaultSampling
// where the body is silent. It is strict: a field that is unknown, of the wrong
// type, out of range or not supported yet is a fault, never ignored. A field
// that is null counts as not given, and fields of features that Tempo does not
// have are accepted with the value that changes nothing (n: 1, stream: false).
// A missing model is not a fault here.
//
// The error joins a *FieldError for every fault of the body.
func ParseRequest(url string, body []byte) (*Request, error) {
	if url != ChatCompletions && url != Completions {
		return nil, &FieldError{
			Field: "url", Problem: "unknown endpoint", Value: show([]byte(strconv.Quote(url))),
			Allowed: ChatCompletions + ", " + Completions,
		}
	}
	members, err := Members(body)
	if members == nil && err != nil {
		return nil, err
	}
	p := parser{req: Request{URL: url, Sampling: DefaultSampling()}}
	if err != nil {
		p.faults = append(p.faults, err)
	}
	for _, m := range members {
		p.field(m)
	}
	p.required()
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return &p.req, nil
}

// parser collects the request and the faults of one body.
type parser struct {
	req    Request
	faults []error
	input  bool // messages or prompt is there, if perhaps faulty
	// What the two names of max_tokens said; nil if not given.
	maxTokens, maxCompletionTokens *int
}

// accepted lists the fields that ParseRequest understands for url.
func accepted(url string) []string {
	first := "messages"
	if url == Completions {
		first = "prompt"
	}
	return []string{
		first, "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p",
		"seed", "stop", "presence_penalty", "frequency_penalty", "repeat_penalty", "user", "metadata",
	}
}

// neutral reports whether name is a field of OpenAI's or llama.cpp's that is
// not supported yet, and which values of it (compact JSON) change nothing.
func neutral(url, name string) (values []string, known bool) {
	switch name {
	case "n", "best_of":
		return []string{"1"}, true
	case "stream", "echo", "store":
		return []string{"false"}, true
	case "logprobs":
		if url == Completions { // a count there, and 0 still asks for the chosen token's
			return nil, true
		}
		return []string{"false"}, true
	case "top_logprobs":
		return []string{"0"}, true
	case "tools", "functions":
		return []string{"[]"}, true
	case "tool_choice", "function_call":
		return []string{`"none"`}, true
	case "parallel_tool_calls":
		return []string{"true", "false"}, true
	case "logit_bias", "tempo":
		return []string{"{}"}, true
	case "response_format":
		return []string{`{"type":"text"}`}, true
	case "modalities":
		return []string{`["text"]`}, true
	case "grammar", "suffix":
		return []string{`""`}, true
	case "service_tier":
		return []string{`"auto"`, `"default"`}, true
	case "reasoning_effort", "stream_options", "audio", "prediction", "verbosity", "web_search_options",
		"prompt_cache_key", "safety_identifier":
		return nil, true
	default:
		return nil, false
	}
}

// field reads one member of the body.
func (p *parser) field(m Member) {
	values, later := neutral(p.req.URL, m.Name)
	switch {
	case !later && !slices.Contains(accepted(p.req.URL), m.Name):
		p.unknown("", m.Name, accepted(p.req.URL))
	case m.Null():
	case later:
		p.neutral(m.Name, m.Value, values)
	default:
		p.read(m.Name, m.Value)
	}
}

// read takes the value of an accepted field that is not null.
func (p *parser) read(name string, raw json.RawMessage) {
	s := &p.req.Sampling
	const penalty = "a number from -2 to 2"
	switch name {
	case "messages":
		p.input = true
		p.messages(raw)
	case "prompt":
		p.input = true
		p.text(name, raw, "a string that is not empty (one prompt a line)", &p.req.Prompt)
	case "model":
		p.text(name, raw, "the name of a model, as a string", &p.req.Model)
	case "max_tokens":
		p.maxTokens = p.tokens(name, raw)
	case "max_completion_tokens":
		p.maxCompletionTokens = p.tokens(name, raw)
	case "temperature":
		p.number(name, raw, 0, 2, "a number from 0 (always the most probable token) to 2", &s.Temperature)
	case "top_p":
		p.number(name, raw, math.SmallestNonzeroFloat64, 1, "a number over 0, up to 1 (off)", &s.TopP)
	case "top_k":
		p.topK(name, raw)
	case "min_p":
		p.number(name, raw, 0, 1, "a number from 0 (off) to 1", &s.MinP)
	case "seed":
		if n, ok := p.integer(name, raw, 0, maxSeed, fmt.Sprintf("an integer from 0 to %d", uint32(maxSeed))); ok {
			seed := uint32(n)
			s.Seed = &seed
		}
	case "stop":
		p.stop(raw)
	case "presence_penalty":
		p.number(name, raw, -2, 2, penalty, &s.PresencePenalty)
	case "frequency_penalty":
		p.number(name, raw, -2, 2, penalty, &s.FrequencyPenalty)
	case "repeat_penalty":
		p.number(name, raw, math.SmallestNonzeroFloat64, math.MaxFloat32, "a number over 0 (1 = off)", &s.RepeatPenalty)
	case "user": // user and metadata do not change the answer
		if kind(raw) != "string" {
			p.fault(name, problemType, raw, "a string")
		}
	case "metadata":
		if kind(raw) != "object" {
			p.fault(name, problemType, raw, "an object")
		}
	}
}

// required checks what only the whole body shows.
func (p *parser) required() {
	switch {
	case p.input:
	case p.req.URL == ChatCompletions:
		p.fault("messages", problemMissing, nil, `a list of messages, such as [{"role":"user","content":"Hello"}]`)
	default:
		p.fault("prompt", problemMissing, nil, "a string that is not empty")
	}
	a, b := p.maxTokens, p.maxCompletionTokens
	if a != nil && b != nil && *a != *b {
		p.fault("max_completion_tokens", fmt.Sprintf("contradicts max_tokens (%d)", *a),
			[]byte(strconv.Itoa(*b)), "one of the two, or the same value")
	}
	if a == nil {
		a = b
	}
	if a != nil {
		p.req.MaxTokens = *a
	}
}

func (p *parser) unknown(path, name string, known []string) {
	suggestion := otherName(name)
	if !slices.Contains(known, suggestion) {
		suggestion = Nearest(name, known)
	}
	if suggestion != "" {
		suggestion = path + suggestion
	}
	p.faults = append(p.faults, &FieldError{Field: path + name, Problem: problemUnknown, Suggestion: suggestion})
}

func (p *parser) fault(path, problem string, raw []byte, allowed string) {
	p.faults = append(p.faults, &FieldError{Field: path, Problem: problem, Value: show(raw), Allowed: allowed})
}

// otherName is OpenAI's name of a field that other programs call name.
func otherName(name string) string {
	switch name {
	case "max_new_tokens", "max_output_tokens", "n_predict", "num_predict":
		return "max_tokens"
	case "repetition_penalty":
		return "repeat_penalty"
	case "stop_sequences":
		return "stop"
	case "prompt":
		return "messages"
	case "messages":
		return "prompt"
	default:
		return ""
	}
}
