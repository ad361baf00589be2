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
// bytes, as JSON in the end; a token of a set, as JSON; and a number of a vector.
const (
	tokenBytes   = 16
	logprobBytes = 128
	memberBytes  = 128
	numberBytes  = 16
)

// bufferBytes is the host memory that a job takes on its way: the message, the
// parsed request, the request to the engine and its tokens; and what it answers, with
// at most so many tokens in each answer or so many numbers in each vector, twice.
func bufferBytes(job api.Job, request *api.Request, longest, numbers int) budget.Bytes {
	answer := budget.Bytes(longest).Mul(tokenBytes)
	if request.Logprobs {
		answer = answer.Add(budget.Bytes(longest).Mul(int64(1+request.TopLogprobs) * logprobBytes))
	}
	if p := request.Parallel; p != nil && p.ReturnSets {
		answer = answer.Add(budget.Bytes(longest).Mul(memberBytes))
	}
	answer = answer.Mul(int64(max(request.N, 1)))
	if request.URL == api.Embeddings {
		answer = budget.Bytes(numbers).Mul(int64(len(request.Input)) * numberBytes)
	}
	return ticketBuffers.Add(4 * budget.Bytes(len(job.Body))).Add(answer.Mul(2))
}

// mostTokens is how many tokens an answer can have here.
func (w *Worker) mostTokens(request *api.Request) int {
	most := w.context()
	if n := request.MaxTokens; n > 0 {
		most = min(most, n)
	}
	if request.Parallel != nil {
		most *= w.widthOf(request.Parallel)
		if request.Parallel.Removal == nil { // what was removed is not in the cache, but in the result
			most = min(most, int(w.cells.Load()))
		}
	}
	return most
}

// leaseBuffers grows a job's lease on host memory to what it takes now that it is
// known.
func (w *Worker) leaseBuffers(j *job, request *api.Request) error {
	need := bufferBytes(j.delivery.Job, request, w.mostTokens(request), w.facts.Embedding).Sub(j.buffers.Size())
	err := j.buffers.Grow(max(need, 0))
	switch {
	case errors.Is(err, budget.ErrNoRoom):
		return errNoBuffers
	case err != nil:
		return &budget.TooLargeError{
			What: "the request and the result of a job in " + hostID, Need: j.buffers.Size().Add(need), Capacity: w.opts.HostMemory,
			Hints: []string{fmt.Sprintf("send a request of less than %v", w.opts.HostMemory/5), "lower max_tokens, n or top_logprobs, or send fewer texts in one job"},
		}
	}
	return nil
}
