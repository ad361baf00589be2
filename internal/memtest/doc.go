// Package memtest tests on a machine and a model whether the memory controls hold:
// it starts a worker with a queue of its own, has it answer jobs that fill its KV
// pool, measures its processes from outside meanwhile, and lets it start once with
// a limit that is a little too small.
package memtest
