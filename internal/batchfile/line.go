package batchfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"tempo/api"
)

const urls = api.ChatCompletions + ", " + api.Completions + ", " + api.Embeddings

// parse makes a job's line of the text of a line that is not blank.
func (r *Reader) parse(raw []byte) (Line, error) {
	members, err := api.Members(raw)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return Line{}, r.syntaxError(raw, syntax)
	case members == nil && err != nil:
		faults := api.FieldErrors(err)
		return Line{}, r.wholeLine(faults[0].Problem+", allowed: "+faults[0].Allowed, "write one request a line: "+bothForms)
	}
	l := parsed{faults: api.FieldErrors(err), line: Line{Number: r.number}, bounds: &r.bounds}
	if has(members, "prompt") && !has(members, "body") && !has(members, "url") {
		l.short(members)
	} else {
		l.full(members)
	}
	if l.line.CustomID != "" {
		if first := r.remember(l.line.CustomID); first != 0 {
			l.fault("custom_id", fmt.Sprintf("already used in line %d", first), l.line.CustomID, "an id of its own for each line")
		}
	}
	l.check(r.opts)
	if len(l.faults) > 0 {
		return Line{}, newLineError(r.name, l.line, l.faults)
	}
	return l.line, nil
}

// Prompt makes a batch of one line of a text, as --prompt gives it. Its
// custom_id is "prompt". The error is a *LineError.
func Prompt(text string, opts Options) (Line, error) {
	const name = "prompt"
	l := parsed{bounds: new(bounds), prompt: true}
	l.short([]api.Member{{Name: name, Value: encode(text)}})
	l.line.CustomID = name
	l.check(opts)
	if len(l.faults) > 0 {
		return Line{}, newLineError("--"+name, l.line, l.faults)
	}
	return l.line, nil
}

// parsed is a line on its way from JSON to Line.
type parsed struct {
	line   Line
	prefix string       // of the body's fields in messages: "body." in OpenAI's form
	body   []api.Member // nil = there is none to check
	added  []string     // fields of the body that are from Options
	prompt bool         // it is no line of a file: all is from flags
	faults []*api.FieldError
	bounds *bounds
}

// full reads OpenAI's form.
func (l *parsed) full(members []api.Member) {
	known := []string{"custom_id", "method", "url", "body"}
	l.prefix = "body."
	for _, m := range members {
		switch m.Name {
		case "custom_id":
			l.line.CustomID = l.text(m, "a string that is not empty")
		case "method":
			if method := l.text(m, `"POST"`); method != "" && method != "POST" {
				l.fault("method", "unknown method", method, `"POST"`)
			}
		case "url":
			l.line.URL = l.text(m, urls)
		case "body":
			l.object(m)
		default:
			// A line in which prompt is misspelt looks like this form.
			suggestion := api.Nearest(m.Name, append(known, "prompt"))
			if slices.Contains([]string{"prompt", "messages", "input", "model", "max_tokens", "temperature"}, m.Name) {
				suggestion = "body." + m.Name // where it belongs in this form
			}
			l.unknown(m.Name, suggestion)
		}
	}
	l.require(members, "custom_id", "a string that no other line has")
	l.require(members, "url", urls)
	l.require(members, "body", "an object, the request")
}

// short reads the short form into a chat request.
func (l *parsed) short(members []api.Member) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var messages []message
	l.line.URL = api.ChatCompletions
	l.line.CustomID = fmt.Sprintf("line-%d", l.line.Number)
	for _, m := range members {
		switch m.Name {
		case "prompt":
			messages = append(messages, message{"user", l.text(m, "a string that is not empty")})
		case "system":
			if !m.Null() {
				messages = slices.Insert(messages, 0, message{"system", l.text(m, "a string that is not empty")})
			}
		case "custom_id":
			l.line.CustomID = l.text(m, "a string that is not empty")
		case "messages", "method":
			l.fault(m.Name, "cannot stand beside prompt", "", "")
		default:
			l.body = append(l.body, m)
		}
	}
	l.body = append(l.body, api.Member{Name: "messages", Value: encode(messages)})
}

// object takes the body of OpenAI's form apart.
func (l *parsed) object(m api.Member) {
	body, err := api.Members(m.Value)
	if body == nil && err != nil {
		l.faults = append(l.faults, api.FieldErrors(err)...)
		return
	}
	l.addFaults(err)
	l.body = body
}

// check completes the body from the options and has it checked.
func (l *parsed) check(opts Options) {
	if l.body == nil || l.line.URL == "" {
		return
	}
	l.complete(opts)
	l.line.Body = join(l.body)
	req, err := api.ParseRequest(l.line.URL, l.line.Body)
	if err != nil {
		l.nameFlags(api.FieldErrors(err), opts)
		l.addFaults(err)
		return
	}
	if f := l.bounds.check(req); f != nil {
		f.Field = l.prefix + f.Field
		l.faults = append(l.faults, f)
	}
	l.line.Model = req.Model
	switch {
	case req.Model == "" && l.prompt:
		l.fault("--model", "missing", "", "the name of a model that a worker serves")
	case req.Model == "":
		l.fault(l.prefix+"model", "missing", "", "the name of a model, here or with --model for all lines")
	}
}

// complete adds to the body what it leaves open and the options give. What is about
// generated tokens is not for embeddings.
func (l *parsed) complete(opts Options) {
	set := func(name string, value any) {
		l.body = replace(l.body, api.Member{Name: name, Value: encode(value)})
		l.added = append(l.added, name)
	}
	if opts.DefaultModel != "" && !given(l.body, "model") {
		set("model", opts.DefaultModel)
	}
	if l.line.URL == api.Embeddings {
		return
	}
	if opts.Reproducible && !given(l.body, "reproducible") {
		set("reproducible", true)
	}
	if opts.MaxTokens > 0 && !given(l.body, maxTokens) && !given(l.body, "max_completion_tokens") {
		set(maxTokens, opts.MaxTokens)
	}
	if opts.Seed != nil && !given(l.body, "seed") {
		set("seed", *opts.Seed)
	}
	if opts.Temperature != nil && !given(l.body, "temperature") {
		set("temperature", *opts.Temperature)
	}
	if opts.Parallel != nil {
		l.addParallel(opts.Parallel)
	}
}

// replace puts m in the place of a member that was not there, or null.
func replace(members []api.Member, m api.Member) []api.Member {
	return append(slices.DeleteFunc(members, func(old api.Member) bool { return old.Name == m.Name }), m)
}

// text returns the value of a field that must be a string and not empty; "" if
// it is not.
func (l *parsed) text(m api.Member, allowed string) string {
	var s string
	if m.Value[0] != '"' || json.Unmarshal(m.Value, &s) != nil {
		l.faults = append(l.faults, &api.FieldError{Field: m.Name, Problem: "wrong type", Value: brief(m.Value), Allowed: allowed})
		return ""
	}
	if s == "" {
		l.fault(m.Name, "empty", "", allowed)
	}
	return s
}

// addFaults notes what ParseRequest found, with the fields as they are called
// in the line.
func (l *parsed) addFaults(err error) {
	for _, f := range api.FieldErrors(err) {
		if f.Field != "url" {
			f.Field = l.prefix + f.Field
		}
		switch {
		case f.Suggestion != "":
			f.Suggestion = l.prefix + f.Suggestion
		case l.prefix == "": // the short form has two fields more
			f.Suggestion = api.Nearest(f.Field, []string{"custom_id", "system"})
		}
		l.faults = append(l.faults, f)
	}
}

// require notes that a field of OpenAI's form is missing.
func (l *parsed) require(members []api.Member, name, allowed string) {
	if !has(members, name) {
		l.fault(name, "missing", "", allowed)
	}
}

func (l *parsed) unknown(name, suggestion string) {
	l.faults = append(l.faults, &api.FieldError{Field: name, Problem: "unknown field", Suggestion: suggestion})
}

// fault notes a fault; value is a text as the user meant it, without quotes.
func (l *parsed) fault(field, problem, value, allowed string) {
	f := &api.FieldError{Field: field, Problem: problem, Allowed: allowed}
	if value != "" {
		f.Value = brief(encode(value))
	}
	l.faults = append(l.faults, f)
}

func has(members []api.Member, name string) bool {
	return slices.ContainsFunc(members, func(m api.Member) bool { return m.Name == name })
}

func given(members []api.Member, name string) bool {
	return slices.ContainsFunc(members, func(m api.Member) bool { return m.Name == name && !m.Null() })
}

// join is the object with these members, in their order.
func join(members []api.Member) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encode(m.Name))
		b.WriteByte(':')
		b.Write(m.Value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// encode writes strings, numbers and messages, none of which can fail, with <,
// > and & as they are.
func encode(value any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// brief shortens a value for a message.
func brief(raw []byte) string {
	const limit = 60
	runes := []rune(string(raw[:min(len(raw), 4*limit)]))
	if len(runes) <= limit {
		return string(runes)
	}
	return string(runes[:limit]) + "…"
}
