package memtest

import (
	"tempo/internal/budget"
	"tempo/internal/doctor"
)

// Status is how a step went.
type Status string

// What a step can come to.
const (
	NotRun Status = "not run" // an earlier one failed
	OK     Status = "ok"
	Failed Status = "fail"
)

// Outcome is how a step went.
type Outcome struct {
	Status  Status `json:"status"`
	Problem string `json:"problem,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

func failure(err error) Outcome {
	return Outcome{Status: Failed, Problem: err.Error(), Hint: doctor.Hint(err)}
}

// Result is what was measured. All sizes are in bytes.
type Result struct {
	Monitor    Monitor    `json:"monitor"`
	Load       Load       `json:"model_load"`
	Limits     Limits     `json:"automatic_limits"`
	Generation Generation `json:"generation"`
	Opposite   Opposite   `json:"opposite"`
	Verdict    Verdict    `json:"verdict"`
	Passed     bool       `json:"passed"`
}

// Monitor is step 1: the memory before anything is loaded.
type Monitor struct {
	Outcome
	Device      string       `json:"device"`
	DeviceName  string       `json:"device_name"`
	Model       string       `json:"model"`
	Total       budget.Bytes `json:"total_bytes"`
	Free        budget.Bytes `json:"free_bytes"`
	Limit       budget.Bytes `json:"limit_bytes"` // in force
	LimitReason string       `json:"limit_reason"`
	// Process is what this process holds on the device, Engine what an engine's
	// process does that has sized the model and loaded nothing.
	Process budget.Bytes `json:"process_bytes"`
	Engine  budget.Bytes `json:"engine_process_bytes"`
}

// Load is step 2: the estimate beside the measurement.
type Load struct {
	Outcome
	Limit budget.Bytes `json:"limit_bytes"` // in force, against which the verdict is
	Lines []Line       `json:"lines"`
	Total Line         `json:"total"`
	Peak  budget.Bytes `json:"peak_bytes"` // during the load, by the sampler
}

// Line is one line of the ledger.
type Line struct {
	Name       string       `json:"name"`
	Estimate   budget.Bytes `json:"estimate_bytes"`
	Measured   budget.Bytes `json:"measured_bytes"`
	Difference budget.Bytes `json:"difference_bytes"`
}

// Limits is step 3: what bounds jobs, and why.
type Limits struct {
	Outcome
	MaxParallelTokens int          `json:"max_parallel_tokens"`
	Rule              doctor.Rule  `json:"max_parallel_tokens_rule"`
	MaxCacheTokens    int          `json:"max_cache_tokens"`
	Pool              budget.Bytes `json:"kv_pool_bytes"`
	Warn              budget.Bytes `json:"warn_bytes"`
	WarnShare         float64      `json:"warn_share"`
	Act               budget.Bytes `json:"act_bytes"`
	ActShare          float64      `json:"act_share"`
}

// Generation is step 4: jobs that fill the pool.
type Generation struct {
	Outcome
	Jobs         int          `json:"jobs"` // that were queued
	Answered     int          `json:"answered"`
	Seconds      float64      `json:"seconds"`
	Tokens       int64        `json:"tokens"`              // generated, of answered jobs
	PeakReserved budget.Bytes `json:"peak_reserved_bytes"` // sum of the leases
	Pool         budget.Bytes `json:"kv_pool_bytes"`       // at its largest
	PeakRunning  int          `json:"peak_running"`
	PeakWaiting  int          `json:"peak_waiting"` // for memory
	GaveWay      int          `json:"gave_way"`     // jobs that made room for older ones
	Peak         budget.Bytes `json:"peak_bytes"`   // by the sampler
	LowestLimit  budget.Bytes `json:"lowest_limit_bytes"`
}

// Opposite is the start with a limit that is a little too small.
type Opposite struct {
	Outcome
	Limit     budget.Bytes `json:"limit_bytes"`
	Smallest  budget.Bytes `json:"smallest_limit_bytes"` // that the plan would accept
	Need      budget.Bytes `json:"need_bytes"`           // as the refusal says
	Available budget.Bytes `json:"available_bytes"`      // likewise
	Before    budget.Bytes `json:"before_bytes"`         // held before the try
	Peak      budget.Bytes `json:"peak_bytes"`           // held during it, by the sampler
	Allowed   budget.Bytes `json:"allowed_bytes"`        // Before, an engine's process, and some for noise
	Loaded    budget.Bytes `json:"loaded_bytes"`         // what weights and KV cache take when they are loaded
}

// Verdict is step 5: the highest measurement of the whole test against the limit.
type Verdict struct {
	Outcome
	Peak    budget.Bytes `json:"peak_bytes"`
	Limit   budget.Bytes `json:"limit_bytes"`
	Samples int          `json:"samples"`
	EveryMS int64        `json:"sample_interval_ms"`
}

// Step names a part of a result.
type Step string

// Steps in the order in which they are done.
const (
	MonitorStep    Step = "monitor"
	LoadStep       Step = "model load"
	LimitsStep     Step = "automatic limits"
	GenerationStep Step = "generation"
	OppositeStep   Step = "the opposite"
	VerdictStep    Step = "verdict"
)
