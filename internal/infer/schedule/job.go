package schedule

import (
	"context"
	"sync"
	"time"

	"tempo/internal/infer"
	"tempo/internal/infer/llama"
)

// job is a job in the scheduler. All fields belong to the goroutine of Run.
type job struct {
	req infer.Request
	ctx context.Context //nolint:containedctx // the job's own: it ends the job at the next step

	prompt  []llama.Token
	limit   int // most cells that it could ever use: prompt and all the output it may have
	longest int // the same within the pool
	seq     int // its sequence in the context, -1 before it has joined
	cells   int // cells it uses: tokens that were decoded
	leased  int // cells it may use
	asking  bool
	recall  bool           // the owner of the memory wants it back, and was not answered yet
	saved   *llama.Saved   // its KV while it is out of the pool, else nil
	asks    sync.WaitGroup // requests for memory under way

	next    llama.Token // token to decode next, once the prompt is through
	made    int         // tokens generated
	out     *text
	sampler *llama.Sampler
	index   int // of its output in the batch of this step, -1 if it has none

	started, first time.Time
	done           chan outcome // receives once
}

type outcome struct {
	out *infer.Output
	err error
}

// prefilling reports whether tokens of the prompt are still to be decoded.
func (j *job) prefilling() bool { return j.cells < len(j.prompt) }

// room is how many more tokens the job's lease lets into the pool.
func (j *job) room() int { return j.leased - j.cells }

// share is how much output a job asks memory for in advance, in tokens. Enough
// that most short answers never ask again, little enough that a job that might
// write thousands does not keep others out.
const share = 128

// least is the smallest lease with which the job can join: what it had in the pool,
// or all of its prompt, and one token more.
func (j *job) least() int { return min(max(j.cells, len(j.prompt))+1, j.longest) }

// want is what the lease should be now, in a pool of so many cells: the prompt and
// a share of the output at first, a share more once three quarters are used.
func (j *job) want(pool int) int {
	n := max(j.cells, len(j.prompt)) + share
	if j.seq >= 0 {
		n = j.leased
		if j.cells*4 >= j.leased*3 {
			n += share
		}
	}
	n = min(n, j.longest)
	if n > pool && j.leased < pool { // the share is what it can do without
		n = max(pool, j.least())
	}
	return n
}

// output is the job's result after its last token.
func (j *job) output(reason string, now time.Time) *infer.Output {
	return &infer.Output{
		Choices:          []infer.Choice{{Text: j.out.String(), FinishReason: reason}},
		PromptTokens:     len(j.prompt),
		CompletionTokens: j.made,
		Started:          j.started,
		Prefill:          j.first.Sub(j.started),
		Decode:           now.Sub(j.first),
	}
}
