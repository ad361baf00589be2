package api

import (
	"encoding/json"
	"time"
)

// Endpoints that a job can ask for (the url of a batch line).
const (
	ChatCompletions = "/v1/chat/completions"
	Completions     = "/v1/completions"
	Embeddings      = "/v1/embeddings"
)

// Priority orders the batches of a queue; inside one priority they are served
// fairly.
type Priority string

// Priorities, the most urgent first.
const (
	High   Priority = "high"
	Normal Priority = "normal"
	Low    Priority = "low"
)

// Job is one request on its way to a worker: the payload of
// jobs.<priority>.<model>.<batch>.<job>.
type Job struct {
	ID       string          `json:"id"`             // unique in its batch, safe in a subject
	Batch    string          `json:"batch"`          // id of the batch object, safe in a subject
	CustomID string          `json:"custom_id"`      // the user's name for the line, unique in the batch
	Model    string          `json:"model"`          // served name of the model that is to answer
	Priority Priority        `json:"priority"`       // the batch's
	URL      string          `json:"url"`            // ChatCompletions, Completions or Embeddings
	Body     json.RawMessage `json:"body"`           // the request as the user wrote it
	Line     int             `json:"line,omitempty"` // line of the input file, from 1; 0 = not from a file
}

// BatchStatus is OpenAI's status of a batch.
type BatchStatus string

// States of a batch.
const (
	Validating BatchStatus = "validating"  // jobs are still being published; workers answer those that are queued
	InProgress BatchStatus = "in_progress" // every job is in the queue: Total is final
	Completed  BatchStatus = "completed"
	Cancelling BatchStatus = "cancelling" // its jobs are being ended, each with a result that says so
	Cancelled  BatchStatus = "cancelled"
	Expired    BatchStatus = "expired" // its time was over
)

// Ended reports whether a batch in this state gets no more results.
func (s BatchStatus) Ended() bool {
	return s == Completed || s == Cancelled || s == Expired
}

// Runs reports whether workers take jobs of a batch in this state.
func (s BatchStatus) Runs() bool { return s == Validating || s == InProgress }

// Batch is the batch object, the value of its id in the bucket BATCHES. The
// fields are OpenAI's; times are Unix seconds.
type Batch struct {
	ID            string            `json:"id"`
	Object        string            `json:"object"` // always "batch"
	Endpoint      string            `json:"endpoint,omitempty"`
	InputFileID   string            `json:"input_file_id,omitempty"` // the input file's name
	Status        BatchStatus       `json:"status"`
	CreatedAt     int64             `json:"created_at"`
	InProgressAt  int64             `json:"in_progress_at,omitempty"`
	CompletedAt   int64             `json:"completed_at,omitempty"`
	ExpiresAt     int64             `json:"expires_at,omitempty"` // 0 = never
	ExpiredAt     int64             `json:"expired_at,omitempty"`
	CancellingAt  int64             `json:"cancelling_at,omitempty"`
	CancelledAt   int64             `json:"cancelled_at,omitempty"`
	RequestCounts RequestCounts     `json:"request_counts"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	Tempo         BatchTempo        `json:"tempo"`
}

// RequestCounts counts the jobs of a batch.
type RequestCounts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// BatchTempo is what Tempo needs to know of a batch beyond OpenAI's object.
type BatchTempo struct {
	Priority Priority `json:"priority"`
	Models   []string `json:"models"` // served names that its jobs ask for
	// Weight is its share of the tokens beside those of other batches of its priority, 1 to
	// MaxWeight; 0 = DefaultWeight.
	Weight int `json:"weight,omitempty"`
	// MaxInFlight bounds the jobs that all workers together have of it for each model; 0 = no
	// bound.
	MaxInFlight int  `json:"max_in_flight,omitempty"`
	Paused      bool `json:"paused,omitempty"` // no more jobs are taken; those that run go on
	// Counted is the sequence in RESULTS up to which RequestCounts has been brought.
	Counted uint64 `json:"counted,omitempty"`
}

// Weights of batches.
const (
	DefaultWeight = 100
	MaxWeight     = 10_000
)

// Worker is what a worker says of itself in the bucket WORKERS; the entry
// expires when the worker stops saying it.
type Worker struct {
	ID       string    `json:"id"`
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Models   []string  `json:"models"` // served names
	Device   string    `json:"device"` // "cpu", or the GPU's UUID
	Capacity int       `json:"capacity_tokens"`
	Context  int       `json:"context_tokens"` // longest job, prompt and output
	Started  time.Time `json:"started"`
}
