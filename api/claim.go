package api

import "time"

// Claim is what one worker may hold of a device's memory that several share.
type Claim struct {
	Worker string `json:"worker"`
	Bytes  int64  `json:"promised_bytes"` // the most that it will hold
	Held   int64  `json:"held_bytes"`     // what it held at Time, as measured
	// Target is what it will hold when the load, unload or resizing that it is at is
	// done; 0 = it is at none.
	Target int64     `json:"target_bytes,omitempty"`
	Model  string    `json:"model"` // served name
	Own    bool      `json:"-"`     // of the client that reads it
	Time   time.Time `json:"time"`  // of the claim, by the clock of the worker's machine: for people
}
