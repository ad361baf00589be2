package schedule

import (
	"context"
	"sync"
	"time"

	"tempo/internal/infer"
	"tempo/internal/infer/llama"
	"tempo/internal/infer/sample"
)

// job is a job in the scheduler. All fields belong to the goroutine of Run.
type job struct {
	req infer.Request
	ctx context.Context //nolint:containedctx // the job's own: it ends the job at the next step

	tokens  []llama.Token // its prompt, and what it has generated for the answer that it is at
	prompt  int           // of tokens, are the prompt
	limit   int           // most cells that it could ever use: prompt and all the output it may have
	longest int           // the same within the pool
	pool    *pool         // in which it has a seat, nil before it has joined
	seat    *seat
	cells   int // of tokens, are in the pool: they were decoded
	leased  int // cells it may use
	asking  bool
	recall  bool           // the owner of the memory wants it back, and was not answered yet
	saved   *llama.Saved   // its KV while it is out of the pool, else nil
	inexact bool           // what is saved is not of a pool for reproducible jobs
	asks    sync.WaitGroup // requests for memory under way
	passed  int            // jobs that came later and joined before it
	evicted bool           // it has lost its seat to another layout once
	timeout *time.Timer    // nil = it has none, or has not joined yet

	answer  answer // that it is at
	choices []infer.Choice
	grammar *llama.Grammar // of which each answer has a copy; nil = none
	index   int            // of its output in the batch of this step, -1 if it has none
	cached  int            // tokens of the prompt that were there already
	made    int            // tokens generated in all answers

	vectors *vectors // of an embeddings job, else nil
	sets    *sets    // of a job with several tokens at one position, else nil

	started, first time.Time
	done           chan outcome // receives once
}

// answer is one of the answers to a job's prompt.
type answer struct {
	text    *text
	sampler *sample.Sampler
	grammar *llama.Grammar // nil = none
	picked  sample.Picked  // of this step
	err     error          // of picking it
	logs    []infer.TokenLogprobs
}

type outcome struct {
	out *infer.Output
	err error
}

// pending is how many of its tokens are still to be decoded, at least one while it runs.
func (j *job) pending() int { return len(j.tokens) - j.cells }

// prefilling reports whether more than the next token, or set, is to be decoded. A reproducible
// job generates again as it did the first time, token by token.
func (j *job) prefilling() bool {
	return j.cells < j.prompt || j.pending() > j.newest() && !j.pool.exact
}

// newest is how many tokens the newest position has.
func (j *job) newest() int {
	if j.sets != nil && j.sets.Positions() > 0 {
		return j.sets.Last().Left
	}
	return 1
}

// exact reports whether it must be reproducible.
func (j *job) exact() bool { return j.req.Job.Reproducible }

// room is how many more tokens its lease and its seat let into the pool.
func (j *job) room() int { return min(j.leased, j.pool.longest()-j.spare()) - j.cells }

// spare is how many cells beyond its own a job must have in its seat, see pool.pair.
func (j *job) spare() int {
	if j.exact() && j.vectors == nil {
		return 1
	}
	return 0
}

// most is how many cells the job could use where there are so many.
func (j *job) most(cells int) int { return min(j.limit, j.within(cells)-j.spare()) }

// within is how many of so many cells a pool for the job has at most.
func (j *job) within(cells int) int {
	if j.sets != nil && j.sets.attends != nil {
		return j.sets.attends(cells)
	}
	return cells
}

// share is how much output a job asks memory for in advance, in tokens. Enough
// that most short answers never ask again, little enough that a job that might
// write thousands does not keep others out. Of wide sets it is setsAhead at least.
const (
	share     = 128
	setsAhead = 8
)

// fewest is how many cells there must be for the job to get on at all.
func (j *job) fewest() int {
	if j.vectors != nil {
		return j.limit
	}
	return len(j.tokens) + 1
}

// share is that of the job.
func (j *job) share() int {
	if j.sets != nil { // a few sets, however wide
		return max(share, setsAhead*j.newest())
	}
	return share
}

// least is the smallest lease with which the job can join: what it has, and one token
// more.
func (j *job) least() int {
	if j.vectors != nil {
		return j.longest
	}
	return min(len(j.tokens)+1, j.longest)
}

// want is what the lease should be now, in a pool of so many cells: the prompt and
// a share of the output at first, a share more once three quarters are used.
func (j *job) want(pool int) int {
	if j.vectors != nil {
		return j.longest
	}
	n := len(j.tokens) + j.share()
	switch {
	case j.seat == nil:
	case j.sets != nil:
		n = j.sets.want(j.leased, n)
	case j.cells*4 >= j.leased*3:
		n = j.leased + share
	default:
		n = j.leased
	}
	n = min(n, j.longest)
	if pool = j.within(pool); n > pool && (j.leased < pool || j.seat == nil) { // the share is what it can do without
		n = max(pool, j.least())
	}
	return n
}

// unseat notes that the job has no seat any more.
func (j *job) unseat() {
	j.pool, j.seat = nil, nil
	if j.sets != nil { // where its members are in the pool, and how they are kept apart, is over
		j.sets.tags = nil
		j.sets.Settle()
	}
}

// restart has all of its tokens decoded anew.
func (j *job) restart() {
	j.cells = 0
	if j.vectors != nil {
		j.vectors.sum = nil
	}
}

// drop forgets what is saved of the job.
func (j *job) drop() {
	if j.saved != nil {
		j.saved.Free()
		j.saved = nil
	}
}

// free gives back what Go's collector does not.
func (j *job) free() {
	j.drop()
	j.answer.close()
	if j.grammar != nil {
		j.grammar.Close()
	}
}

// output is the job's result after its last token.
func (j *job) output(now time.Time) *infer.Output {
	return &infer.Output{
		Choices:          j.choices,
		PromptTokens:     j.prompt,
		CompletionTokens: j.made,
		CachedTokens:     j.cached,
		Started:          j.started,
		Prefill:          j.first.Sub(j.started),
		Decode:           now.Sub(j.first),
	}
}
