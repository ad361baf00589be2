package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tempo/internal/setup"
)

// Options say where the hub is and who wants to know what happens. The zero value
// serves what is in the user's cache.
type Options struct {
	// Endpoint is the address of the hub, such as HF_ENDPOINT has it; "" = there is
	// none, and nothing can be fetched.
	Endpoint string
	// Token is sent to the hub, and to nobody else; "" = none.
	Token    string
	CacheDir string // "" = setup.CacheDir
	// Verify has Fetch read files that are in the cache, byte for byte, and fetch anew
	// those that were damaged. Else their sizes are checked.
	Verify bool
	// Progress is told how many bytes of all files are there, some times a second, from
	// the goroutine that calls Fetch; nil = nobody wants to know.
	Progress func(done, total int64)
	// Note is told what takes longer than it should, for people; nil = nobody reads it.
	Note func(text string)
}

// Client fetches from a hub. It is safe for concurrent use.
type Client struct {
	opts  Options
	http  *http.Client
	stall time.Duration // without a byte, after which a connection counts as broken
	pause func(ctx context.Context, d time.Duration) bool
}

// New makes a client.
func New(o Options) *Client {
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return &Client{opts: o, http: newHTTP(), stall: stallAfter, pause: pause}
}

// Offer is what the hub would give.
type Offer struct {
	Files int
	Bytes int64 // of all files together
	Here  int64 // of them, what is in the cache already, also of files that are not complete
}

// Look asks the hub for a model that is not in the cache, and fetches nothing. Its
// errors are those of Fetch.
func (c *Client) Look(ctx context.Context, r Ref) (Offer, error) {
	root, err := rootOf(c.opts.CacheDir)
	if err != nil {
		return Offer{}, err
	}
	endpoint, err := c.endpoint(r)
	if err != nil {
		return Offer{}, err
	}
	defer c.http.CloseIdleConnections()
	files, err := c.look(ctx, endpoint, r)
	if err != nil {
		return Offer{}, err
	}
	o := Offer{Files: len(files)}
	for _, f := range files {
		o.Bytes += f.size
		path := f.ref.path(root)
		if checkSize(path) == nil {
			o.Here += f.size
		} else {
			o.Here += sizeOf(partOf(path, f.etag))
		}
	}
	return o, nil
}

// Fetch makes sure that a model is in the cache, and returns its path: of its first
// file if it has several. One that is there is not fetched again, whatever the hub has
// by now. Two at once are safe, in one process or several: the second waits.
//
// Its errors have hints: *EndpointError if no hub is known, *AccessError if it wants
// a token or another one, *NotFoundError, *SpaceError before the disk is full,
// *DigestError, *NetworkError and *StatusError after several tries. If ctx is done the
// error wraps its cause. What was fetched before an error is kept, unless its digest
// is wrong, and the next Fetch goes on behind it.
func (c *Client) Fetch(ctx context.Context, r Ref) (string, error) {
	root, err := rootOf(c.opts.CacheDir)
	if err != nil {
		return "", err
	}
	// Looked at without hub and lock first: the cache may be read-only.
	if path, missing, err := c.locate(ctx, root, r); missing == nil {
		return path, err
	}
	endpoint, err := c.endpoint(r)
	if err != nil {
		return "", err
	}
	path := r.Parts()[0].path(root)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	unlock, err := setup.Lock(ctx, path+".lock", func() { c.opts.Note("another process fetches " + r.String() + "; this one waits for it") })
	if err != nil {
		return "", err
	}
	defer unlock()
	_, missing, err := c.locate(ctx, root, r)
	if missing == nil { // the other process has fetched it
		return path, err
	}
	defer c.http.CloseIdleConnections()
	const looks = 3
	for i := 1; ; i++ {
		err := c.fetch(ctx, endpoint, root, r, missing)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, errChanged) || i == looks {
			return "", err
		}
		c.opts.Note(r.String() + " was changed on the hub; the new one is fetched")
	}
}

// locate looks into the cache, as closely as the options say. missing are the files
// that are not whole; an error is another.
func (c *Client) locate(ctx context.Context, root string, r Ref) (path string, missing []Ref, err error) {
	check := checkSize
	if c.opts.Verify {
		check = func(path string) error { return checkBytes(ctx, path) }
	}
	path, err = locate(root, r, check)
	if ctx.Err() != nil {
		return "", nil, fmt.Errorf("look in the cache: %w", context.Cause(ctx))
	}
	if lacks, ok := errors.AsType[*NotFetchedError](err); ok {
		return "", lacks.Files, nil
	}
	return path, nil, err
}

// endpoint is the hub's address.
func (c *Client) endpoint(r Ref) (*url.URL, error) {
	u, err := url.Parse(c.opts.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		_, hidden, _ := strings.Cut(c.opts.Endpoint, "@") // behind a user and a password
		return nil, &EndpointError{Ref: r, Endpoint: cmp.Or(hidden, c.opts.Endpoint)}
	}
	return u, nil
}

// look asks the hub for all files of a model.
func (c *Client) look(ctx context.Context, endpoint *url.URL, r Ref) ([]file, error) {
	var files []file
	for _, part := range r.Parts() {
		var f file
		err := c.retry(ctx, part, func() (_ bool, err error) {
			f, err = c.describe(ctx, endpoint, part)
			return false, err
		})
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// fetch fetches the files of a model that are missing, and those that the hub has
// changed since the others were fetched.
func (c *Client) fetch(ctx context.Context, endpoint *url.URL, root string, r Ref, missing []Ref) error {
	files, err := c.look(ctx, endpoint, r)
	if err != nil {
		return err
	}
	var wanted []file
	m := &meter{tell: c.opts.Progress}
	var need int64
	for _, f := range files {
		m.total += f.size
		path := f.ref.path(root)
		if had, err := readManifest(path); err == nil && had.ETag == f.etag && had.Bytes == f.size && !slices.Contains(missing, f.ref) {
			m.done += f.size
			continue
		}
		wanted = append(wanted, f)
		need += max(f.size-sizeOf(partOf(path, f.etag)), 0)
	}
	dir := filepath.Dir(files[0].ref.path(root))
	if free, err := freeSpace(dir); err == nil && need > free {
		return &SpaceError{Ref: r, Dir: dir, Need: need, Free: free}
	}
	for _, f := range wanted {
		if err := c.fetchFile(ctx, endpoint, root, f, m); err != nil {
			return err
		}
	}
	return nil
}

// meter counts the bytes of all files.
type meter struct {
	tell        func(done, total int64)
	done, total int64
	told        time.Time
}

// tellEvery is the time between two calls of Options.Progress.
const tellEvery = 200 * time.Millisecond

// add counts n bytes; fewer than 0 if they are to be fetched anew.
func (m *meter) add(n int64) {
	m.done += n
	if now := time.Now(); m.done == m.total || now.Sub(m.told) >= tellEvery {
		m.told = now
		m.tell(m.done, m.total)
	}
}
