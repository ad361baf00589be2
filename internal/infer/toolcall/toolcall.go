package toolcall

import (
	"encoding/json"
	"slices"
	"strings"
)

// Call is a call of one of the request's tools.
type Call struct {
	Name      string
	Arguments string // a JSON object, as the model wrote it
}

// Names returns the names of a request's tools, a list in OpenAI's form that has been
// checked.
func Names(tools json.RawMessage) []string {
	var list []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(tools, &list) != nil {
		return nil // there are none
	}
	names := make([]string, len(list))
	for i, tool := range list {
		names[i] = tool.Function.Name
	}
	return names
}

// Find returns the calls in text, in their order, and what stands beside them. If
// there are none, or one that is broken or of a tool that is not in names, it returns
// the whole text and no calls.
func Find(text string, names []string) (rest string, calls []Call) {
	if len(names) == 0 {
		return text, nil
	}
	for _, form := range []func(string) (string, []Call, bool){hermes, mistral, bare} {
		rest, calls, ok := form(text)
		if !ok {
			continue
		}
		unknown := slices.ContainsFunc(calls, func(c Call) bool { return !slices.Contains(names, c.Name) })
		if len(calls) == 0 || unknown {
			break
		}
		return strings.TrimSpace(rest), calls
	}
	return text, nil
}

// hermes reads calls between marks, with text around them. The last closing mark may
// be missing: some models end their answer with the call.
func hermes(text string) (rest string, calls []Call, ok bool) {
	const open, end = "<tool_call>", "</tool_call>"
	rest, text, ok = strings.Cut(text, open)
	if !ok {
		return "", nil, false
	}
	for {
		call, after, ok := readCall(text)
		if !ok {
			return "", nil, false
		}
		calls = append(calls, call)
		after, closed := strings.CutPrefix(strings.TrimSpace(after), end)
		if !closed && after != "" {
			return "", nil, false
		}
		between, next, more := strings.Cut(after, open)
		rest += between
		if !more {
			return rest, calls, true
		}
		text = next
	}
}

// mistral reads what follows Mistral's mark: a list of calls, or a name with arguments
// for each mark.
func mistral(text string) (rest string, calls []Call, ok bool) {
	const mark = "[TOOL_CALLS]"
	rest, text, ok = strings.Cut(text, mark)
	if !ok {
		return "", nil, false
	}
	if list, ok := readList(text); ok {
		return rest, list, true
	}
	for one := range strings.SplitSeq(text, mark) {
		name, args, ok := strings.Cut(one, "[ARGS]")
		if !ok {
			return "", nil, false
		}
		raw, after, ok := readValue(args)
		arguments, isObject := object(raw)
		if !ok || !isObject || strings.TrimSpace(after) != "" {
			return "", nil, false
		}
		calls = append(calls, Call{Name: strings.TrimSpace(name), Arguments: arguments})
	}
	return rest, calls, true
}

// bare reads an answer that is calls and nothing else: a list, or one call after the
// other, as Llama 3 writes them.
func bare(text string) (rest string, calls []Call, ok bool) {
	text = strings.TrimPrefix(strings.TrimSpace(text), "<|python_tag|>")
	if list, ok := readList(text); ok {
		return "", list, true
	}
	for {
		call, after, ok := readCall(text)
		if !ok {
			return "", nil, false
		}
		calls = append(calls, call)
		text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(after), ";"))
		if text == "" {
			return "", calls, true
		}
	}
}

// readList reads a text that is a list of calls and nothing else.
func readList(text string) (calls []Call, ok bool) {
	var list []json.RawMessage
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil, false
	}
	for _, raw := range list {
		call, ok := callOf(raw)
		if !ok {
			return nil, false
		}
		calls = append(calls, call)
	}
	return calls, true
}

// readCall reads the call that text begins with.
func readCall(text string) (call Call, after string, ok bool) {
	raw, after, ok := readValue(text)
	if !ok {
		return Call{}, "", false
	}
	call, ok = callOf(raw)
	return call, after, ok
}

// readValue reads the JSON value that text begins with.
func readValue(text string) (raw json.RawMessage, after string, ok bool) {
	dec := json.NewDecoder(strings.NewReader(text))
	if dec.Decode(&raw) != nil {
		return nil, "", false
	}
	return raw, text[dec.InputOffset():], true
}

// callOf reads a call as an object. What has neither arguments nor parameters is
// something else that has a name.
func callOf(raw json.RawMessage) (Call, bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return Call{}, false
	}
	var call Call
	if json.Unmarshal(fields["name"], &call.Name) != nil || call.Name == "" {
		return Call{}, false
	}
	arguments, given := fields["arguments"]
	if !given {
		arguments, given = fields["parameters"]
	}
	var ok bool
	call.Arguments, ok = object(arguments)
	return call, given && ok
}

// object returns arguments as the text of a JSON object: an object, one in a string,
// or null for none.
func object(raw json.RawMessage) (string, bool) {
	var text string
	if json.Unmarshal(raw, &text) != nil { // not a string, and not null
		text = string(raw)
	} else if text == "" {
		return "{}", true
	}
	var any map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &any) != nil || any == nil {
		return "", false
	}
	return strings.TrimSpace(text), true
}
