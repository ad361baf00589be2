// Package e2e has the tests of the two programs as they are: real processes,
// signals, files and sockets, llama.cpp with a tiny model.
package e2e
