package config

import (
	"fmt"
	"strconv"
)

// ValueError is a setting of the wrong type or out of range.
type ValueError struct {
	Key     string
	Value   string // as given
	Allowed string
	Source  string // such as "flag --max-memory-gb"; "" if it is the default
}

// Error names the setting, the value, where it came from and what is allowed.
func (e *ValueError) Error() string {
	from := ""
	if e.Source != "" {
		from = " (from " + e.Source + ")"
	}
	return fmt.Sprintf("%s: got %s%s, allowed: %s", e.Key, e.Value, from, e.Allowed)
}

// Hint says what to change.
func (e *ValueError) Hint() string {
	if e.Source == "" {
		return fmt.Sprintf("set %s to %s", e.Key, e.Allowed)
	}
	return fmt.Sprintf("in %s give %s", e.Source, e.Allowed)
}

// ClashError is a setting that another one rules out, or that has no effect without
// another one.
type ClashError struct {
	Key    string
	Source string // such as "flag --isolate"; "" if it is not known
	Fault  string // "beside …" or "without …", with the other setting
	Advice string
}

func (e *ClashError) Error() string {
	from := ""
	if e.Source != "" {
		from = " (from " + e.Source + ")"
	}
	return fmt.Sprintf("%s: given%s %s", e.Key, from, e.Fault)
}

// Hint says what to change.
func (e *ClashError) Hint() string { return e.Advice }

// UnknownKeyError is a key of the file or a TEMPO_* variable that does not
// exist.
type UnknownKeyError struct {
	Key        string // as given
	Source     string // such as "file config.yaml"
	Suggestion string // the one that was probably meant, or ""
}

// Error names the key and where it came from.
func (e *UnknownKeyError) Error() string {
	s := fmt.Sprintf("%s: unknown setting (from %s)", e.Key, e.Source)
	if e.Suggestion != "" {
		s += fmt.Sprintf("; did you mean %s?", e.Suggestion)
	}
	return s
}

// Hint says what to change.
func (e *UnknownKeyError) Hint() string {
	if e.Suggestion != "" {
		return fmt.Sprintf("write %s instead of %s", e.Suggestion, e.Key)
	}
	return fmt.Sprintf("take %s out of the %s", e.Key, e.Source)
}

// ModelNameError says that two models would be served under one name.
type ModelNameError struct {
	Name   string
	Models [2]string // as given
	Source string    // such as "flag --model"
}

func (e *ModelNameError) Error() string {
	from := ""
	if e.Source != "" {
		from = " (from " + e.Source + ")"
	}
	return fmt.Sprintf("model: got %q and %q%s, which have one name, %q; allowed: a name of its own for each", e.Models[0], e.Models[1], from, e.Name)
}

// Hint says what to change.
func (e *ModelNameError) Hint() string {
	return "put a name before one of them: NAME=" + ParseModel(e.Models[1]).Source
}

// FileError is a configuration file that cannot be read.
type FileError struct {
	Path   string
	Source string // what named it, such as "flag --config"
	Err    error
}

func (e *FileError) Error() string {
	return fmt.Sprintf("read configuration file %s (from %s): %v", e.Path, e.Source, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// Hint says what to change.
func (e *FileError) Hint() string {
	return "give a readable file that ends in .yaml, .yml, .toml or .json"
}

// show writes a value for a message.
func show(value any) string {
	switch value := value.(type) {
	case string:
		return strconv.Quote(value)
	case []string:
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprint(value)
}
