// Package llama is the only place that talks to llama.cpp, through yzma, and it
// runs only inside an engine process. It turns llama.cpp's conventions (codes
// beside nil errors, buffer sizes in log lines, tokens that are really NULL
// pointers) into Go's: errors, byte counts, slices.
//
// A Library is loaded once for a process. A Model belongs to it, a Context to a
// Model; a Context must be used from one goroutine at a time.
//
// Checked against llama.cpp v0.5.0 and yzma v1.28.0.
package llama
