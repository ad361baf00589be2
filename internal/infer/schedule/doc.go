// Package schedule runs jobs in one continuous batch inside an engine process.
//
// One goroutine, Scheduler.Run, owns the llama context. Each step it lets new
// jobs join and ended ones leave, takes the next token of every job that
// decodes, fills the rest of the batch with pieces of prompts (chunked prefill),
// decodes once, and chooses a token for each output. A job uses no more cells of
// the KV pool than its lease has; it asks for more when three quarters are used,
// so that it rarely waits, and sits out the steps in which it must. Between two steps
// a job can leave the pool with what it has there and come back (Lease.Reclaim), or
// all of them, to get a pool of another size (Scheduler.Reshape).
package schedule
