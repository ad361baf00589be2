package config

import "time"

// Config is every setting of every command. A command that does not know a
// setting's flag still accepts it from the environment and the file, so that
// one file serves all commands.
type Config struct {
	Memory Memory `mapstructure:",squash"`
	Engine Engine `mapstructure:",squash"`
	Hub    Hub    `mapstructure:",squash"`
	NATS   NATS   `mapstructure:",squash"`
	Log    Log    `mapstructure:",squash"`
	Submit Submit `mapstructure:",squash"`
	// Parallel is for the lines that submit sends, as Submit is.
	Parallel Parallel `mapstructure:",squash"`

	// Unused lists keys of TEMPO's that were given and have no effect, as
	// "key", or as "key=value" where the value differs from TEMPO's default.
	Unused []string `mapstructure:"-"`

	sources map[string]source // of the keys that are not left at their default
}

// Memory bounds what a worker's engines may use of their device.
type Memory struct {
	MaxGB             float64 `mapstructure:"max_memory_gb"`       // limit in 2^30 bytes
	MaxParallelTokens int     `mapstructure:"max_parallel_tokens"` // tokens decoded in one step; 0 = automatic
	MaxCacheTokens    int     `mapstructure:"max_cache_tokens"`    // positions of the KV cache; 0 = automatic
	Warn              float64 `mapstructure:"memory_warn"`         // share of the limit, over 0, up to Act
	Act               float64 `mapstructure:"memory_act"`          // share of the limit, up to 1
	CacheTypeK        string  `mapstructure:"cache_type_k"`        // f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl
	CacheTypeV        string  `mapstructure:"cache_type_v"`        // as CacheTypeK
	KVLayout          string  `mapstructure:"kv_layout"`           // auto, streams or unified
	SwapGB            float64 `mapstructure:"swap_gb"`             // host memory for jobs of a GPU that gave way, in 2^30 bytes
	LayerStats        bool    `mapstructure:"layer_stats"`         // statistics list each layer
}

// Engine says what a worker generates with.
type Engine struct {
	Model       []string `mapstructure:"model"`     // as they are written; see Models
	LlamaLib    string   `mapstructure:"llama_lib"` // directory; "" = looked for
	Device      string   `mapstructure:"device"`    // auto, cpu, cuda, cuda:N or a GPU's UUID
	NVMLPath    string   `mapstructure:"nvml_path"` // "" = the system's
	Threads     int      `mapstructure:"threads"`   // 0 = the cores that the process may use
	ContextSize int      `mapstructure:"context_size"`
	BatchSize   int      `mapstructure:"batch_size"` // tokens
	WorkerName  string   `mapstructure:"worker_name"`
}

// Hub is where models come from whose source is hf://….
type Hub struct {
	Endpoint string `mapstructure:"hf_endpoint"` // http or https address; "" = none is known
	Token    string `mapstructure:"hf_token"`    // "" = none
}

// NATS is the connection to the queue, under the names of the nats tool.
type NATS struct {
	Server   string `mapstructure:"server"` // URLs, separated by commas
	Creds    string `mapstructure:"creds"`
	User     string `mapstructure:"user"`
	Password string `mapstructure:"password"`
	NKey     string `mapstructure:"nkey"` // seed file
	TLSCert  string `mapstructure:"tlscert"`
	TLSKey   string `mapstructure:"tlskey"`
	TLSCA    string `mapstructure:"tlsca"`
	// ResultsTTL is how long results are kept, a duration; "" = as before.
	ResultsTTL string `mapstructure:"results_ttl"`
}

// Log says what is logged and how.
type Log struct {
	Level     string `mapstructure:"log_level"`  // debug, info, warn or error
	Format    string `mapstructure:"log_format"` // auto, console or json
	DebugMode bool   `mapstructure:"debug_mode"` // TEMPO's; Load has made Level debug of it
}

// Submit says what submit sends and where the results go.
type Submit struct {
	Output       string   `mapstructure:"output"`       // "-" = standard output
	Errors       string   `mapstructure:"errors"`       // "" = where the output goes
	Prompt       string   `mapstructure:"prompt"`       // one prompt instead of a file
	MaxTokens    int      `mapstructure:"max_tokens"`   // for lines that give none; 0 = none
	Reproducible bool     `mapstructure:"reproducible"` // for all lines that do not say
	Seed         *uint32  `mapstructure:"seed"`         // for lines that give none; nil = none
	Temperature  *float64 `mapstructure:"temperature"`  // for lines that give none; nil = none
	Priority     string   `mapstructure:"priority"`     // high, normal or low
	Weight       int      `mapstructure:"weight"`
	MaxInFlight  int      `mapstructure:"max_in_flight"` // 0 = no bound
	Deadline     string   `mapstructure:"deadline"`      // a duration, "" = none
	New          bool     `mapstructure:"new"`
	Quiet        bool     `mapstructure:"quiet"`
	Local        bool     `mapstructure:"local"`     // queue, worker and engine in this command
	StoreDir     string   `mapstructure:"store_dir"` // of JetStream with Local
	Listen       string   `mapstructure:"listen"`    // host:port of the queue with Local; "" = none
}

// Limit is the time that Deadline gives, 0 = none. ok is false if it is no such time.
func (s *Submit) Limit() (limit time.Duration, ok bool) { return parseTime(s.Deadline, time.Second) }

// Kept is the time that ResultsTTL gives, 0 = none. ok is false if it is no such time.
func (n *NATS) Kept() (limit time.Duration, ok bool) { return parseTime(n.ResultsTTL, time.Minute) }

// parseTime reads a duration of at least so much, "" = 0.
func parseTime(text string, least time.Duration) (d time.Duration, ok bool) {
	if text == "" {
		return 0, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= least
}
