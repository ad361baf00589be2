package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// messages reads the turns of a chat.
func (p *parser) messages(raw json.RawMessage) {
	const allowed = "a list of at least one message"
	var all []json.RawMessage
	if kind(raw) != "array" || json.Unmarshal(raw, &all) != nil {
		p.fault("messages", problemType, raw, allowed)
		return
	}
	if len(all) == 0 {
		p.fault("messages", "empty", raw, allowed)
		return
	}
	p.req.Messages = make([]Message, len(all))
	for i, one := range all {
		path := fmt.Sprintf("messages[%d]", i)
		if kind(one) != "object" {
			p.fault(path, problemType, one, `an object with "role" and "content"`)
			continue
		}
		p.message(path+".", one, &p.req.Messages[i])
	}
}

// message reads one turn into m; path ends in a dot.
func (p *parser) message(path string, raw json.RawMessage, m *Message) {
	const roles = "system, developer, user, assistant"
	fields := p.object(path, raw)
	var role, content bool
	for _, f := range fields {
		switch f.Name {
		case "role":
			role = true
			p.role(path+"role", f.Value, roles, m)
		case "content":
			content = !f.Null()
			if content {
				p.content(path+"content", f.Value, m)
			}
		case "name":
			if !f.Null() {
				p.text(path+"name", f.Value, "a string that is not empty", &m.Name)
			}
		case "refusal", "tool_calls", "tool_call_id", "function_call", "audio":
			if !f.Null() && string(f.Value) != "[]" {
				p.fault(path+f.Name, problemLater, f.Value, "")
			}
		default:
			p.unknown(path, f.Name, []string{"role", "content", "name"})
		}
	}
	if !role {
		p.fault(path+"role", problemMissing, nil, roles)
	}
	if !content {
		p.fault(path+"content", problemMissing, nil, "a string")
	}
}

func (p *parser) role(path string, raw json.RawMessage, roles string, m *Message) {
	if kind(raw) != "string" {
		p.fault(path, problemType, raw, roles)
		return
	}
	_ = json.Unmarshal(raw, &m.Role) // a valid string
	switch m.Role {
	case "system", "developer", "user", "assistant":
	case "tool", "function":
		p.fault(path, problemLater, raw, roles)
	default:
		p.fault(path, "unknown role", raw, roles)
	}
}

// content reads a string, or a list of text parts, which are joined by a line
// break as llama.cpp's server and vLLM join them.
func (p *parser) content(path string, raw json.RawMessage, m *Message) {
	const allowed = `a string, or a list of {"type":"text","text":…}`
	var parts []json.RawMessage
	switch kind(raw) {
	case "string":
		_ = json.Unmarshal(raw, &m.Content) // a valid string
		return
	case "array":
		_ = json.Unmarshal(raw, &parts) // a valid array
	default:
		p.fault(path, problemType, raw, allowed)
		return
	}
	if len(parts) == 0 {
		p.fault(path, "empty", raw, allowed)
	}
	texts := make([]string, len(parts))
	for i, part := range parts {
		at := fmt.Sprintf("%s[%d]", path, i)
		if kind(part) != "object" {
			p.fault(at, problemType, part, `{"type":"text","text":…}`)
			continue
		}
		texts[i] = p.part(at+".", part)
	}
	m.Content = strings.Join(texts, "\n")
}

// part reads one part of a content; path ends in a dot.
func (p *parser) part(path string, raw json.RawMessage) (text string) {
	fields := p.object(path, raw)
	typ, given := "", false
	for _, f := range fields {
		if f.Name == "type" && kind(f.Value) == "string" {
			_ = json.Unmarshal(f.Value, &typ) // a valid string
		}
	}
	switch typ {
	case "text":
	case "":
		p.fault(path+"type", problemMissing, nil, `"text"`)
		return ""
	default: // its other fields belong to that type
		p.fault(path+"type", problemLater, []byte(strconv.Quote(typ)), `"text"`)
		return ""
	}
	for _, f := range fields {
		switch {
		case f.Name == "type":
		case f.Name != "text":
			p.unknown(path, f.Name, []string{"type", "text"})
		case kind(f.Value) != "string":
			given = true
			p.fault(path+"text", problemType, f.Value, "a string")
		default:
			given = true
			_ = json.Unmarshal(f.Value, &text) // a valid string
		}
	}
	if !given {
		p.fault(path+"text", problemMissing, nil, "a string")
	}
	return text
}

// object returns the members of a valid object and notes names given twice.
func (p *parser) object(path string, raw json.RawMessage) []Member {
	fields, err := members(path, raw)
	if err != nil {
		p.faults = append(p.faults, err)
	}
	return fields
}
