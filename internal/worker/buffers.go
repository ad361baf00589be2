package worker

import (
	"errors"
	"fmt"

	"tempo/api"
	"tempo/internal/budget"
)

// hostID is the name of the host memory's ledger.
const hostID = "host memory"

// ticketBuffers is the host memory that is leased for a job that is not here.
const ticketBuffers = 64 * budget.KiB

// errNoBuffers says that there is no host memory for a job's request and result
// now; it goes back to the queue.
var errNoBuffers = errors.New("the host memory for requests and results is full")

// Of an answer, in bytes: a token's text; a log probability with its token's text and
// bytes, as JSON in the end; and a number of a vector. All are there twice. Of sets the
// engine's process has its part too, which is as large (with 100,000 tokens both held up to 306
// bytes for each, and 956 where the result lists them): a token of a set while the job runs, and
// in the text; and one in the result, as it is there and as JSON, which is copied.
const (
	tokenBytes   = 16
	logprobBytes = 128
	memberBytes  = 144
	listedBytes  = 336
	numberBytes  = 16
)

// setsShare is the part of the host memory, 1/setsShare, that what one job makes of sets may take.
// Without max_tokens that is what counts, for few answers come near to what they could have.
const setsShare = 8

// perToken is the host memory that a token of an answer takes.
func perToken(request *api.Request) budget.Bytes {
	n := tokenBytes
	if request.Logprobs {
		n += (1 + request.TopLogprobs) * logprobBytes
	}
	if p := request.Parallel; p != nil {
		n += memberBytes
		if p.ReturnSets {
			n += listedBytes
		}
	}
	return 2 * budget.Bytes(n)
}

// bufferBytes is the host memory that a job takes on its way: the message, the
// parsed request, the request to the engine and its tokens; and what it answers, with
// at most so many tokens in each answer or so many numbers in each vector.
func bufferBytes(job api.Job, request *api.Request, longest, numbers int) budget.Bytes {
	answer := perToken(request).Mul(int64(longest)).Mul(int64(max(request.N, 1)))
	if request.URL == api.Embeddings {
		answer = budget.Bytes(numbers).Mul(int64(len(request.Input)) * 2 * numberBytes)
	}
	return ticketBuffers.Add(4 * budget.Bytes(len(job.Body))).Add(answer)
}

// mostTokens is how many tokens an answer can have here. Of sets it can have no more than there is
// host memory for: the engine ends the answer there, so that no such job is refused.
func (w *Worker) mostTokens(request *api.Request) int {
	p := request.Parallel
	if p == nil {
		return w.positions(request, int(w.cells.Load()))
	}
	cells := max(int(w.cells.Load()), w.wantedCells()) // the pool can grow while the job runs
	if n := p.MaxCacheTokens; n > 0 {
		cells = min(cells, n)
	}
	most := w.positions(request, cells) * w.widthOf(p) // each has a token that is left
	if p.Removal == nil {                              // what was removed is not in the cache, but in the result
		most = min(most, cells)
	}
	return max(min(most, int(w.opts.HostMemory/setsShare/perToken(request))), 1)
}

// positions is how long an answer can be of a job that has at most so many cells.
func (w *Worker) positions(request *api.Request, cells int) int {
	most := min(w.facts.Context, cells)
	if n := request.MaxTokens; n > 0 {
		most = min(most, n)
	}
	return most
}

// leaseBuffers grows a job's lease on host memory to what it takes now that it is
// known, and notes how much its sets can have with that.
func (w *Worker) leaseBuffers(j *job, request *api.Request) error {
	most := w.mostTokens(request)
	if request.Parallel != nil {
		j.most = most
	}
	need := bufferBytes(j.delivery.Job, request, most, w.facts.Embedding).Sub(j.buffers.Size())
	err := j.buffers.Grow(max(need, 0))
	switch {
	case errors.Is(err, budget.ErrNoRoom):
		return errNoBuffers
	case err != nil:
		hints := []string{fmt.Sprintf("send a request of less than %v", w.opts.HostMemory/5)}
		if request.Parallel == nil { // else the answer has its bound already
			hints = append(hints, "lower max_tokens, n or top_logprobs, or send fewer texts in one job")
		}
		return &budget.TooLargeError{
			What: "the request and the result of a job in " + hostID, Need: j.buffers.Size().Add(need), Capacity: w.opts.HostMemory,
			Hints: hints,
		}
	}
	return nil
}
