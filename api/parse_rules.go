package api

import (
	"fmt"
	"strconv"
)

// combinations checks what only the whole body shows.
func (p *parser) combinations() {
	p.required()
	p.sameTokens()
	if p.req.URL == Embeddings {
		return
	}
	if p.bestOf != nil && *p.bestOf != p.req.N {
		p.fault("best_of", fmt.Sprintf("contradicts n (%d)", p.req.N), p.given("best_of"), "the same as n: all answers are returned")
	}
	if p.req.URL == ChatCompletions && p.req.TopLogprobs > 0 && !p.req.Logprobs {
		p.fault("top_logprobs", "needs logprobs", p.given("top_logprobs"), "0, or logprobs: true beside it")
	}
	if p.req.Echo && p.req.Logprobs {
		p.clash("echo", "logprobs", "false: the log probabilities of a prompt are not computed")
	}
	p.bounds()
	if p.req.Parallel != nil {
		p.besideParallel()
	}
}

// bounds checks what binds the answer's form: a grammar, a schema, tools.
func (p *parser) bounds() {
	if p.noTools {
		p.req.Tools = nil
	}
	r := &p.req
	switch {
	case r.Grammar != "" && r.Schema != nil:
		p.clash("grammar", "response_format", "one of the two")
	case r.Tools != nil && r.Schema != nil: // its JSON leaves no room for a call
		p.clash("tools", "response_format", "one of the two")
	}
	if r.IgnoreEOS && r.Grammar != "" {
		p.clash("ignore_eos", "grammar", "false: the grammar says where the answer ends")
	}
	if r.IgnoreEOS && r.Schema != nil {
		p.clash("ignore_eos", "response_format", "false: the schema says where the answer ends")
	}
	if r.Tools != nil && string(p.given("parallel_tool_calls")) == "false" {
		p.clash("parallel_tool_calls", "tools", "true: how many calls the model makes is not bounded")
	}
}

// required notes what must be there and is not.
func (p *parser) required() {
	name := accepted(p.req.URL)[0]
	if p.given(name) != nil {
		return
	}
	allowed := "a string that is not empty"
	switch name {
	case "messages":
		allowed = `a list of messages, such as [{"role":"user","content":"Hello"}]`
	case "input":
		allowed = "a string, or a list of strings"
	}
	p.fault(name, problemMissing, nil, allowed)
}

// sameTokens brings the two names of max_tokens together.
func (p *parser) sameTokens() {
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
