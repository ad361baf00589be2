package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxSeed leaves out 2^32-1, which llama.cpp takes as "choose a random seed".
const maxSeed = math.MaxUint32 - 1

// What can be wrong with a field.
const (
	problemMissing     = "missing"
	problemEmpty       = "empty"
	problemType        = "wrong type"
	problemRange       = "out of range"
	problemUnknown     = "unknown field"
	problemUnsupported = "not supported"
	problemTwice       = "given twice"
)

// ParseRequest checks the body of a job for the endpoint url (ChatCompletions,
// Completions or Embeddings) and returns what the engine is to do, with
// DefaultSampling and one answer where the body is silent. It is strict: a field
// that is unknown, of the wrong type, out of range, not supported or in
// contradiction to another is a fault, never ignored. A field that is null counts
// as not given, and fields of features that Tempo does not have are accepted with
// the value that changes nothing (stream: false). A missing model is not a fault
// here.
//
// The error joins a *FieldError for every fault of the body.
func ParseRequest(url string, body []byte) (*Request, error) {
	if url != ChatCompletions && url != Completions && url != Embeddings {
		return nil, &FieldError{
			Field: "url", Problem: "unknown endpoint", Value: show([]byte(strconv.Quote(url))),
			Allowed: ChatCompletions + ", " + Completions + ", " + Embeddings,
		}
	}
	members, err := Members(body)
	if members == nil && err != nil {
		return nil, err
	}
	p := parser{req: Request{URL: url, N: 1, Sampling: DefaultSampling()}, members: members}
	if err != nil {
		p.faults = append(p.faults, err)
	}
	for _, m := range members {
		p.field(m)
	}
	p.combinations()
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return &p.req, nil
}

// parser collects the request and the faults of one body.
type parser struct {
	req     Request
	members []Member
	faults  []error
	// What the two names of max_tokens said; nil if not given.
	maxTokens, maxCompletionTokens *int
	bestOf                         *int
	noTools                        bool // tool_choice is "none"
}

// accepted lists the fields that ParseRequest understands for url, the one that
// must be there first.
func accepted(url string) []string {
	all := []string{"model", "user", "metadata", "timeout"}
	if url == Embeddings {
		return append([]string{"input", "encoding_format"}, all...)
	}
	all = append(all, "reproducible", tempoField,
		"max_tokens", "max_completion_tokens", "stop", "ignore_eos", "n", "best_of", "logprobs", "response_format", "grammar",
		"temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty", "logit_bias")
	if url == Completions {
		return append([]string{"prompt", "echo"}, all...)
	}
	return append([]string{"messages", "tools", "tool_choice", "parallel_tool_calls", "top_logprobs"}, all...)
}

// neutral reports whether name is a field of OpenAI's or llama.cpp's that is
// not supported, and which values of it (compact JSON) change nothing.
func neutral(url, name string) (values []string, known bool) {
	switch name {
	case tempoField:
		return []string{"{}"}, url == Embeddings
	case "reproducible":
		return []string{"false"}, url == Embeddings
	case "dimensions":
		return nil, url == Embeddings
	}
	if url == Embeddings {
		return nil, false
	}
	switch name {
	case "stream", "store":
		return []string{"false"}, true
	case "echo":
		return []string{"false"}, url == ChatCompletions
	case "top_logprobs":
		return []string{"0"}, url == Completions
	case "tools":
		return []string{"[]"}, url == Completions
	case "tool_choice":
		return []string{`"none"`}, url == Completions
	case "parallel_tool_calls":
		return []string{"true", "false"}, url == Completions
	case "functions":
		return []string{"[]"}, true
	case "function_call":
		return []string{`"none"`}, true
	case "modalities":
		return []string{`["text"]`}, true
	case "suffix":
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

// given is the value of a field; nil if it is not there, or null.
func (p *parser) given(name string) json.RawMessage {
	for _, m := range p.members {
		if m.Name == name && !m.Null() {
			return m.Value
		}
	}
	return nil
}

// unknown notes a field that is none of known; path ends in a dot.
func (p *parser) unknown(path, name string, known []string) {
	suggestion := Nearest(name, known)
	if path == "" && slices.Contains(tempoMembers(), name) && slices.Contains(known, tempoField) {
		suggestion = tempoField + "." + name // where it belongs
	}
	for _, other := range otherNames(name) {
		if slices.Contains(known, other) {
			suggestion = other
			break
		}
	}
	if suggestion != "" {
		suggestion = path + suggestion
	}
	f := &FieldError{Field: path + name, Problem: problemUnknown, Suggestion: suggestion}
	if suggestion == "" && path != "" { // of the whole request they are too many
		f.Allowed = strings.Join(known, ", ")
		f.Advice = fmt.Sprintf("leave out %s, or write one of: %s", f.Field, f.Allowed)
	}
	p.faults = append(p.faults, f)
}

func (p *parser) fault(path, problem string, raw []byte, allowed string) {
	p.faults = append(p.faults, &FieldError{Field: path, Problem: problem, Value: show(raw), Allowed: allowed})
}

// clash notes a field that another one rules out.
func (p *parser) clash(field, other, allowed string) {
	p.faults = append(p.faults, &FieldError{
		Field: field, Problem: fmt.Sprintf("cannot stand beside %s (%s)", other, show(p.given(other))),
		Value: show(p.given(field)), Allowed: allowed, Beside: other,
	})
}

// otherNames are the names here of a field that other programs, or another
// endpoint, call name; the first that the endpoint has is meant.
func otherNames(name string) []string {
	switch name {
	case "max_new_tokens", "max_output_tokens", "n_predict", "num_predict":
		return []string{"max_tokens"}
	case "repetition_penalty":
		return []string{"repeat_penalty"}
	case "stop_sequences":
		return []string{"stop"}
	case "json_schema", "guided_json":
		return []string{"response_format"}
	case "guided_grammar":
		return []string{"grammar"}
	case "schema": // llama.cpp's, beside the type json_object
		return []string{"json_schema"}
	case "n_probs":
		return []string{"top_logprobs", "logprobs"}
	case "parallel", "parallel_generation":
		return []string{tempoField}
	case "threshold":
		return []string{tempoThreshold, "attention_threshold"}
	case "final_threshold": // the settings' names of members of tempo
		return []string{"final"}
	case "bezier_p1":
		return []string{"p1"}
	case "bezier_p2":
		return []string{"p2"}
	case "relu_activation_point":
		return []string{"activation_point"}
	case "removal_window":
		return []string{"window"}
	case "prompt":
		return []string{"messages", "input"}
	case "messages":
		return []string{"prompt", "input"}
	case "input":
		return []string{"messages", "prompt"}
	default:
		return nil
	}
}
