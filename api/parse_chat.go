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
		p.fault("messages", problemEmpty, raw, allowed)
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

// roles are those that a message can have.
const roles = "system, developer, user, assistant, tool"

// message reads one turn into m; path ends in a dot.
func (p *parser) message(path string, raw json.RawMessage, m *Message) {
	var role, content bool
	for _, f := range p.object(path, raw) {
		at := path + f.Name
		switch f.Name {
		case "role":
			role = true
			p.role(at, f.Value, m)
		case "content":
			if content = !f.Null(); content {
				p.content(at, f.Value, m)
			}
		case "name", "tool_call_id":
			into := &m.Name
			if f.Name == "tool_call_id" {
				into = &m.ToolCallID
			}
			if !f.Null() {
				p.text(at, f.Value, "a string that is not empty", into)
			}
		case "tool_calls":
			if !f.Null() && string(f.Value) != "[]" {
				m.ToolCalls = f.Value
				p.toolCalls(at, f.Value)
			}
		case "refusal", "annotations", "function_call", "audio": // OpenAI's answers have them, empty
			if !f.Null() && string(f.Value) != "[]" {
				p.fault(at, problemUnsupported, f.Value, "")
			}
		default:
			p.unknown(path, f.Name, []string{"role", "content", "name", "tool_calls", "tool_call_id"})
		}
	}
	if !role {
		p.fault(path+"role", problemMissing, nil, roles)
	}
	if !content && m.ToolCalls == nil {
		p.fault(path+"content", problemMissing, nil, "a string")
	}
	p.ofRole(path, m)
}

// ofRole checks the fields that belong to one role.
func (p *parser) ofRole(path string, m *Message) {
	switch {
	case m.Role == "":
	case m.Role != "assistant" && m.ToolCalls != nil:
		p.fault(path+"tool_calls", fmt.Sprintf("cannot stand beside role (%q)", m.Role), m.ToolCalls, "only with the role assistant")
	case m.Role != "tool" && m.ToolCallID != "":
		p.fault(path+"tool_call_id", fmt.Sprintf("cannot stand beside role (%q)", m.Role),
			[]byte(strconv.Quote(m.ToolCallID)), "only with the role tool")
	case m.Role == "tool" && m.ToolCallID == "":
		p.fault(path+"tool_call_id", problemMissing, nil, "the id of the call that the message answers")
	}
}

func (p *parser) role(path string, raw json.RawMessage, m *Message) {
	if kind(raw) != "string" {
		p.fault(path, problemType, raw, roles)
		return
	}
	var role string
	_ = json.Unmarshal(raw, &role) // a valid string
	switch role {
	case "system", "developer", "user", "assistant", "tool":
		m.Role = role
	case "function":
		p.fault(path, problemUnsupported, raw, roles)
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
		p.fault(path, problemEmpty, raw, allowed)
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
		p.fault(path+"type", problemUnsupported, []byte(strconv.Quote(typ)), `"text"`)
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
