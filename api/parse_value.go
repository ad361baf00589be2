package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// stop reads one stop string or up to four.
func (p *parser) stop(raw json.RawMessage) {
	const allowed = "a string or a list of up to 4 strings, none empty"
	var one string
	var list []string
	switch kind(raw) {
	case "string":
		_ = json.Unmarshal(raw, &one) // a valid string
		list = []string{one}
	case "array":
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items) // a valid array
		for i, item := range items {
			if kind(item) != "string" {
				p.fault(fmt.Sprintf("stop[%d]", i), problemType, item, "a string")
				return
			}
		}
		_ = json.Unmarshal(raw, &list) // an array of strings
	default:
		p.fault("stop", problemType, raw, allowed)
		return
	}
	if len(list) > 4 || slices.Contains(list, "") {
		p.fault("stop", problemRange, raw, allowed)
		return
	}
	p.req.Stop = list
}

// topK reads top_k; vLLM's -1 stands for off as 0 does.
func (p *parser) topK(path string, raw json.RawMessage) {
	if n, ok := p.integer(path, raw, -1, math.MaxInt32, "an integer of 1 or more, or 0 (off)"); ok {
		p.req.Sampling.TopK = max(0, int(n))
	}
}

func (p *parser) tokens(path string, raw json.RawMessage) *int {
	n, ok := p.integer(path, raw, 1, math.MaxInt32,
		fmt.Sprintf("an integer from 1 to %d (without the field: as many as the context allows)", math.MaxInt32))
	if !ok {
		return nil
	}
	tokens := int(n)
	return &tokens
}

func (p *parser) integer(path string, raw json.RawMessage, low, high int64, allowed string) (int64, bool) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	switch {
	case kind(raw) != "number" || errors.Is(err, strconv.ErrSyntax): // 1.5 and 1e3 are numbers, but not integers
		p.fault(path, problemType, raw, allowed)
		return 0, false
	case err != nil || n < low || n > high:
		p.fault(path, problemRange, raw, allowed)
		return 0, false
	}
	return n, true
}

func (p *parser) number(path string, raw json.RawMessage, low, high float64, allowed string, into *float64) {
	if kind(raw) != "number" {
		p.fault(path, problemType, raw, allowed)
		return
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f < low || f > high { // the error is a number too large for a float64
		p.fault(path, problemRange, raw, allowed)
		return
	}
	*into = f
}

// text reads a string that is not empty.
func (p *parser) text(path string, raw json.RawMessage, allowed string, into *string) {
	if kind(raw) != "string" {
		p.fault(path, problemType, raw, allowed)
		return
	}
	_ = json.Unmarshal(raw, into) // a valid string
	if *into == "" {
		p.fault(path, problemEmpty, nil, allowed)
	}
}

func (p *parser) boolean(path string, raw json.RawMessage, into *bool) {
	if kind(raw) != "bool" {
		p.fault(path, problemType, raw, "true or false")
		return
	}
	*into = string(raw) == "true"
}

// oneOf notes a value that should be a string of those allowed.
func (p *parser) oneOf(path string, raw json.RawMessage, allowed string) {
	problem := problemUnsupported
	if kind(raw) != "string" {
		problem = problemType
	}
	p.fault(path, problem, raw, allowed)
}

// neutral refuses every value of a field that would change the answer.
func (p *parser) neutral(path string, raw json.RawMessage, values []string) {
	var compact bytes.Buffer
	_ = json.Compact(&compact, raw) // valid JSON
	if !slices.Contains(values, compact.String()) {
		p.fault(path, problemUnsupported, raw, strings.Join(values, ", "))
	}
}
