package doctor

import (
	"errors"

	"tempo/internal/budget"
)

// Status is how a check went.
type Status string

// What a check can come to.
const (
	OK      Status = "ok"
	Warn    Status = "warn"        // a job could run, but something is not as it should be
	Fail    Status = "fail"        // no job could run
	Skipped Status = "not checked" // what it needs is not there, or nobody wants to know
)

// Check is the outcome of a check.
type Check struct {
	Status  Status `json:"status"`
	Problem string `json:"problem,omitempty"` // what is wrong, or why it was not checked
	Hint    string `json:"hint,omitempty"`    // the way out, if one is known
}

// fail is the outcome of a check that ended with err.
func fail(err error) Check { return Check{Status: Fail, Problem: err.Error(), Hint: Hint(err)} }

func skipped(why string) Check { return Check{Status: Skipped, Problem: why} }

// Hint is the hint that an error carries, "" if it has none.
func Hint(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

// Section names a part of a report.
type Section string

// Sections in the order in which they are looked at.
const (
	LibrariesSection Section = "libraries"
	DevicesSection   Section = "devices"
	ModelSection     Section = "model"
	NATSSection      Section = "nats"
	MemorySection    Section = "memory"
	LayersSection    Section = "layers"
)

// Report is what was found. All sizes are in bytes.
type Report struct {
	Libraries Libraries `json:"libraries"`
	Devices   Devices   `json:"devices"`
	Model     Model     `json:"model"`  // the first
	Models    []Model   `json:"models"` // all, in the order of the configuration
	NATS      NATS      `json:"nats"`
	Memory    Memory    `json:"memory"`
	Layers    *Layers   `json:"layers,omitempty"` // nil = nobody asked
	CanRun    bool      `json:"can_run"`
	Reasons   []string  `json:"reasons"` // why no job could run
}

// Libraries are llama.cpp's.
type Libraries struct {
	Check
	Dir      string    `json:"dir"`
	Source   string    `json:"source"` // where the directory came from: "flag --llama-lib", "cache", …
	Backends []Backend `json:"backends"`
}

// Backend is a kind of device that the libraries can compute on.
type Backend struct {
	Name     string `json:"name"`     // "CPU", "CUDA", …
	Variants int    `json:"variants"` // libraries for different processors; llama.cpp takes the best
}

// Devices are all that there are, and the one that would be taken.
type Devices struct {
	Check
	Driver      string   `json:"driver_version,omitempty"` // NVIDIA's
	NVML        string   `json:"nvml_version,omitempty"`
	DriverFault string   `json:"driver_fault,omitempty"` // why no GPU is seen, or not all
	List        []Device `json:"list"`
	Taken       string   `json:"taken"`  // id of the device
	Reason      string   `json:"reason"` // why it is that one
	Cores       int      `json:"cores"`  // that this process may use
	Threads     int      `json:"threads"`
}

// Device is one device.
type Device struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	Kind      string       `json:"kind"` // "cpu" or "cuda"
	Index     int          `json:"index"`
	Total     budget.Bytes `json:"total_bytes"`
	Reserved  budget.Bytes `json:"reserved_bytes"` // by the driver and ECC
	Free      budget.Bytes `json:"free_bytes"`
	BoundedBy string       `json:"bounded_by,omitempty"` // of a CPU: physical memory, or a cgroup
	MIG       bool         `json:"mig"`
	Fault     string       `json:"fault,omitempty"`
	Hint      string       `json:"hint,omitempty"`
}

// Model is a model file.
type Model struct {
	Check
	Path         string       `json:"path"` // or its address on a hub, where it is not fetched yet
	Source       string       `json:"source"`
	Name         string       `json:"name"` // under which it is served
	Architecture string       `json:"architecture"`
	Layers       int          `json:"layers"`
	Context      int          `json:"trained_context_tokens"`
	Tensors      budget.Bytes `json:"tensor_bytes"`
	ChatTemplate bool         `json:"chat_template"`
}

// NATS is the queue.
type NATS struct {
	Check
	Server    string  `json:"server"` // without passwords
	Version   string  `json:"version,omitempty"`
	JetStream bool    `json:"jetstream"`
	Claims    []Claim `json:"claims"`         // of workers on the device
	Note      string  `json:"note,omitempty"` // why the claims are not known
}

// Claim is what a worker may hold of the device.
type Claim struct {
	Worker   string       `json:"worker"`
	Model    string       `json:"model"`
	Promised budget.Bytes `json:"promised_bytes"`
	Held     budget.Bytes `json:"held_bytes"`
}

// Memory is what a worker would plan.
type Memory struct {
	Check
	Device            string       `json:"device"`
	Limit             budget.Bytes `json:"limit_bytes"`
	LimitReason       string       `json:"limit_reason"`
	Weights           budget.Bytes `json:"weights_bytes"`
	KVCache           budget.Bytes `json:"kv_cache_bytes"`
	ParallelBatch     budget.Bytes `json:"parallel_batch_bytes"`
	Overhead          budget.Bytes `json:"overhead_bytes"`
	Total             budget.Bytes `json:"total_bytes"`
	Plan              string       `json:"plan"`
	MaxCacheTokens    int          `json:"max_cache_tokens"`
	MaxParallelTokens int          `json:"max_parallel_tokens"`
	Rule              Rule         `json:"max_parallel_tokens_rule"`
}

// Rule is how max_parallel_tokens came about.
type Rule struct {
	Automatic  bool         `json:"automatic"` // else the user has set it
	Available  budget.Bytes `json:"available_bytes"`
	TokenBytes budget.Bytes `json:"token_bytes"` // what one more parallel token takes
	Unbounded  int          `json:"unbounded"`   // what the rule says, before threads and batch size bound it
}

// Layers is the memory of the model by layer.
type Layers struct {
	Check
	List        []Layer      `json:"list"`
	Rest        budget.Bytes `json:"rest_weights_bytes"` // embeddings, output, norms
	Weights     budget.Bytes `json:"weights_bytes"`      // sum, as in the file
	KVCache     budget.Bytes `json:"kv_cache_bytes"`     // sum
	DryWeights  budget.Bytes `json:"dry_run_weights_bytes"`
	DryKVCache  budget.Bytes `json:"dry_run_kv_cache_bytes"`
	Cells       int          `json:"cells"` // for which KVCache is; 0 = it was not planned
	Sequences   int          `json:"sequences"`
	Differences []string     `json:"differences"` // between file and dry run, and what they can come from
}

// Layer is one layer.
type Layer struct {
	Index           int          `json:"index"`
	Kind            string       `json:"kind"`
	Weights         budget.Bytes `json:"weights_bytes"`
	KVBytesPerToken budget.Bytes `json:"kv_bytes_per_token"`
	KVCache         budget.Bytes `json:"kv_cache_bytes"` // at the planned size
	KVKnown         bool         `json:"kv_known"`
}
