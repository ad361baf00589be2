package api

import "time"

// DeadLetter is a job that was given up: the payload of dlq.<batch>.<job>. Its result, with
// the same reason, stands where every job's does.
type DeadLetter struct {
	Job      Job       `json:"job"`
	Reason   Error     `json:"reason"`
	Attempts []Attempt `json:"attempts"` // in their order
	Buried   time.Time `json:"buried"`
}

// Attempt is a try at a job that came to no result.
type Attempt struct {
	Worker string    `json:"worker,omitempty"` // "" = not known: it vanished
	Time   time.Time `json:"time,omitzero"`    // when it ended; zero = not known
	Error  string    `json:"error"`
	// Crash says that an engine, or the worker, ended while it had the job.
	Crash bool `json:"crash,omitempty"`
}
