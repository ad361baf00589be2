package infer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/sourcegraph/jsonrpc2"

	"tempo/api"
)

// The worker and the engine process speak JSON-RPC 2.0 over a Unix socket pair,
// both as callers. The worker calls open, dry_run, load, reshape, narrow and generate, and tells
// cancel; the engine calls resize while a job runs. Nothing is sent per token.
const (
	methodOpen     = "open"     // Spec → Facts
	methodDryRun   = "dry_run"  // Shape → budget.Footprint
	methodLoad     = "load"     // Shape → budget.Footprint
	methodReshape  = "reshape"  // Shape → budget.Footprint
	methodNarrow   = "narrow"   // int → nothing
	methodGenerate = "generate" // wireRequest → Output
	methodCancel   = "cancel"   // wireJob; no answer, generate ends instead
	methodReclaim  = "reclaim"  // wireJob; no answer, resize is called instead
	methodResize   = "resize"   // wireResize → nothing
)

// wireJob names a running job.
type wireJob struct {
	ID string `json:"id"`
}

// wireRequest is a Request without its lease, which stays with the worker.
type wireRequest struct {
	wireJob
	Job  *api.Request `json:"job"`
	Seed uint32       `json:"seed"`
	// Priority is Request's.
	Priority int `json:"priority,omitempty"`
	Most     int `json:"most,omitempty"` // Request's
	Leased   int `json:"leased"`         // tokens of the lease at the start
}

// wireResize asks for tokens on behalf of a job.
type wireResize struct {
	wireJob
	Used   int `json:"used"`
	Tokens int `json:"tokens"`
}

// Codes of the errors that keep their type on the way.
const (
	codeFailed    = 1 // anything else
	codeRequest   = 2 // *RequestError
	codeStart     = 3 // *StartError
	codeLease     = 4 // the lease's own, which the worker still has
	codeCancelled = 5
	codeNoGPU     = 6  // *NoGPUError
	codeStopped   = 7  // ErrStopped: the process is about to end
	codePool      = 8  // *PoolError
	codeBusy      = 9  // *BusyError
	codeTimeout   = 10 // *TimeoutError
)

// errLease stands for the error of a lease on the engine's side.
var errLease = errors.New("the worker refused the memory")

// toWire turns an error into its form on the wire.
func toWire(err error) *jsonrpc2.Error {
	out := &jsonrpc2.Error{Code: codeFailed, Message: err.Error()}
	var request *RequestError
	var start *StartError
	var noGPU *NoGPUError
	var pool *PoolError
	var busy *BusyError
	var timeout *TimeoutError
	switch {
	case errors.As(err, &noGPU):
		out.Code = codeNoGPU
		out.SetError(noGPU)
	case errors.As(err, &request):
		out.Code = codeRequest
		out.SetError(request)
	case errors.As(err, &pool):
		out.Code = codePool
		out.SetError(pool)
	case errors.As(err, &busy):
		out.Code = codeBusy
		out.SetError(busy)
	case errors.As(err, &timeout):
		out.Code = codeTimeout
		out.SetError(timeout)
	case errors.As(err, &start):
		out.Code = codeStart
		out.SetError(wireStart{What: start.What, Advice: start.Advice, Cause: start.Err.Error()})
	case errors.Is(err, errLease):
		out.Code = codeLease
	case errors.Is(err, ErrStopped):
		out.Code = codeStopped
	case errors.Is(err, context.Canceled):
		out.Code = codeCancelled
	}
	return out
}

type wireStart struct {
	What   string `json:"what"`
	Advice string `json:"hint"`
	Cause  string `json:"cause"`
}

// fromWire is the inverse of toWire.
func fromWire(err error) error {
	var e *jsonrpc2.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case codeNoGPU:
		return data(e, &NoGPUError{})
	case codeRequest:
		return data(e, &RequestError{})
	case codePool:
		return data(e, &PoolError{})
	case codeBusy:
		return data(e, &BusyError{})
	case codeTimeout:
		return data(e, &TimeoutError{})
	case codeStart:
		var s wireStart
		if e.Data != nil && json.Unmarshal(*e.Data, &s) == nil {
			return &StartError{What: s.What, Advice: s.Advice, Err: errors.New(s.Cause)}
		}
	case codeLease:
		return errLease
	case codeStopped:
		return ErrStopped
	case codeCancelled:
		return context.Canceled
	}
	return errors.New(e.Message)
}

// data is the error that came as e's data; without that, its text alone.
func data[E error](e *jsonrpc2.Error, out E) error {
	if e.Data == nil || json.Unmarshal(*e.Data, out) != nil {
		return errors.New(e.Message)
	}
	return out
}

// connect starts a JSON-RPC connection; handle is called for each request in the
// order of arrival and must not block.
func connect(ctx context.Context, conn net.Conn, handle handlerFunc) *jsonrpc2.Conn {
	return jsonrpc2.NewConn(ctx, jsonrpc2.NewPlainObjectStream(conn), handle,
		jsonrpc2.SetLogger(log.New(io.Discard, "", 0)))
}

type handlerFunc func(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request)

func (f handlerFunc) Handle(ctx context.Context, c *jsonrpc2.Conn, r *jsonrpc2.Request) { f(ctx, c, r) }

// answer sends the outcome of a request. A connection that is gone needs none.
func answer(ctx context.Context, conn *jsonrpc2.Conn, id jsonrpc2.ID, result any, err error) {
	if err != nil {
		_ = conn.ReplyWithError(ctx, id, toWire(err))
		return
	}
	_ = conn.Reply(ctx, id, result)
}

// params decodes a request's parameters.
func params[T any](r *jsonrpc2.Request) (v T, err error) {
	if r.Params == nil {
		return v, errors.New(r.Method + " needs parameters")
	}
	if err := json.Unmarshal(*r.Params, &v); err != nil {
		return v, fmt.Errorf("decode the parameters of %s: %w", r.Method, err)
	}
	return v, nil
}
