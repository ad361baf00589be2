package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"tempo/api"
)

// envPrefix stands before the environment variables of all keys.
const envPrefix = "TEMPO_"

// key is one setting. The type of def decides what a flag, a variable and a
// file may give.
type key struct {
	name     string
	def      any    // string, []string, int, uint32, float64 or bool
	flag     string // "" = name with "-" for "_"
	short    string // one letter, or ""
	env      string // another tool's variable, or ""
	optional bool   // there is no default; def is only of the type
	secret   bool   // never shown
	usage    string
	commands commands
}

// commands says whose flag a key is.
type commands int

const (
	worker commands = 1 << iota
	submit
	fetch  // worker setup
	manage // what submit does with a queue beside sending
	read   // and with results
	both   = worker | submit
)

func (k key) flagName() string {
	if k.flag != "" {
		return k.flag
	}
	return strings.ReplaceAll(k.name, "_", "-")
}

func (k key) envName() string { return envPrefix + strings.ToUpper(k.name) }

// keys is every setting, in the order of the reference.
func keys() []key {
	return []key{
		{name: "max_memory_gb", def: 36.0, commands: worker, usage: "memory limit in `GB` (2^30 bytes): of the engine processes on a GPU, or of all processes of the command on a CPU"},
		{name: "max_parallel_tokens", def: 0, commands: both, usage: "most tokens that a worker decodes in one step, and with selection_threshold most tokens of a set; 0 = as many as the limit allows"},
		{name: "max_cache_tokens", def: 0, commands: both, usage: "most tokens in a worker's KV cache, and with selection_threshold most of each line; 0 = as many as the limit allows"},
		{name: "memory_warn", def: 0.85, commands: worker, usage: "share of the limit from which on the worker warns, over 0, up to memory_act"},
		{name: "memory_act", def: 0.95, commands: worker, usage: "share of the limit that is planned for, up to 1; beyond it the worker acts: sets of parallel jobs get narrower, no more jobs are admitted, and the KV cache gives way"},
		{name: "cache_type_k", def: "f16", commands: worker, usage: "type of the K cache: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl"},
		{name: "kv_layout", def: "auto", commands: worker, usage: "how the KV cache is divided: streams (one for each job), unified (one pool for all) or auto (by the jobs)"},
		{name: "cache_type_v", def: "f16", commands: worker, usage: "type of the V cache: as cache_type_k"},
		{name: "swap_gb", def: 4.0, commands: worker, usage: "host memory in `GB` (2^30 bytes) for jobs on a GPU that gave way to others; 0 = none"},
		{name: "layer_stats", def: false, commands: worker, usage: "list each layer in the memory statistics"},

		{name: "model", def: []string(nil), commands: both | fetch, usage: "model to serve, as `[NAME=]SOURCE`: the path of a GGUF file, or hf://ORG/REPO/FILE.gguf[@REVISION]; can be given several times; for submit the first is for lines that name none, without --local also by its name alone; none = that of worker setup"},
		{name: "hf_endpoint", def: "", env: "HF_ENDPOINT", commands: worker | fetch, usage: "`address` of the hub that hf:// models come from, such as https://… of Hugging Face"},
		{name: "hf_token", def: "", secret: true, env: "HF_TOKEN", commands: worker | fetch, usage: "`token` for that hub, where it wants one"},
		{name: "llama_lib", def: "", commands: worker, usage: "`directory` of the llama.cpp libraries; empty = looked for in the cache"},
		{name: "device", def: "auto", commands: worker, usage: "auto, cpu, cuda, cuda:N or the UUID of a GPU"},
		{name: "nvml_path", def: "", commands: worker, usage: "`file` of NVIDIA's management library; empty = the system's"},
		{name: "threads", def: 0, commands: worker, usage: "CPU threads; 0 = the cores that the process may use"},
		{name: "context_size", def: 0, commands: worker, usage: "longest job in tokens, prompt and output; 0 = the model's"},
		{name: "batch_size", def: 512, commands: worker, usage: "most prompt tokens decoded at once"},
		{name: "worker_name", def: "", commands: worker, usage: "`name` of the worker in results and statistics; empty = HOST-PID"},

		{name: "server", short: "s", def: "nats://127.0.0.1:4222", env: "NATS_URL", commands: both | manage, usage: "`URLs` of the NATS servers, separated by commas"},
		{name: "creds", def: "", env: "NATS_CREDS", commands: both | manage, usage: "`file` with NATS credentials"},
		{name: "user", def: "", env: "NATS_USER", commands: both | manage, usage: "NATS `user`, or a token if there is no password"},
		{name: "password", def: "", secret: true, env: "NATS_PASSWORD", commands: both | manage, usage: "NATS `password`"},
		{name: "nkey", def: "", env: "NATS_NKEY", commands: both | manage, usage: "`file` with the seed of a NATS nkey"},
		{name: "tlscert", def: "", env: "NATS_CERT", commands: both | manage, usage: "`file` with the TLS certificate of the client"},
		{name: "tlskey", def: "", env: "NATS_KEY", commands: both | manage, usage: "`file` with the key of tlscert"},
		{name: "tlsca", def: "", env: "NATS_CA", commands: both | manage, usage: "`file` with the TLS certificates to trust"},

		{name: "results_ttl", def: "", commands: both | manage, usage: "`time` that results are kept in the queue, such as 24h or 168h; empty = as it is there, at first 7 days"},

		{name: "log_level", def: "info", commands: both | manage, usage: "debug, info, warn or error"},
		{name: "log_format", def: "auto", commands: both | manage, usage: "console, json, or auto: console on a terminal and json elsewhere"},
		{name: "debug_mode", def: false, commands: both | manage, usage: "log_level debug, unless that is given"},

		{name: "output", short: "o", def: "-", commands: submit | read, usage: "`file` for the results; - = standard output"},
		{name: "errors", def: "", commands: submit | read, usage: "`file` for failures; empty = with the results"},
		{name: "prompt", def: "", commands: submit, usage: "one prompt, instead of a file"},
		{name: "max_tokens", def: 0, commands: submit, usage: "most generated tokens for lines that do not say; 0 = as many as the context allows"},
		{name: "reproducible", def: false, commands: submit, usage: "have every line answered the same bit for bit, whatever else the worker runs"},
		{name: "seed", def: uint32(0), optional: true, commands: submit, usage: "seed for lines that give none; without it each job has its own"},
		{name: "temperature", def: 0.0, optional: true, commands: submit, usage: "temperature for lines that give none, 0 to 2"},
		{name: "priority", def: "normal", commands: submit, usage: "high, normal or low"},
		{name: "weight", def: api.DefaultWeight, commands: submit, usage: "share of the tokens beside other batches of the same priority, 1 to 10000: one with twice the weight has twice as many"},
		{name: "max_in_flight", def: 0, commands: submit, usage: "most jobs of the batch that all workers together have at once; 0 = as many as they can"},
		{name: "deadline", def: "", commands: submit, usage: "`time` from now, such as 90m or 24h, after which jobs that are not done end with the error batch_expired; empty = never"},
		{name: "new", def: false, commands: submit, usage: "send the file again, even if it was sent before"},
		{name: "quiet", def: false, commands: submit | read, usage: "show no progress"},
		{name: "local", def: false, commands: submit | manage, usage: "run the queue, a worker and its engine in this command"},
		{name: "store_dir", def: "", commands: submit | manage, usage: "`directory` of the queue with --local; empty = tempo/jetstream in $XDG_STATE_HOME or ~/.local/state"},
		{name: "listen", def: "", commands: submit, usage: "`HOST:PORT` on which others reach the queue of --local; empty = none"},

		{name: "selection_threshold", def: 0.0, optional: true, commands: submit, usage: "for lines that do not say: several tokens at one position, all with at least this `probability`, 0.0001 to 1; without it one token at each"},
		{name: "isolate", def: false, commands: submit, usage: "tokens at one position do not see each other"},
		{name: "mix", def: api.MixWeighted, commands: submit, usage: "what follows a set of tokens: weighted (by their probabilities), or top (what follows the most probable)"},
		{name: "min_steps", def: 0, commands: submit, usage: "positions before which an answer does not end by itself"},
		{name: "dynamic_threshold", def: false, commands: submit, usage: "the selection threshold goes to final_threshold at the last position that max_tokens allows"},
		{name: "final_threshold", def: api.DefaultFinalThreshold, commands: submit, usage: "threshold at the last position, 0.0001 to 1"},
		{name: "bezier_p1", def: api.DefaultP1, commands: submit, usage: "first control point of the threshold's Bézier curve, 0 to 1"},
		{name: "bezier_p2", def: api.DefaultP2, commands: submit, usage: "second control point of that curve, 0 to 1"},
		{name: "use_relu", def: false, commands: submit, usage: "the threshold stays up to relu_activation_point and then changes evenly, instead of along the Bézier curve"},
		{name: "relu_activation_point", def: api.DefaultActivationPoint, commands: submit, usage: "part of the way at which it begins to change, 0 to 1"},
		{name: "use_retroactive_removal", def: false, commands: submit, usage: "take back tokens that later positions do not attend to"},
		{name: "attention_threshold", def: api.DefaultAttentionThreshold, commands: submit, usage: "share of the attention to its set below which a token is taken back, 0 to 1"},
		{name: "removal_window", def: api.DefaultWindow, commands: submit, usage: "positions after a set whose attention counts, 1 to 64"},
		{name: "return_parallel_sets", def: false, commands: submit, usage: "results list all sets of tokens, with the threshold at each position"},
		{name: "default_mode", def: false, commands: submit, usage: "one token at each position: selection_threshold and what refines it are not used"},
	}
}

// keyOf is the key called name, which there must be.
func keyOf(name string) key {
	all := keys()
	return all[slices.IndexFunc(all, func(k key) bool { return k.name == name })]
}

// flagOf is the flag of the key called name, as it is written.
func flagOf(name string) string { return "--" + keyOf(name).flagName() }

// WorkerFlags adds the flags of a worker to fs. Flags that fs has already are
// left as they are, so that a command can have those of submit too.
func WorkerFlags(fs *pflag.FlagSet) { addFlags(fs, worker) }

// SubmitFlags adds the flags of submit to fs, as WorkerFlags does.
func SubmitFlags(fs *pflag.FlagSet) { addFlags(fs, submit) }

// FetchFlags adds the flags of worker setup to fs: what models are to be fetched, and
// from where.
func FetchFlags(fs *pflag.FlagSet) { addFlags(fs, fetch) }

// ResultFlags adds the flags that say where results go.
func ResultFlags(fs *pflag.FlagSet) { addFlags(fs, read) }

// ManageFlags adds the flags of the commands that look at a queue, or tidy it.
func ManageFlags(fs *pflag.FlagSet) { addFlags(fs, manage) }

const (
	configFlag  = "config"
	configEnv   = envPrefix + "CONFIG"
	configUsage = "settings from a YAML, TOML or JSON `file`"
)

func addFlags(fs *pflag.FlagSet, of commands) {
	if fs.Lookup(configFlag) == nil {
		fs.String(configFlag, "", configUsage)
	}
	for _, k := range keys() {
		if k.commands&of == 0 || fs.Lookup(k.flagName()) != nil {
			continue
		}
		switch def := k.def.(type) {
		case string:
			fs.StringP(k.flagName(), k.short, def, k.usage)
		case []string:
			fs.StringArrayP(k.flagName(), k.short, def, k.usage)
		case int:
			fs.IntP(k.flagName(), k.short, def, k.usage)
		case uint32:
			fs.Uint32P(k.flagName(), k.short, def, k.usage)
		case float64:
			fs.Float64P(k.flagName(), k.short, def, k.usage)
		case bool:
			fs.BoolP(k.flagName(), k.short, def, k.usage)
		}
	}
}

// Reference is the table of all settings, in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("| key | flag | environment | default | meaning |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| | `--%s` | `%s` | | %s |\n", configFlag, configEnv, configUsage)
	for _, k := range keys() {
		flag, env, def := "`--"+k.flagName()+"`", "`"+k.envName()+"`", ""
		if k.short != "" {
			flag = "`-" + k.short + "`, " + flag
		}
		if k.env != "" {
			env += ", `" + k.env + "`"
		}
		if s := fmt.Sprint(k.def); s != "" && s != "[]" && !k.optional {
			def = "`" + s + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.name, flag, env, def, k.usage)
	}
	return b.String()
}
