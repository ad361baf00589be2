package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// load reads settings as a command does that has every flag.
func load(t *testing.T, args, environ []string) (*Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	WorkerFlags(fs)
	SubmitFlags(fs)
	require.NoError(t, fs.Parse(args))
	return Load(fs, environ)
}

// file writes a configuration file and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil, []string{"HOME=/home/me", "PATH=/bin", "NATS_CONTEXT=x"})
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, &Config{
		Memory: Memory{MaxGB: 36, Warn: 0.85, Act: 0.95, CacheTypeK: "f16", CacheTypeV: "f16", KVLayout: "auto", SwapGB: 4},
		Engine: Engine{Device: "auto", BatchSize: 512, WorkerName: fmt.Sprintf("%s-%d", host, os.Getpid())},
		NATS:   NATS{Server: "nats://127.0.0.1:4222"},
		Log:    Log{Level: "info", Format: "auto"},
		Submit: Submit{Output: "-", Priority: "normal", Weight: 100, StoreDir: "/home/me/.local/state/tempo/jetstream"},
		Parallel: Parallel{
			Mix: "weighted", FinalThreshold: 1, BezierP1: 0.2, BezierP2: 0.8, ReLUActivationPoint: 0.5,
			AttentionThreshold: 0.01, RemovalWindow: 8,
		},

		sources: map[string]source{},
	}, c)

	c, err = Load(nil, []string{"XDG_STATE_HOME=/state", "HOME=/home/me"})
	require.NoError(t, err)
	require.Equal(t, "/state/tempo/jetstream", c.Submit.StoreDir)
}

func TestLoadPrecedence(t *testing.T) {
	t.Parallel()
	path := file(t, "config.yaml", "max_memory_gb: 8\nbatch_size: 64\nthreads: 2\n")
	environ := []string{"TEMPO_CONFIG=" + path, "TEMPO_MAX_MEMORY_GB=9.5", "TEMPO_BATCH_SIZE=128", "TEMPO_THREADS="}
	c, err := load(t, []string{"--max-memory-gb", "10"}, environ)
	require.NoError(t, err)
	require.InDelta(t, 10, c.Memory.MaxGB, 0, "the flag wins")
	require.Equal(t, 128, c.Engine.BatchSize, "then the environment")
	require.Equal(t, 2, c.Engine.Threads, "then the file; an empty variable is not set")
	require.Equal(t, "auto", c.Engine.Device, "then the default")

	other := file(t, "other.json", `{"max_memory_gb": 7, "max_cache_tokens": 4096}`)
	c, err = load(t, []string{"--config", other}, environ[:1])
	require.NoError(t, err)
	require.InDelta(t, 7, c.Memory.MaxGB, 0)
	require.Equal(t, 4096, c.Memory.MaxCacheTokens)
	require.Equal(t, 512, c.Engine.BatchSize, "the flag names the only file")
}

// A flag that is given with its default still wins.
func TestLoadFlagWithDefaultValue(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--max-memory-gb=36", "--seed=0", "--temperature=0", "-o", "-"},
		[]string{"TEMPO_MAX_MEMORY_GB=9", "TEMPO_SEED=5", "TEMPO_OUTPUT=x"})
	require.NoError(t, err)
	require.InDelta(t, 36, c.Memory.MaxGB, 0)
	require.Equal(t, uint32(0), *c.Submit.Seed)
	require.Zero(t, *c.Submit.Temperature)
	require.Equal(t, "-", c.Submit.Output)
}

// Every setting can be given in every way.
func TestLoadEverySettingEveryWay(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"max_memory_gb": "4.5", "max_parallel_tokens": "8", "max_cache_tokens": "1000", "memory_warn": "0.5", "memory_act": "0.6",
		"cache_type_k": "q8_0", "cache_type_v": "bf16", "kv_layout": "unified", "swap_gb": "1.5", "layer_stats": "true",
		"model": "small=/models/m.gguf", "hf_endpoint": "https://hub.example", "hf_token": "hf_abc", "llama_lib": "/lib", "device": "cuda:1", "nvml_path": "/nvml.so", "threads": "3",
		"context_size": "2048", "batch_size": "256", "worker_name": "w", "server": "tls://a:4222,b", "creds": "c",
		"user": "u", "password": "p", "nkey": "k", "tlscert": "cert", "tlskey": "key", "tlsca": "ca", "results_ttl": "48h", "log_level": "warn",
		"log_format": "json", "debug_mode": "true", "output": "out.jsonl", "errors": "err.jsonl", "prompt": "Hi", "max_tokens": "9",
		"reproducible": "true", "seed": "7", "temperature": "0.5", "priority": "low", "weight": "300", "max_in_flight": "40", "deadline": "24h", "new": "true", "quiet": "true", "local": "true",
		"store_dir": "/store", "listen": "127.0.0.1:4333",
		"selection_threshold": "0.25", "isolate": "true", "mix": "top", "min_steps": "3", "dynamic_threshold": "true",
		"final_threshold": "0.9", "bezier_p1": "0.1", "bezier_p2": "0.7", "use_relu": "true", "relu_activation_point": "0.6",
		"use_retroactive_removal": "true", "attention_threshold": "0.02", "removal_window": "5", "return_parallel_sets": "true",
		"default_mode": "true", // else some rule each other out
	}
	seed, temperature, threshold := uint32(7), 0.5, 0.25
	want := Config{
		Memory: Memory{
			MaxGB: 4.5, MaxParallelTokens: 8, MaxCacheTokens: 1000, Warn: 0.5, Act: 0.6,
			CacheTypeK: "q8_0", CacheTypeV: "bf16", KVLayout: "unified", SwapGB: 1.5, LayerStats: true,
		},
		Engine: Engine{
			Model: []string{"small=/models/m.gguf"}, LlamaLib: "/lib", Device: "cuda:1", NVMLPath: "/nvml.so", Threads: 3,
			ContextSize: 2048, BatchSize: 256, WorkerName: "w",
		},
		Hub:  Hub{Endpoint: "https://hub.example", Token: "hf_abc"},
		NATS: NATS{Server: "tls://a:4222,b", Creds: "c", User: "u", Password: "p", NKey: "k", TLSCert: "cert", TLSKey: "key", TLSCA: "ca", ResultsTTL: "48h"},
		Log:  Log{Level: "warn", Format: "json", DebugMode: true},
		Submit: Submit{
			Output: "out.jsonl", Errors: "err.jsonl", Prompt: "Hi", MaxTokens: 9, Reproducible: true, Seed: &seed, Temperature: &temperature,
			Priority: "low", Weight: 300, MaxInFlight: 40, Deadline: "24h", New: true, Quiet: true, Local: true, StoreDir: "/store", Listen: "127.0.0.1:4333",
		},
		Parallel: Parallel{
			SelectionThreshold: &threshold, Isolate: true, Mix: "top", MinSteps: 3, DynamicThreshold: true, FinalThreshold: 0.9,
			BezierP1: 0.1, BezierP2: 0.7, UseReLU: true, ReLUActivationPoint: 0.6, UseRemoval: true, AttentionThreshold: 0.02,
			RemovalWindow: 5, ReturnSets: true, DefaultMode: true,
		},
	}
	var args, environ []string
	var yaml, toml, json strings.Builder
	for _, k := range keys() {
		value, ok := values[k.name]
		require.True(t, ok, "no example for %s", k.name)
		args = append(args, "--"+k.flagName()+"="+value)
		environ = append(environ, k.envName()+"="+value)
		switch k.def.(type) {
		case string, []string:
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&yaml, "%s: %s\n", k.name, value)
		fmt.Fprintf(&toml, "%s = %s\n", k.name, value)
		fmt.Fprintf(&json, ", %q: %s", k.name, value)
	}
	ways := map[string]func() (*Config, error){
		"flags":       func() (*Config, error) { return load(t, args, nil) },
		"environment": func() (*Config, error) { return load(t, nil, environ) },
	}
	for name, text := range map[string]string{
		"c.yaml": yaml.String(), "c.yml": yaml.String(), "c.toml": toml.String(), "c.json": "{" + json.String()[1:] + "}",
	} {
		ways[name] = func() (*Config, error) { return load(t, []string{"--config", file(t, name, text)}, nil) }
	}
	for name, way := range ways {
		c, err := way()
		require.NoError(t, err, name)
		require.Len(t, c.sources, len(values), name)
		c.sources = nil
		require.Equal(t, &want, c, name)
	}
}

func TestLoadUnderstandsTheNATSTool(t *testing.T) {
	t.Parallel()
	environ := []string{
		"NATS_URL=nats://a", "NATS_CREDS=c", "NATS_USER=u", "NATS_PASSWORD=p", "NATS_NKEY=n",
		"NATS_CERT=cert", "NATS_KEY=key", "NATS_CA=ca",
	}
	c, err := load(t, nil, environ)
	require.NoError(t, err)
	require.Equal(t, NATS{Server: "nats://a", Creds: "c", User: "u", Password: "p", NKey: "n", TLSCert: "cert", TLSKey: "key", TLSCA: "ca"}, c.NATS)

	c, err = load(t, []string{"-s", "nats://c"}, environ)
	require.NoError(t, err)
	require.Equal(t, "nats://c", c.NATS.Server)

	c, err = load(t, nil, append(environ, "TEMPO_SERVER=nats://b"))
	require.NoError(t, err)
	require.Equal(t, "nats://b", c.NATS.Server)
}

// What viper alone would take for something else.
func TestLoadTraps(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, env, says string }{
		{name: "a word for a threshold", env: "TEMPO_SELECTION_THRESHOLD=abc", says: `selection_threshold: got "abc" (from environment TEMPO_SELECTION_THRESHOLD), allowed: a number`},
		{name: "a word for a threshold, refined", text: `selection_threshold: abc`, env: "TEMPO_ISOLATE=true", says: `selection_threshold: got "abc" (from file `},
		{name: "a word for a count", env: "TEMPO_MAX_CACHE_TOKENS=abc", says: `max_cache_tokens: got "abc" (from environment TEMPO_MAX_CACHE_TOKENS), allowed: an integer`},
		{name: "a duration for a count", env: "TEMPO_THREADS=30s", says: `threads: got "30s"`},
		{name: "a fraction for a count", env: "TEMPO_THREADS=1.5", says: `threads: got "1.5"`},
		{name: "a count beyond integers", env: "TEMPO_THREADS=99999999999999999999", says: `threads: got "99999999999999999999"`},
		{name: "a word for a number", env: "TEMPO_MAX_MEMORY_GB=36GB", says: `max_memory_gb: got "36GB"`},
		{name: "not a number", env: "TEMPO_MAX_MEMORY_GB=NaN", says: `max_memory_gb: got NaN`},
		{name: "a bad truth", env: "TEMPO_LOCAL=maybe", says: `local: got "maybe" (from environment TEMPO_LOCAL), allowed: true or false`},
		{name: "a negative seed", env: "TEMPO_SEED=-1", says: `seed: got "-1"`},
		{name: "a word in a file", text: `max_cache_tokens: abc`, says: `max_cache_tokens: got "abc" (from file `},
		{name: "a text in a file", text: `max_cache_tokens: "5"`, says: `max_cache_tokens: got "5"`},
		{name: "a fraction in a file", text: `max_cache_tokens: 5.5`, says: `max_cache_tokens: got 5.5`},
		{name: "true for a count", text: `threads: true`, says: `threads: got true`},
		{name: "a number for true", text: `local: 1`, says: `local: got 1`},
		{name: "yes for true", text: `local: yes`, says: `local: got "yes"`},
		{name: "a number for a text", text: `worker_name: 7`, says: `worker_name: got 7 (from file `},
		{name: "a list for a text", text: `device: [cpu]`, says: `device: got [cpu]`},
		{name: "a number among the models", text: "model: [a.gguf, 7]", says: `model: got [a.gguf 7] (from file `},
		{name: "models as a map", text: "model:\n  Qwen2.5-0.5B: a.gguf", says: `model: got map[qwen2.5-0.5b:a.gguf]`},
		{name: "a key with a dot", text: `Qwen2.5-0.5B: a.gguf`, says: `qwen2.5-0.5b: unknown setting (from file `},
		{name: "a group as a map", text: "memory:\n  max_memory_gb: 5", says: `memory: unknown setting (from file `},
		{name: "an unknown key that is null", text: `max_token:`, says: `did you mean max_tokens?`},
		{name: "a secret", text: `password: 12345`, says: `password: got (hidden) (from file `},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var args []string
			if tt.text != "" {
				args = []string{"--config", file(t, "config.yaml", tt.text)}
			}
			_, err := load(t, args, []string{tt.env})
			require.ErrorContains(t, err, tt.says)
			require.NotContains(t, err.Error(), "\n", "one fault, one message")
		})
	}
}

func TestLoadNullIsNotGiven(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--config", file(t, "config.yaml", "model:\nseed: null\nthreads: ~\n")}, nil)
	require.NoError(t, err)
	require.Nil(t, c.Submit.Seed)
	require.Zero(t, c.Engine.Threads)
}

func TestLoadUnknown(t *testing.T) {
	t.Parallel()
	path := file(t, "config.toml", "max-memory-gb = 5\ncolour = 'red'\n")
	_, err := load(t, []string{"--config", path}, []string{"TEMPO_MAX_MEMORY=5", "TEMPO_X=", "TEMP=/tmp"})
	var unknown *UnknownKeyError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, strings.Join([]string{
		"colour: unknown setting (from file " + path + ")",
		"max-memory-gb: unknown setting (from file " + path + "); did you mean max_memory_gb?",
		"TEMPO_MAX_MEMORY: unknown setting (from environment TEMPO_MAX_MEMORY); did you mean TEMPO_MAX_MEMORY_GB?",
		"TEMPO_X: unknown setting (from environment TEMPO_X)",
	}, "\n"), err.Error())
	require.Equal(t, "take colour out of the file "+path, unknown.Hint())
}

func TestLoadFileFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ path, says string }{
		"missing":        {filepath.Join(t.TempDir(), "config.yaml"), "no such file"},
		"unknown format": {file(t, "config.ini", "a=1"), "unknown format"},
		"bad YAML":       {file(t, "bad.yaml", "a: 1\n b: 2\n"), "line 2"},
		"bad JSON":       {file(t, "bad.json", "{"), "unexpected end"},
		"a list":         {file(t, "list.yaml", "- a\n- b\n"), "line 1"},
		"key twice":      {file(t, "twice.yaml", "seed: 1\nseed: 2\n"), "already defined"},
	} {
		_, err := load(t, nil, []string{"TEMPO_CONFIG=" + tt.path})
		var fault *FileError
		require.ErrorAs(t, err, &fault, name)
		require.ErrorContains(t, err, "read configuration file "+tt.path+" (from environment TEMPO_CONFIG): ", name)
		require.ErrorContains(t, err, tt.says, name)
		require.Contains(t, fault.Hint(), ".yaml")
	}
	_, err := load(t, []string{"--config=" + filepath.Join(t.TempDir(), "x.yaml")}, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "(from flag --config)")
}

func TestLoadReportsAllFaults(t *testing.T) {
	t.Parallel()
	path := file(t, "config.yaml", "colour: red\nthreads: many\nbatch_size: 0\n")
	_, err := load(t, []string{"--priority=urgent", "--config", path}, []string{"TEMPO_SEED=x", "TEMPO_Y=1"})
	for _, s := range []string{"colour: ", "threads: ", "batch_size: ", "priority: ", "seed: ", "TEMPO_Y: "} {
		require.ErrorContains(t, err, s)
	}
}

func TestLoadDebugMode(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--debug-mode"}, nil)
	require.NoError(t, err)
	require.Equal(t, "debug", c.Log.Level)
	c, err = load(t, []string{"--debug-mode", "--log-level=info"}, nil)
	require.NoError(t, err)
	require.Equal(t, "info", c.Log.Level, "what is said exactly wins")
}

// Each command has its own flags, and both can be had together.
func TestFlags(t *testing.T) {
	t.Parallel()
	flags := func(add ...func(*pflag.FlagSet)) (names []string) {
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		for _, f := range add {
			f(fs)
		}
		fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		return names
	}
	w, s := flags(WorkerFlags), flags(SubmitFlags)
	for _, name := range []string{"config", "server", "model", "log-level"} {
		require.Contains(t, w, name)
		require.Contains(t, s, name)
	}
	require.Contains(t, w, "max-memory-gb")
	require.NotContains(t, s, "max-memory-gb")
	require.Contains(t, s, "output")
	require.NotContains(t, w, "output")
	all := append(slices.Clone(w), s...)
	slices.Sort(all)
	require.Equal(t, slices.Compact(all), flags(SubmitFlags, WorkerFlags))
}

// A bad value of a flag is refused by the flag already, by name.
func TestFlagOfTheWrongType(t *testing.T) {
	t.Parallel()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	WorkerFlags(fs)
	require.ErrorContains(t, fs.Parse([]string{"--max-cache-tokens=abc"}), `invalid argument "abc" for "--max-cache-tokens" flag`)
}

// The table of keys and the struct have the same settings, with types that
// convert knows. (A duration would need care: viper takes "30" as 30 ns.)
func TestKeysMatchConfig(t *testing.T) {
	t.Parallel()
	types := map[string]reflect.Type{}
	for group := range reflect.TypeFor[Config]().Fields() {
		if group.Type.Kind() != reflect.Struct {
			continue
		}
		for field := range group.Type.Fields() {
			types[field.Tag.Get("mapstructure")] = field.Type
		}
	}
	for _, k := range keys() {
		want := reflect.TypeOf(k.def)
		if k.optional {
			want = reflect.PointerTo(want)
		}
		require.Equal(t, want, types[k.name], k.name)
		delete(types, k.name)
	}
	require.Empty(t, types)
}

func TestReference(t *testing.T) {
	t.Parallel()
	table := Reference()
	require.Contains(t, table, "| `server` | `-s`, `--server` | `TEMPO_SERVER`, `NATS_URL` | `nats://127.0.0.1:4222` | ")
	require.Contains(t, table, "| `seed` | `--seed` | `TEMPO_SEED` |  | ")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	require.Len(t, lines, len(keys())+3)
	for _, line := range lines {
		require.Equal(t, 6, strings.Count(line, "|"), line)
	}
}

func ExampleLoad() {
	fs := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	WorkerFlags(fs)
	if err := fs.Parse([]string{"--max-memory-gb", "8", "--device", "gpu"}); err != nil {
		fmt.Println(err)
	}
	_, err := Load(fs, []string{"TEMPO_MAX_CACHE_TOKEN=4096"})
	fmt.Println(err)
	if fault, ok := errors.AsType[*ValueError](err); ok {
		fmt.Println("hint:", fault.Hint())
	}
	// Output:
	// TEMPO_MAX_CACHE_TOKEN: unknown setting (from environment TEMPO_MAX_CACHE_TOKEN); did you mean TEMPO_MAX_CACHE_TOKENS?
	// device: got "gpu" (from flag --device), allowed: auto, cpu, cuda, cuda:N, or a UUID such as nvidia-smi -L shows (GPU-…)
	// hint: in flag --device give auto, cpu, cuda, cuda:N, or a UUID such as nvidia-smi -L shows (GPU-…)
}
