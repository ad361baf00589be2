package api

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

const (
	maxN           = 128                // answers to one prompt
	maxTopLogprobs = 20                 // beside each generated token
	maxInputs      = 2048               // texts of an embedding job
	maxTimeout     = 7 * 24 * time.Hour // results are not kept longer either
)

// read takes the value of an accepted field that is not null.
func (p *parser) read(name string, raw json.RawMessage) {
	switch name {
	case "messages":
		p.messages(raw)
	case "tools":
		p.tools(raw)
	case "tool_choice":
		p.toolChoice(raw)
	case "parallel_tool_calls":
		p.boolean(name, raw, new(bool)) // true is what happens; see combinations for false
	case "prompt":
		p.text(name, raw, "a string that is not empty (one prompt a line)", &p.req.Prompt)
	case "echo":
		p.boolean(name, raw, &p.req.Echo)
	case "input":
		p.inputs(raw)
	case "encoding_format":
		p.encodingFormat(raw)
	case "model":
		p.text(name, raw, "the name of a model, as a string", &p.req.Model)
	case "reproducible":
		p.boolean(name, raw, &p.req.Reproducible)
	case tempoField:
		p.parallel(raw)
	case "timeout":
		p.timeout(raw)
	case "user": // user and metadata do not change the answer
		if kind(raw) != "string" {
			p.fault(name, problemType, raw, "a string")
		}
	case "metadata":
		if kind(raw) != "object" {
			p.fault(name, problemType, raw, "an object")
		}
	default:
		if !p.sampling(name, raw) {
			p.output(name, raw)
		}
	}
}

// sampling reads what chooses tokens, and reports whether name is such a field.
func (p *parser) sampling(name string, raw json.RawMessage) bool {
	s := &p.req.Sampling
	const penalty = "a number from -2 to 2"
	switch name {
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
	case "presence_penalty":
		p.number(name, raw, -2, 2, penalty, &s.PresencePenalty)
	case "frequency_penalty":
		p.number(name, raw, -2, 2, penalty, &s.FrequencyPenalty)
	case "repeat_penalty":
		p.number(name, raw, math.SmallestNonzeroFloat64, math.MaxFloat32, "a number over 0 (1 = off)", &s.RepeatPenalty)
	case "logit_bias":
		p.logitBias(raw)
	default:
		return false
	}
	return true
}

// output reads what bounds and forms the answer.
func (p *parser) output(name string, raw json.RawMessage) {
	switch name {
	case "max_tokens":
		p.maxTokens = p.tokens(name, raw)
	case "max_completion_tokens":
		p.maxCompletionTokens = p.tokens(name, raw)
	case "stop":
		p.stop(raw)
	case "ignore_eos":
		p.boolean(name, raw, &p.req.IgnoreEOS)
	case "n":
		if n, ok := p.integer(name, raw, 1, maxN, fmt.Sprintf("an integer from 1 to %d", maxN)); ok {
			p.req.N = int(n)
		}
	case "best_of":
		if n, ok := p.integer(name, raw, 1, maxN, "the same as n"); ok {
			best := int(n)
			p.bestOf = &best
		}
	case "logprobs":
		p.logprobs(raw)
	case "top_logprobs":
		p.topLogprobs(name, raw, "")
	case "response_format":
		p.responseFormat(raw)
	case "grammar":
		if kind(raw) != "string" {
			p.fault(name, problemType, raw, "a grammar in GBNF, as a string")
			return
		}
		_ = json.Unmarshal(raw, &p.req.Grammar) // a valid string; an empty one is none
	}
}

// logprobs reads OpenAI's two forms: a bool in chats, a count in completions, where 0
// still asks for the chosen token's.
func (p *parser) logprobs(raw json.RawMessage) {
	if p.req.URL == ChatCompletions {
		p.boolean("logprobs", raw, &p.req.Logprobs)
		return
	}
	p.req.Logprobs = p.topLogprobs("logprobs", raw, " (0 = the generated tokens alone; without the field: none)")
}

func (p *parser) topLogprobs(name string, raw json.RawMessage, more string) bool {
	n, ok := p.integer(name, raw, 0, maxTopLogprobs, fmt.Sprintf("an integer from 0 to %d%s", maxTopLogprobs, more))
	p.req.TopLogprobs = int(n)
	return ok
}

// timeout reads seconds.
func (p *parser) timeout(raw json.RawMessage) {
	var seconds float64
	p.number("timeout", raw, math.SmallestNonzeroFloat64, maxTimeout.Seconds(),
		fmt.Sprintf("seconds, as a number over 0, up to %.0f", maxTimeout.Seconds()), &seconds)
	if seconds > 0 {
		p.req.Timeout = max(1, time.Duration(seconds*float64(time.Second))) // 0 would be none
	}
}

// inputs reads the texts of an embedding job: one string or a list of them.
func (p *parser) inputs(raw json.RawMessage) {
	allowed := fmt.Sprintf("a string, or a list of 1 to %d strings, none empty", maxInputs)
	var list []json.RawMessage
	switch kind(raw) {
	case "string":
		p.req.Input = make([]string, 1)
		p.text("input", raw, allowed, &p.req.Input[0])
		return
	case "array":
		_ = json.Unmarshal(raw, &list) // a valid array
	default:
		p.fault("input", problemType, raw, allowed)
		return
	}
	if len(list) == 0 || len(list) > maxInputs {
		p.fault("input", fmt.Sprintf("%d texts", len(list)), nil, allowed)
		return
	}
	p.req.Input = make([]string, len(list))
	for i, one := range list {
		path := fmt.Sprintf("input[%d]", i)
		if k := kind(one); k == "number" || k == "array" {
			p.fault(path, "token ids are "+problemUnsupported, one, "a string")
			return // all of them are
		}
		p.text(path, one, "a string that is not empty", &p.req.Input[i])
	}
}

func (p *parser) encodingFormat(raw json.RawMessage) {
	switch string(raw) {
	case `"float"`:
	case `"base64"`:
		p.req.Base64 = true
	default:
		p.oneOf("encoding_format", raw, `"float", "base64"`)
	}
}
