// Package infer is the seam between a worker and what generates text for it.
//
// An Engine is opened for one model, asked what shapes would cost (a dry run),
// loaded with one, and then runs jobs, many at once; its shape can be changed
// while they run, and what a job holds can be wanted back (Lease.Reclaim). The
// Host is the Engine that workers use: it keeps the real one in a child process,
// because llama.cpp and CUDA end their process on many faults, and starts a new
// one when it dies. On a CPU it has the kernel keep the process to what was
// granted (Shape.Grant). Serve is the other end, inside that process. Sleeper
// answers without a model, for load and chaos tests. All of them pass the tests in
// infertest.
//
// Nothing above this package knows llama.cpp.
package infer
