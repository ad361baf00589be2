// Package schedule runs jobs in one continuous batch inside an engine process.
//
// One goroutine, Scheduler.Run, owns the llama context. Each step it lets new
// jobs join and ended ones leave, decodes a batch and chooses a token for each output.
// In one pool a batch has the next token of every job that decodes, and the rest of it
// pieces of prompts (chunked prefill); in streams prompts and decoding take turns, since
// llama.cpp would take them apart there. A job uses no more cells of
// the KV pool than its lease has; it asks for more when three quarters are used,
// so that it rarely waits, and sits out the steps in which it must. Between two steps
// a job can leave the pool with what it has there and come back (Lease.Reclaim), or
// all of them, to get a pool of another size (Scheduler.Reshape).
package schedule
