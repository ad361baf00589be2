package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"tempo/api"
)

// Load reads the settings from the flags in fs that were given (fs must have
// been parsed; nil = none), from environ (as of os.Environ) and from the file
// that --config or TEMPO_CONFIG names. An empty variable counts as not set.
//
// The error joins every fault: *ValueError, *UnknownKeyError, *FileError.
func Load(fs *pflag.FlagSet, environ []string) (*Config, error) {
	l := loader{
		viper: viper.New(), keys: keys(), env: variables(environ),
		given: make(map[string]any), sources: make(map[string]source),
	}
	if fs == nil {
		fs = pflag.NewFlagSet("", pflag.ContinueOnError)
	}
	l.file(fs)
	l.environment()
	l.flags(fs)

	c := &Config{sources: l.sources}
	if err := l.decode(c); err != nil {
		return nil, err
	}
	slices.Sort(l.unused)
	c.Unused = l.unused
	c.complete(l.env)
	l.faults = append(l.faults, c.Validate())
	if fs.Lookup(keyOf("selection_threshold").flagName()) != nil { // it is submit
		v := validator{sources: c.sources}
		c.validateLimits(&v)
		l.faults = append(l.faults, v.faults...)
	}
	if err := errors.Join(l.faults...); err != nil {
		return nil, err
	}
	return c, nil
}

// source is where a setting came from.
type source struct {
	text   bool // a flag or a variable, whose values are texts
	isFlag bool
	name   string // for messages
	isFile bool
	unread bool // its value could not be read, which is a fault already
}

// loader gathers settings from the weakest place to the strongest.
type loader struct {
	viper   *viper.Viper
	keys    []key
	env     map[string]string
	given   map[string]any // by the file and the environment
	sources map[string]source
	unused  []string
	faults  []error
}

// file reads the configuration file, if one is named.
func (l *loader) file(fs *pflag.FlagSet) {
	path, from := l.env[configEnv], "environment "+configEnv
	if flag := fs.Lookup(configFlag); flag != nil && flag.Changed {
		path, from = flag.Value.String(), "flag --"+configFlag
	}
	if path == "" {
		return
	}
	settings, err := readFile(path)
	if err != nil {
		l.faults = append(l.faults, &FileError{Path: path, Source: from, Err: err})
		return
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		l.take(name, name, settings[name], source{name: "file " + path, isFile: true})
	}
}

// readFile returns the values of a file by their key at the top; a value of nil
// was null. The keys are lower case.
func readFile(path string) (map[string]any, error) {
	if !slices.Contains([]string{".yaml", ".yml", ".toml", ".json"}, strings.ToLower(filepath.Ext(path))) {
		return nil, errors.New("unknown format")
	}
	const delimiter = "\x00" // a dot would take keys apart that have one
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	v.SetConfigFile(path)
	if err := v.ReadInConfig(); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	settings := v.AllSettings()
	for _, name := range v.AllKeys() { // null is not among the settings
		top, _, _ := strings.Cut(name, delimiter)
		if _, ok := settings[top]; !ok {
			settings[top] = nil
		}
	}
	return settings, nil
}

// environment reads the variables of all keys.
func (l *loader) environment() {
	for _, k := range l.keys {
		if value := l.env[k.env]; k.env != "" && value != "" {
			l.given[k.name], l.sources[k.name] = value, source{name: "environment " + k.env, text: true}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		short, ok := strings.CutPrefix(name, envPrefix)
		if !ok || name == configEnv {
			continue
		}
		var value any
		if l.env[name] != "" {
			value = l.env[name]
		}
		l.take(strings.ToLower(short), name, value, source{name: "environment " + name, text: true})
	}
}

// take notes a value; nil counts as not given. as is how the user wrote name.
func (l *loader) take(name, as string, value any, from source) {
	ancestor := ancestorDefaults()
	def, old := ancestor[name]
	known := slices.ContainsFunc(l.keys, func(k key) bool { return k.name == name })
	switch {
	case !known && !old && !slices.Contains(ancestorNames(), name):
		l.unknown(name, as, from)
	case value == nil:
	case !known && !old:
		l.translate(name, value, from)
	case old:
		l.unused = append(l.unused, unused(name, value, def))
	case name == "model" && from.isFile && isRepository(value):
		l.unused = append(l.unused, unused(name, value, nil))
	default:
		l.given[name], l.sources[name] = value, from
	}
}

func (l *loader) unknown(name, as string, from source) {
	known := slices.AppendSeq(ancestorNames(), maps.Keys(ancestorDefaults()))
	for _, k := range l.keys {
		known = append(known, k.name)
	}
	slices.Sort(known)
	e := &UnknownKeyError{Key: as, Source: from.name, Suggestion: api.Nearest(name, known)}
	if e.Suggestion != "" && from.text {
		e.Suggestion = envPrefix + strings.ToUpper(e.Suggestion)
	}
	l.faults = append(l.faults, e)
}

// flags binds the flags that were given.
func (l *loader) flags(fs *pflag.FlagSet) {
	for _, k := range l.keys {
		if flag := fs.Lookup(k.flagName()); flag != nil && flag.Changed {
			_ = l.viper.BindPFlag(k.name, flag)                // fails for nil only
			if list, ok := flag.Value.(pflag.SliceValue); ok { // viper would read it as CSV
				l.viper.Set(k.name, list.GetSlice())
			}
			l.sources[k.name] = source{name: "flag --" + k.flagName(), text: true, isFlag: true}
		}
	}
}

// decode puts the strongest value of every key into c. A value that does not
// fit is a fault, and the default stands in for it.
func (l *loader) decode(c *Config) error {
	if err := l.viper.MergeConfigMap(l.given); err != nil {
		return fmt.Errorf("merge configuration: %w", err)
	}
	for _, k := range l.keys {
		if !k.optional {
			l.viper.SetDefault(k.name, k.def)
		}
		from, ok := l.sources[k.name]
		if !ok {
			continue
		}
		value := l.viper.Get(k.name)
		typed, allowed := convert(value, k.def, from.text)
		if allowed != "" {
			l.faults = append(l.faults, fault(k, value, allowed, from))
			typed = k.def
			l.sources[k.name] = source{unread: true}
		}
		l.viper.Set(k.name, typed)
	}
	if err := l.viper.UnmarshalExact(c); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}

// convert makes value one of the type of def. The values of flags and variables
// are texts; those of a file must be of the type already. (viper would make 0 of
// "abc", and 1 of true.) If value does not fit, allowed says what would.
func convert(value, def any, text bool) (typed any, allowed string) {
	if text {
		value = parse(value, def)
	}
	switch def.(type) {
	case []string:
		if list, ok := texts(value); ok {
			return list, ""
		}
		return nil, "a text, or a list of texts (in quotes, in a file)"
	case string:
		if s, ok := value.(string); ok {
			return s, ""
		}
		return nil, "a text (in quotes, in a file)"
	case bool:
		if b, ok := value.(bool); ok {
			return b, ""
		}
		return nil, "true or false"
	case float64:
		if f, ok := number(value); ok {
			return f, ""
		}
		return nil, "a number"
	case uint32:
		if f, ok := number(value); ok && f == math.Trunc(f) && f >= 0 && f <= math.MaxUint32 {
			return uint32(f), ""
		}
		return nil, fmt.Sprintf("an integer from 0 to %d", uint32(math.MaxUint32-1))
	default: // int; every number of JSON is a float64
		if f, ok := number(value); ok && f == math.Trunc(f) && math.Abs(f) <= math.MaxInt32 {
			return int(f), ""
		}
		return nil, fmt.Sprintf("an integer up to %d", math.MaxInt32)
	}
}

// parse reads the value of a flag or a variable as one of the type of def; it
// stays a text if it is not one. A flag that can be given several times has a list
// already.
func parse(value, def any) any {
	if list, ok := value.([]string); ok {
		return list
	}
	text := fmt.Sprint(value)
	switch def.(type) {
	case []string:
		return splitList(text)
	case bool:
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case float64:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	case int, uint32:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	}
	return text
}

// texts takes a text or a list of texts; empty ones count as not given.
func texts(value any) (list []string, ok bool) {
	switch value := value.(type) {
	case string:
		list = []string{value}
	case []string:
		list = slices.Clone(value)
	case []any:
		for _, one := range value {
			text, ok := one.(string)
			if !ok {
				return nil, false
			}
			list = append(list, text)
		}
	default:
		return nil, false
	}
	return slices.DeleteFunc(list, func(text string) bool { return text == "" }), true
}

// number takes the numbers of YAML, TOML and JSON.
func number(value any) (float64, bool) {
	switch n := value.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	default:
		return 0, false
	}
}

// complete fills in what is derived from other settings and the machine.
func (c *Config) complete(env map[string]string) {
	if _, given := c.sources["log_level"]; c.Log.DebugMode && !given {
		c.Log.Level = "debug"
	}
	if c.Engine.WorkerName == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "worker"
		}
		c.Engine.WorkerName = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	if c.Submit.StoreDir == "" {
		state := env["XDG_STATE_HOME"]
		if state == "" && env["HOME"] != "" {
			state = filepath.Join(env["HOME"], ".local", "state")
		}
		if state != "" {
			c.Submit.StoreDir = filepath.Join(state, "tempo", "jetstream")
		}
	}
}

// variables takes an environment apart.
func variables(environ []string) map[string]string {
	all := make(map[string]string, len(environ))
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		all[name] = value
	}
	return all
}
