package api

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// responseFormat reads what the answer must look like.
func (p *parser) responseFormat(raw json.RawMessage) {
	const path = "response_format"
	const types = `"text", "json_object", "json_schema"`
	if kind(raw) != "object" {
		p.fault(path, problemType, raw, `an object with "type": `+types)
		return
	}
	fields := p.object(path+".", raw)
	var typ, schema json.RawMessage
	for _, f := range fields {
		switch f.Name {
		case "type":
			typ = f.Value
		case "json_schema":
			schema = f.Value
		default:
			p.unknown(path+".", f.Name, []string{"type", "json_schema"})
		}
	}
	switch string(typ) {
	case `"text"`:
	case `"json_object"`:
		p.req.Schema = json.RawMessage(`{}`)
	case `"json_schema"`:
		p.jsonSchema(path+".json_schema", schema)
		return
	case "":
		p.fault(path+".type", problemMissing, nil, types)
	default:
		p.oneOf(path+".type", typ, types)
	}
	if schema != nil {
		p.fault(path+".json_schema", fmt.Sprintf("cannot stand beside type (%s)", show(typ)), schema, `only with the type "json_schema"`)
	}
}

// jsonSchema reads OpenAI's schema with its name.
func (p *parser) jsonSchema(path string, raw json.RawMessage) {
	const allowed = `{"name":…,"schema":{…}}`
	if raw == nil {
		p.fault(path, problemMissing, nil, allowed)
		return
	}
	if kind(raw) != "object" {
		p.fault(path, problemType, raw, allowed)
		return
	}
	path += "."
	named := false
	for _, f := range p.object(path, raw) {
		at := path + f.Name
		switch f.Name {
		case "name":
			named = true
			p.functionName(at, f.Value)
		case "schema":
			if kind(f.Value) != "object" {
				p.fault(at, problemType, f.Value, "a JSON Schema, as an object")
			}
			p.req.Schema = f.Value
		case "strict": // the schema binds the answer either way
			if !f.Null() {
				p.boolean(at, f.Value, new(bool))
			}
		case "description":
			if !f.Null() && kind(f.Value) != "string" {
				p.fault(at, problemType, f.Value, "a string")
			}
		default:
			p.unknown(path, f.Name, []string{"name", "schema", "strict", "description"})
		}
	}
	if !named {
		p.fault(path+"name", problemMissing, nil, allowedName)
	}
	if p.req.Schema == nil {
		p.fault(path+"schema", problemMissing, nil, "a JSON Schema, as an object")
	}
}

// maxBiases bounds logit_bias.
const maxBiases = 1024

// logitBias reads OpenAI's object of token ids, or llama.cpp's list of pairs, where
// false bans a token.
func (p *parser) logitBias(raw json.RawMessage) {
	const allowed = `an object of token ids, such as {"50256":-100}`
	var pairs []Member
	switch kind(raw) {
	case "object":
		pairs = p.object("logit_bias.", raw)
	case "array":
		pairs = p.biasPairs(raw)
	default:
		p.fault("logit_bias", problemType, raw, allowed)
		return
	}
	if len(pairs) > maxBiases {
		p.fault("logit_bias", fmt.Sprintf("%d tokens", len(pairs)), nil, fmt.Sprintf("up to %d", maxBiases))
		return
	}
	if len(pairs) == 0 {
		return
	}
	p.req.Sampling.LogitBias = make(map[int32]float64, len(pairs))
	for _, m := range pairs {
		path := "logit_bias." + m.Name
		id, err := strconv.ParseInt(m.Name, 10, 32)
		if err != nil || id < 0 || strconv.FormatInt(id, 10) != m.Name { // 007 would be 7 given twice
			p.fault(path, "not a token id", nil, fmt.Sprintf("an integer from 0 to %d as the name", math.MaxInt32))
			continue
		}
		var bias float64
		p.number(path, m.Value, -100, 100, "a number from -100 (never) to 100", &bias)
		p.req.Sampling.LogitBias[int32(id)] = bias
	}
}

// biasPairs makes members of a list of [token id, bias].
func (p *parser) biasPairs(raw json.RawMessage) []Member {
	var list []json.RawMessage
	_ = json.Unmarshal(raw, &list) // a valid array
	all := make([]Member, 0, len(list))
	seen := make(map[string]bool, len(list))
	for i, one := range list {
		var pair []json.RawMessage
		path := fmt.Sprintf("logit_bias[%d]", i)
		if kind(one) != "array" || json.Unmarshal(one, &pair) != nil || len(pair) != 2 || kind(pair[0]) != "number" {
			p.fault(path, problemType, one, "a pair of a token id and a number or false")
			continue
		}
		m := Member{Name: string(pair[0]), Value: pair[1]}
		if string(m.Value) == "false" {
			m.Value = json.RawMessage("-100")
		}
		if seen[m.Name] {
			p.fault(path, problemTwice, pair[0], "each token once")
			continue
		}
		seen[m.Name] = true
		all = append(all, m)
	}
	return all
}
