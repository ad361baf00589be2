package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// AddressError says that a text does not name a file on a hub.
type AddressError struct {
	Address string
	Fault   string
}

func (e *AddressError) Error() string { return fmt.Sprintf("read address %q: %s", e.Address, e.Fault) }

// Hint says what is allowed.
func (e *AddressError) Hint() string {
	return "write hf://ORG/REPO/FILE.gguf, with @REVISION behind it if it is not main"
}

// EndpointError says that a file is to be fetched and no hub is known, or none that
// can be used.
type EndpointError struct {
	Ref      Ref
	Endpoint string // "" = none is set
}

func (e *EndpointError) Error() string {
	if e.Endpoint == "" {
		return fmt.Sprintf("fetch %v: the address of the hub is not set", e.Ref)
	}
	return fmt.Sprintf("fetch %v: the address of the hub is %q, which is no http or https address", e.Ref, e.Endpoint)
}

// Hint says what to set.
func (e *EndpointError) Hint() string {
	return "set HF_ENDPOINT, or hf_endpoint in the configuration, to the address of the hub, such as https://… of Hugging Face; or give --model PATH"
}

// NotFetchedError says that files are not in the cache, or no longer whole.
type NotFetchedError struct {
	Ref   Ref
	Files []Ref // of Ref's parts
}

func (e *NotFetchedError) Error() string {
	s := fmt.Sprintf("look in the cache: %v is not there", e.Ref)
	if n := len(e.Ref.Parts()); n > 1 {
		s += fmt.Sprintf(": %d of its %d files are missing", len(e.Files), n)
	}
	return s
}

// Hint says how to fetch them.
func (e *NotFetchedError) Hint() string {
	return "fetch it with worker setup --model " + e.Ref.String()
}

// AccessError says that the hub refuses a file to this user.
type AccessError struct {
	Ref    Ref
	Status int  // 401 or 403
	Token  bool // one was sent
}

func (e *AccessError) Error() string {
	return fmt.Sprintf("fetch %v: the hub refuses it: %s", e.Ref, statusText(e.Status))
}

// Hint says what to do.
func (e *AccessError) Hint() string {
	if e.Token {
		return "the token in HF_TOKEN may not read it: accept the model's terms on the hub with the token's account, or set another token; check the spelling too"
	}
	return "the model is gated or private, or there is none of that name: accept its terms on the hub, and set HF_TOKEN to a token that may read it"
}

// NotFoundError says that there is no such file on the hub.
type NotFoundError struct {
	Ref  Ref
	What string // "repository", "revision" or "file", where the hub tells it; "" = one of them
}

func (e *NotFoundError) Error() string {
	what := e.What
	if what == "" {
		what = "repository, revision or file"
	}
	return fmt.Sprintf("fetch %v: the hub has no such %s: organisation %q, repository %q, revision %q, file %q",
		e.Ref, what, e.Ref.Org, e.Ref.Repo, e.Ref.Revision, e.Ref.File)
}

// Hint says what to check.
func (e *NotFoundError) Hint() string {
	return "check the spelling on the model's page of the hub, under its files; a private one is hidden without HF_TOKEN"
}

// StatusError is an answer that is neither the file nor one of the errors above. Of
// one that may pass it says that it did not.
type StatusError struct {
	Ref    Ref
	Status int
	Host   string // who answered
	Fault  string // what is wrong with an answer of status 200 or 206; "" = the status says it
}

func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("fetch %v: %s answers %s %s", e.Ref, e.Host, statusText(e.Status), e.Fault))
}

// Hint says what to do.
func (e *StatusError) Hint() string {
	switch {
	case e.Status == http.StatusTooManyRequests:
		return "the hub takes no more requests for now: try again later, or set HF_TOKEN, with which it may take more"
	case e.Status >= 500:
		return "try again later; what was fetched is kept"
	}
	return "check HF_ENDPOINT: what answers there is no hub, or does not take this request"
}

// NetworkError says that the hub could not be reached, or that the connection broke
// again and again. What was fetched is kept.
type NetworkError struct {
	Ref  Ref
	Host string
	Err  error
}

func (e *NetworkError) Error() string {
	return fmt.Sprintf("fetch %v: ask %s: %v", e.Ref, e.Host, e.Err)
}

func (e *NetworkError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *NetworkError) Hint() string {
	return "check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT, and run the command again: it goes on where this one stopped"
}

// SpaceError says that the cache's disk has too little room. Nothing was fetched if
// Err is nil.
type SpaceError struct {
	Ref        Ref
	Dir        string
	Need, Free int64 // bytes
	Err        error // of the write that failed; nil = it was seen before
}

func (e *SpaceError) Error() string {
	s := fmt.Sprintf("fetch %v: no space left in %s: it needs %s, and %s are free", e.Ref, e.Dir, Size(e.Need), Size(e.Free))
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}

func (e *SpaceError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *SpaceError) Hint() string {
	return "make room there, or set XDG_CACHE_HOME to a directory on a larger disk; what was fetched is kept"
}

// DigestError says that what came is not what the hub has said. Nothing of it was
// kept.
type DigestError struct {
	Ref       Ref
	Got, Want string // SHA-256, in hexadecimal
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("verify %v: its SHA-256 is %s, the hub says %s", e.Ref, e.Got, e.Want)
}

// Hint says what to do.
func (e *DigestError) Hint() string {
	return "the file was changed or damaged on its way: try again, or ask whoever runs the mirror in HF_ENDPOINT"
}

// errChanged says that the hub has another file under that name than a moment ago.
var errChanged = errors.New("the file on the hub was changed while it was fetched")

// statusText is an HTTP status for people.
func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// Size writes a number of bytes for people: 4.1 GB.
func Size(bytes int64) string {
	const step = 1000
	if bytes < step {
		return fmt.Sprintf("%d bytes", bytes)
	}
	value, unit := float64(bytes)/step, 0
	units := []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= step && unit < len(units)-1 {
		value, unit = value/step, unit+1
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
