package queue

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// States that a caller can meet.
var (
	// ErrNoBatch: there is no batch with this id, or it has been removed.
	ErrNoBatch error = noBatchError{}
	// ErrNoStreams: a stream or a bucket is not there, [Client.EnsureTopology] has not
	// been called on this server.
	ErrNoStreams error = jetstream.ErrBucketNotFound
	// Stop is what the function of [Client.Results] returns to end the reading
	// without an error.
	Stop = errors.New("stop reading results") //nolint:gochecknoglobals,staticcheck // a sentinel, as Err…, but not a failure
)

type noBatchError struct{}

func (noBatchError) Error() string { return "no such batch" }

// Hint says what to do.
func (noBatchError) Hint() string { return "submit status lists the batches that are there" }

// ConnectError says that the first connection to the server failed.
type ConnectError struct {
	URL string // without passwords
	Err error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to NATS at %s: %v", e.URL, e.Err) }

func (e *ConnectError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *ConnectError) Hint() string {
	var network *net.OpError
	switch {
	case errors.Is(e.Err, nats.ErrAuthorization), errors.Is(e.Err, nats.ErrAuthExpired), errors.Is(e.Err, nats.ErrAuthRevoked):
		return "check who you are to the server: --creds, --user and --password, or --nkey"
	case errors.Is(e.Err, nats.ErrNoServers), errors.Is(e.Err, nats.ErrTimeout), errors.As(e.Err, &network):
		return "start a server (make nats-server && bin/nats-server -c deployments/nats/nats-server.conf), give another address with --server, or run everything in one process with submit run --local"
	default:
		return "check the settings of the connection: --server, --creds, --nkey, --tlscert, --tlskey, --tlsca"
	}
}

// NoJetStreamError says that the server has no JetStream for this account.
type NoJetStreamError struct{ Err error }

func (e *NoJetStreamError) Error() string { return fmt.Sprintf("look for JetStream: %v", e.Err) }

func (e *NoJetStreamError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *NoJetStreamError) Hint() string {
	return "start the server with JetStream (bin/nats-server -c deployments/nats/nats-server.conf), or enable it for the account"
}

// TopologyError says that a stream exists, but not as Tempo needs it. Nothing of
// it was changed.
type TopologyError struct {
	Stream      string
	Differences []string // "retention is limits, must be workqueue", …
	Server      string   // version of the server
}

func (e *TopologyError) Error() string {
	return fmt.Sprintf("check stream %s: %s", e.Stream, strings.Join(e.Differences, "; "))
}

// Hint says what to do.
func (e *TopologyError) Hint() string {
	return fmt.Sprintf("use another account or server, or remove the stream with everything in it (nats stream rm %s); "+
		"atomic batches need nats-server 2.12 or newer, this one is %s", e.Stream, e.Server)
}

// TooLargeError says that a request is larger than the queue takes.
type TooLargeError struct {
	Line int // line of the input file, from 1; 0 = not from a file
	Size int // in bytes
	Max  int // in bytes
}

func (e *TooLargeError) Error() string {
	var line string
	if e.Line > 0 {
		line = fmt.Sprintf("line %d: ", e.Line)
	}
	return fmt.Sprintf("%sthe request has %d bytes, the queue takes at most %d", line, e.Size, e.Max)
}

// Hint says what to do.
func (e *TooLargeError) Hint() string {
	return "make it shorter"
}

// DirInUseError says that another process has its server on the directory.
type DirInUseError struct {
	Dir string
	PID int // of the process that holds it; 0 = not known
}

func (e *DirInUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("open queue directory %s: another process uses it", e.Dir)
	}
	return fmt.Sprintf("open queue directory %s: process %d uses it", e.Dir, e.PID)
}

// Hint says what to do.
func (e *DirInUseError) Hint() string {
	return "wait until the other run has ended, or give this one its own directory with --store-dir"
}

// ListenError says that the embedded server cannot listen on its address.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Addr, e.Err) }

func (e *ListenError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *ListenError) Hint() string {
	return "give another address with --listen (port 0 = any free one), or leave --listen out"
}
