package api

import (
	"encoding/json"
	"time"
)

// Result is the payload of results.<batch>.<job> and a line of the output or
// error file: OpenAI's batch output line, plus Tempo's object.
type Result struct {
	ID       string    `json:"id"` // of ResultID
	CustomID string    `json:"custom_id"`
	Response *Response `json:"response"` // nil when the job was never executed
	Error    *Error    `json:"error"`    // nil when it was
	Tempo    *Tempo    `json:"tempo,omitempty"`
}

// ResultID is the id of the result of a batch's job.
func ResultID(batch, job string) string { return "batch_req_" + batch + "-" + job }

// OK reports whether the job was answered with status 200.
func (r *Result) OK() bool {
	return r.Error == nil && r.Response != nil && r.Response.StatusCode == 200
}

// Response is what the endpoint answered.
type Response struct {
	StatusCode int    `json:"status_code"`
	RequestID  string `json:"request_id"`
	// Body is a Completion or, of an embedding job, an EmbeddingList; an ErrorBody if
	// StatusCode is not 200.
	Body json.RawMessage `json:"body"`
}

// Error says why a job was never executed (OpenAI's codes: parse_error,
// model_not_found, batch_cancelled, …).
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// ErrorBody is the body of a response whose status is not 200.
type ErrorBody struct {
	Error ErrorDetail `json:"error"`
}

// ErrorDetail is OpenAI's error object.
type ErrorDetail struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`           // "invalid_request_error", "memory_error", "server_error"
	Param   *string `json:"param"`          // the field at fault, if one is
	Code    *string `json:"code"`           // a short name, if there is one
	Hint    string  `json:"hint,omitempty"` // what to change
}

// Tempo is what Tempo adds to a result: who did it, how long each part took, and
// the memory of the device while it ran. In an error line that submit wrote itself
// only File and Line are set; File is set in all errors of lines of a file, by submit.
type Tempo struct {
	Worker  string `json:"worker,omitempty"`
	Device  string `json:"device,omitempty"`
	Attempt int    `json:"attempt,omitempty"` // 1 = the first
	*Timing        // nil for a job that did not run
	// LeaseBytes is the most KV memory that this job had reserved.
	LeaseBytes int64   `json:"lease_bytes,omitempty"`
	Memory     *Memory `json:"memory,omitempty"`
	// CutByMemory says that the answer ended (finish_reason "length") because the
	// worker's KV cache is smaller than the model's context, or at the job's own
	// Parallel.MaxCacheTokens, not at max_tokens.
	CutByMemory bool `json:"cut_by_memory,omitempty"`
	// Parallel is what a job with several tokens at one position came to.
	Parallel *ParallelResult `json:"parallel,omitempty"`
	// MemoryError has the numbers of an error with the code "memory_error".
	MemoryError *MemoryError `json:"memory_error,omitempty"`
	File        string       `json:"file,omitempty"`
	Line        int          `json:"line,omitempty"` // line of the input file, from 1
}

// MemoryError says why a job's memory can never be had on the worker that answered:
// the result's status is 507, its error's code "memory_error".
type MemoryError struct {
	NeedBytes       int64    `json:"need_bytes"`
	AvailableBytes  int64    `json:"available_bytes"` // at most, with no other job
	NeedTokens      int      `json:"need_tokens"`     // in the KV cache
	AvailableTokens int      `json:"available_tokens"`
	Remedies        []string `json:"remedies"` // what would help in this case, the best first
}

// Timing is how long the parts of a job took, in seconds.
type Timing struct {
	QueueSeconds   float64 `json:"queue_seconds"`   // from publishing to the start of prefill
	PrefillSeconds float64 `json:"prefill_seconds"` // from there to the first token
	DecodeSeconds  float64 `json:"decode_seconds"`  // from there to the last token
}

// Memory is the memory of one device at one moment, all in bytes. On a CPU it
// counts the proportional set size of every process of the command; on a GPU
// the engine processes on the device.
type Memory struct {
	Weights       int64 `json:"weights"`        // model tensors
	KVCache       int64 `json:"kv_cache"`       // the KV pool, used or not
	ParallelBatch int64 `json:"parallel_batch"` // compute and logits buffers of a full batch
	Overhead      int64 `json:"overhead"`       // what the processes hold beyond the three above
	Peak          int64 `json:"peak"`           // the highest total that was measured so far
	Reserved      int64 `json:"reserved"`       // sum of the leases inside the KV pool, those held for jobs to come included
	Limit         int64 `json:"limit"`
}

// Total is what is allocated now.
func (m Memory) Total() int64 {
	return m.Weights + m.KVCache + m.ParallelBatch + m.Overhead
}

// MemoryStats is published on stats.memory.<worker>.<device> every few seconds:
// the measurement, and beside it what was estimated before the model was loaded.
type MemoryStats struct {
	Worker   string    `json:"worker"`
	Device   string    `json:"device"`
	Model    string    `json:"model"`
	Time     time.Time `json:"time"`
	Memory             // measured
	Estimate Memory    `json:"estimate"`
	// Pressure is "ok", "warn" or "act": how near the limit is.
	Pressure string     `json:"pressure"`
	Host     HostMemory `json:"host"`
	// Running and Waiting count jobs on the worker; GaveWay counts jobs that made
	// room for others, and Tokens generated tokens, since it started.
	Running           int   `json:"running"`
	Waiting           int   `json:"waiting"`
	GaveWay           int64 `json:"gave_way"`
	Tokens            int64 `json:"tokens"`
	MaxParallelTokens int   `json:"max_parallel_tokens"`
	MaxCacheTokens    int   `json:"max_cache_tokens"`
	// WidthBound is the most tokens that a job may have at one position while memory is
	// short, 0 = as many as it may otherwise; Narrowed counts how often it was lowered.
	WidthBound int   `json:"width_bound,omitempty"`
	Narrowed   int64 `json:"narrowed,omitempty"`
	// Layers are the model's layers, if they were asked for (layer_stats).
	Layers []LayerMemory `json:"layers,omitempty"`
}

// HostMemory is what jobs take of the host's memory beside the device: requests
// and results on their way, and the KV of jobs that gave way. In bytes.
type HostMemory struct {
	Limit    int64 `json:"limit"`
	Reserved int64 `json:"reserved"`
	Peak     int64 `json:"peak"` // the most that was reserved so far
}

// LayerMemory is the memory of one layer of a model, in bytes.
type LayerMemory struct {
	Layer int `json:"layer"` // from 0
	// Kind is what it keeps of sequences: "attention", "window", "latent",
	// "recurrent", "hybrid"; "unknown" = KVCache is not known.
	Kind    string `json:"kind"`
	Weights int64  `json:"weights"`
	KVCache int64  `json:"kv_cache"` // its part of the whole pool
}
