package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// file is a file as the hub describes it.
type file struct {
	ref    Ref
	etag   string // without quotes; "" = the hub tells none
	sha256 string // in hexadecimal; "" = the hub tells none
	size   int64  // in bytes; 0 = not known
	commit string
}

// isSHA256 is the form of an ETag that is the SHA-256 of a file in large file storage.
var isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// learn takes what a response tells. own says that it came from the hub, and not from
// a store that it has sent us to: the ETag of a store is not the hub's, and no digest.
// What was said first counts: the hub speaks before the store does.
func (f *file) learn(h http.Header, length int64, own, last bool) {
	if f.commit == "" && own {
		f.commit = h.Get("X-Repo-Commit")
	}
	etag, size := h.Get("X-Linked-Etag"), number64(h.Get("X-Linked-Size"))
	if last && etag == "" {
		etag = h.Get("ETag")
	}
	if last && size == 0 {
		size = length
	}
	if f.etag == "" {
		f.etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
		if own && isSHA256.MatchString(strings.ToLower(f.etag)) {
			f.sha256 = strings.ToLower(f.etag)
		}
	}
	if f.size == 0 {
		f.size = size
	}
}

func number64(digits string) int64 {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// newHTTP makes the connection to hubs. Redirects are left to ask.
func newHTTP() *http.Client {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 30 * time.Second,
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// maxHops is how often an answer may send us elsewhere.
const maxHops = 10

// describe asks the hub what it has under a name.
func (c *Client) describe(ctx context.Context, endpoint *url.URL, r Ref) (file, error) {
	ctx, _, stop := c.watch(ctx)
	defer stop()
	response, f, err := c.ask(ctx, endpoint, http.MethodHead, file{ref: r}, 0)
	if err != nil {
		return f, err
	}
	response.Body.Close()
	if f.size <= 0 {
		return f, &StatusError{Ref: r, Status: response.StatusCode, Host: response.Request.URL.Host, Fault: "without the file's size"}
	}
	return f, nil
}

// ask sends a request for a file, from the byte at offset on, and follows to where
// the hub keeps it. The answer has status 200 or 206; for HEAD it can be that of the
// hub before the last redirect, which says all there is to know. If the file is no
// longer the one that is wanted, as far as that is described, the error is errChanged.
func (c *Client) ask(ctx context.Context, endpoint *url.URL, method string, want file, offset int64) (*http.Response, file, error) {
	r := want.ref
	f := file{ref: r}
	at := r.url(endpoint)
	for range maxHops {
		request, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
		if err != nil {
			return nil, f, fmt.Errorf("fetch %v: make request: %w", r, err)
		}
		request.Header.Set("User-Agent", "tempo")
		request.Header.Set("Accept-Encoding", "identity") // ranges count bytes of the file
		if offset > 0 {
			request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		}
		own := at.Scheme == endpoint.Scheme && strings.EqualFold(at.Host, endpoint.Host)
		if own && c.opts.Token != "" {
			request.Header.Set("Authorization", "Bearer "+c.opts.Token)
		}
		response, err := c.http.Do(request)
		if err != nil {
			return nil, f, networkError(ctx, r, at, err)
		}
		redirect := isRedirect(response.StatusCode)
		f.learn(response.Header, fullLength(response), own, !redirect)
		if response.StatusCode >= http.StatusBadRequest {
			response.Body.Close()
			return nil, f, c.refusal(response, r, own, offset)
		}
		known := !redirect || f.etag != "" && f.size > 0
		if known && want.size > 0 && (f.etag != want.etag || f.size != want.size) {
			response.Body.Close()
			return nil, f, errChanged
		}
		if !redirect || known && method == http.MethodHead {
			return response, f, nil
		}
		response.Body.Close()
		if at, err = follow(at, response.Header.Get("Location")); err != nil {
			return nil, f, &NetworkError{Ref: r, Host: request.URL.Host, Err: err}
		}
	}
	return nil, f, &NetworkError{Ref: r, Host: at.Host, Err: fmt.Errorf("it has sent us elsewhere %d times", maxHops)}
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// follow is the address that a redirect names.
func follow(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil || location == "" || to.Host == "" {
		return nil, errors.New("it sends us elsewhere, and does not say where")
	}
	if to.Scheme != "https" && to.Scheme != from.Scheme {
		return nil, fmt.Errorf("it sends us to %s by %s, which does not protect the file", to.Host, to.Scheme)
	}
	return to, nil
}

// fullLength is the size of the whole file that a response is of, 0 if it is not known.
func fullLength(r *http.Response) int64 {
	if r.StatusCode == http.StatusPartialContent {
		_, total := contentRange(r.Header)
		return total
	}
	return max(r.ContentLength, 0)
}

// contentRange takes "bytes 5-9/10" apart: the first byte, and the size of the whole.
// start is -1 if there is no such header.
func contentRange(h http.Header) (start, total int64) {
	text, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes ")
	span, size, ok2 := strings.Cut(text, "/")
	first, _, ok3 := strings.Cut(span, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil {
		return -1, 0
	}
	return n, number64(size)
}

// refusal is the error for a status of 400 and more. own says that the hub answers,
// and not a store that it has sent us to.
func (c *Client) refusal(response *http.Response, r Ref, own bool, offset int64) error {
	status := response.StatusCode
	e := &StatusError{Ref: r, Status: status, Host: response.Request.URL.Host}
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return &passing{err: e, after: retryAfter(response.Header, time.Now())}
	case status == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return errRange
	case status == http.StatusNotFound:
		what := map[string]string{"RepoNotFound": "repository", "RevisionNotFound": "revision", "EntryNotFound": "file"}
		return &NotFoundError{Ref: r, What: what[response.Header.Get("X-Error-Code")]}
	case !own && status == http.StatusForbidden: // the address was good for a time only
		return &passing{err: e}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return &AccessError{Ref: r, Status: status, Token: c.opts.Token != ""}
	}
	return e
}

// networkError is the error for a request without an answer. It says nothing of the
// address but the host: that of a store is signed.
func networkError(ctx context.Context, r Ref, at *url.URL, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	e := &NetworkError{Ref: r, Host: at.Host, Err: err}
	certificate, _ := errors.AsType[*tls.CertificateVerificationError](err)
	name, _ := errors.AsType[*net.DNSError](err)
	if certificate != nil || name != nil && name.IsNotFound {
		return e // it will be the same the next time
	}
	return &passing{err: e}
}
