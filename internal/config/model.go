package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"tempo/internal/hub"
)

// Model is a model that a worker serves.
type Model struct {
	Name   string // that jobs ask for, unique among the models of a worker
	Source string // path of a GGUF file, or hf://ORG/REPO/FILE.gguf[@REVISION]
}

// Models are the models in the order in which they were given; none = that of the
// cache is to be taken.
func (e Engine) Models() []Model {
	list := make([]Model, len(e.Model))
	for i, text := range e.Model {
		list[i] = ParseModel(text)
	}
	return list
}

// ParseModel reads [NAME=]SOURCE. Without a name it is that of the file, less
// ".gguf", the number of the part and the quantisation. A text is SOURCE as a whole
// if it begins with / or . or hf://, or if what stands before its first = has a /,
// unless the rest begins with / or hf://. What is missing is left empty.
func ParseModel(text string) Model {
	if name, source, ok := strings.Cut(text, "="); ok && isName(name, source) {
		return Model{Name: name, Source: source}
	}
	if text == "" {
		return Model{}
	}
	stem := strings.TrimSuffix(filepath.Base(withoutRevision(text)), ggufEnding)
	stem = partNumber.ReplaceAllString(stem, "")
	return Model{Name: quantisation.ReplaceAllString(stem, ""), Source: text}
}

const ggufEnding = ".gguf"

var (
	// quantisation is how files of one model in several quantisations are told
	// apart: "SmolLM2-135M-Instruct.Q4_1.gguf", "qwen2.5-7b-instruct-q4_k_m.gguf".
	quantisation = regexp.MustCompile(`(?i)[.-](I?Q[0-9]\w*|TQ[0-9]\w*|B?F16|F32|MXFP4\w*)$`)
	// partNumber is how the files of one model in several are told apart.
	partNumber = regexp.MustCompile(`-[0-9]{5}-of-[0-9]{5}$`)
)

// isName reports whether what stands before the first = of a model is its name, and
// not a part of the path.
func isName(name, source string) bool {
	if hub.Is(name) || strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") {
		return false
	}
	return !strings.ContainsAny(name, `/\`) || strings.HasPrefix(source, "/") || hub.Is(source)
}

// withoutRevision is the address of a file on a hub without its revision, which may
// have a / too.
func withoutRevision(source string) string {
	if r, err := hub.Parse(source); err == nil {
		return r.File
	}
	return source
}

// maxName is the longest name of a model in bytes. The queue makes it a part of a
// subject, in which a byte can take three.
const maxName = 200

// validateModels checks each model, and that no two have one name.
func (c *Config) validateModels(v *validator) {
	first := map[string]string{} // the text that gave a name first
	for _, text := range c.Engine.Model {
		m := ParseModel(text)
		if allowed := allowedModel(m); allowed != "" {
			v.check("model", text, false, allowed)
			continue
		}
		if other, ok := first[m.Name]; ok {
			v.faults = append(v.faults, &ModelNameError{Name: m.Name, Models: [2]string{other, text}, Source: v.sources["model"].name})
			continue
		}
		first[m.Name] = text
	}
}

// allowedModel is what a model's text may be, if it is not; "" = it is.
func allowedModel(m Model) string {
	const form = "PATH, NAME=PATH, hf://ORG/REPO/FILE.gguf[@REVISION] or NAME=hf://…"
	if m.Source == "" {
		return form
	}
	if m.Name == "" || len(m.Name) > maxName || !utf8.ValidString(m.Name) || strings.TrimSpace(m.Name) != m.Name ||
		strings.ContainsFunc(m.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%s, where NAME (here %q) has 1 to %d bytes, all printable, and no blank at its ends", form, m.Name, maxName)
	}
	if strings.ContainsFunc(m.Source, unicode.IsControl) {
		return form + ", without control characters"
	}
	if !hub.Is(m.Source) {
		return ""
	}
	_, err := hub.Parse(m.Source)
	if fault, ok := errors.AsType[*hub.AddressError](err); ok {
		return form + ": " + fault.Fault
	}
	return ""
}

// splitList takes the value of a variable apart that gives several: by commas and
// line breaks. A comma that is part of a value is written as \, there.
func splitList(text string) []string {
	const escaped = "\x00"
	var list []string
	for _, value := range strings.FieldsFunc(strings.ReplaceAll(text, `\,`, escaped), func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if value = strings.TrimSpace(strings.ReplaceAll(value, escaped, ",")); value != "" {
			list = append(list, value)
		}
	}
	return list
}
