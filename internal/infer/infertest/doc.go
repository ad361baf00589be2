// Package infertest holds what tests of engines share: Test, the conformance
// suite that every infer.Engine passes, a Lease that records what it is asked,
// and the way to the llama.cpp libraries and a tiny model.
package infertest
