package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxTools is OpenAI's limit too.
const maxTools = 128

const allowedName = "1 to 64 letters (a-z, A-Z), digits, _ and -"

// tools reads the functions that the model may call.
func (p *parser) tools(raw json.RawMessage) {
	const path = "tools"
	if kind(raw) != "array" {
		p.fault(path, problemType, raw, `a list of {"type":"function","function":{"name":…,"parameters":…}}`)
		return
	}
	var all []json.RawMessage
	_ = json.Unmarshal(raw, &all) // a valid array
	switch {
	case len(all) == 0:
		return
	case len(all) > maxTools:
		p.fault(path, fmt.Sprintf("%d tools", len(all)), nil, fmt.Sprintf("up to %d", maxTools))
		return
	}
	var names []string
	for i, one := range all {
		name := p.tool(fmt.Sprintf("%s[%d]", path, i), one)
		if name != "" && slices.Contains(names, name) {
			p.fault(fmt.Sprintf("%s[%d].function.name", path, i), problemTwice, []byte(strconv.Quote(name)), "a name of its own for each tool")
		}
		names = append(names, name)
	}
	p.req.Tools = raw
}

// tool checks one tool and returns its name.
func (p *parser) tool(path string, raw json.RawMessage) (name string) {
	if kind(raw) != "object" {
		p.fault(path, problemType, raw, `{"type":"function","function":…}`)
		return ""
	}
	path += "."
	function := p.functionOf(path, raw, []string{"type", "function"}, nil)
	if function == nil {
		return ""
	}
	path += "function."
	named := false
	for _, f := range p.object(path, function) {
		at := path + f.Name
		switch f.Name {
		case "name":
			named = true
			name = p.functionName(at, f.Value)
		case "description":
			if !f.Null() && kind(f.Value) != "string" {
				p.fault(at, problemType, f.Value, "a string")
			}
		case "parameters":
			if !f.Null() && kind(f.Value) != "object" {
				p.fault(at, problemType, f.Value, "a JSON Schema, as an object")
			}
		case "strict": // what the model writes is not bound by parameters
			if !f.Null() && string(f.Value) != "false" {
				p.fault(at, problemUnsupported, f.Value, "false")
			}
		default:
			p.unknown(path, f.Name, []string{"name", "description", "parameters", "strict"})
		}
	}
	if !named {
		p.fault(path+"name", problemMissing, nil, allowedName)
	}
	return name
}

// functionOf takes an object of {"type":"function","function":{…}} apart and returns the
// function; nil if it has none. It reads other fields with other; known lists all. path ends in a dot.
func (p *parser) functionOf(path string, raw json.RawMessage, known []string, other func(Member) bool) (function json.RawMessage) {
	typed := false
	for _, f := range p.object(path, raw) {
		switch {
		case f.Name == "type":
			typed = true
			if string(f.Value) != `"function"` {
				p.oneOf(path+"type", f.Value, `"function"`)
				return nil // its other fields belong to that type
			}
		case f.Name == "function":
			if function = f.Value; kind(f.Value) != "object" {
				p.fault(path+"function", problemType, f.Value, `an object with "name"`)
			}
		case other == nil || !other(f):
			p.unknown(path, f.Name, known)
		}
	}
	if !typed {
		p.fault(path+"type", problemMissing, nil, `"function"`)
	}
	if function == nil {
		p.fault(path+"function", problemMissing, nil, `an object with "name"`)
	}
	if kind(function) != "object" {
		return nil
	}
	return function
}

// functionName reads a name as OpenAI allows it.
func (p *parser) functionName(path string, raw json.RawMessage) (name string) {
	if kind(raw) != "string" {
		p.fault(path, problemType, raw, allowedName)
		return ""
	}
	_ = json.Unmarshal(raw, &name) // a valid string
	if !plainName(name) {
		p.fault(path, "not a name", raw, allowedName)
		return ""
	}
	return name
}

// plainName reports whether name is what OpenAI lets functions and schemas be called.
func plainName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	return name != "" && len(name) <= 64 && strings.Trim(name, allowed) == ""
}

// toolChoice reads who decides whether tools are called: the model, or nobody.
func (p *parser) toolChoice(raw json.RawMessage) {
	const path, allowed = "tool_choice", `"auto", "none"`
	switch {
	case string(raw) == `"auto"`:
	case string(raw) == `"none"`:
		p.noTools = true
	case kind(raw) == "object": // names a function
		p.fault(path, problemUnsupported, raw, allowed)
	default:
		p.oneOf(path, raw, allowed)
	}
}

// toolCalls checks the calls of an assistant's message.
func (p *parser) toolCalls(path string, raw json.RawMessage) {
	if kind(raw) != "array" {
		p.fault(path, problemType, raw, `a list of {"id":…,"type":"function","function":{"name":…,"arguments":…}}`)
		return
	}
	var all []json.RawMessage
	_ = json.Unmarshal(raw, &all) // a valid array
	for i, one := range all {
		at := fmt.Sprintf("%s[%d]", path, i)
		if kind(one) != "object" {
			p.fault(at, problemType, one, `an object with "id", "type" and "function"`)
			continue
		}
		p.toolCall(at+".", one)
	}
}

// toolCall checks one call; path ends in a dot.
func (p *parser) toolCall(path string, raw json.RawMessage) {
	id := false
	function := p.functionOf(path, raw, []string{"id", "type", "function"}, func(m Member) bool {
		if m.Name != "id" {
			return false
		}
		id = true
		p.text(path+"id", m.Value, "a string that is not empty", new(string))
		return true
	})
	if !id {
		p.fault(path+"id", problemMissing, nil, "the id of the call, as a string")
	}
	if function == nil {
		return
	}
	path += "function."
	const arguments = "JSON in a string, or an object"
	var name, args bool
	for _, f := range p.object(path, function) {
		switch f.Name {
		case "name":
			name = true
			p.text(path+"name", f.Value, "a string that is not empty", new(string))
		case "arguments":
			args = true
			if k := kind(f.Value); k != "string" && k != "object" {
				p.fault(path+"arguments", problemType, f.Value, arguments)
			}
		default:
			p.unknown(path, f.Name, []string{"name", "arguments"})
		}
	}
	if !name {
		p.fault(path+"name", problemMissing, nil, "the function's name")
	}
	if !args {
		p.fault(path+"arguments", problemMissing, nil, arguments)
	}
}
