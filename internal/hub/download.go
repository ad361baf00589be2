package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fetchFile fetches one file into the cache.
func (c *Client) fetchFile(ctx context.Context, endpoint *url.URL, root string, f file, m *meter) error {
	path := f.ref.path(root)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the cache directory: %w", err)
	}
	partPath := partOf(path, f.etag)
	if err := sweep(path, partPath); err != nil {
		return err
	}
	p, err := openPart(ctx, partPath, f)
	if err != nil {
		return err
	}
	defer p.file.Close()
	had := p.n
	m.add(p.n)
	for {
		err := c.gather(ctx, endpoint, f, p, m)
		if err == nil {
			err = p.finish(path, manifest{Source: f.ref.String(), Hub: endpoint.String(), Commit: f.commit, ETag: f.etag, Bytes: f.size})
		}
		var wrong *DigestError
		if !errors.As(err, &wrong) {
			return err
		}
		if err := p.reset(m); err != nil {
			return err
		}
		if had == 0 {
			return errors.Join(err, os.Remove(partPath))
		}
		had = 0 // what an earlier run had left may have been damaged
		c.opts.Note(wrong.Error() + "; it is fetched anew")
	}
}

// gather fetches until the part is complete.
func (c *Client) gather(ctx context.Context, endpoint *url.URL, f file, p *part, m *meter) error {
	best := p.n
	return c.retry(ctx, f.ref, func() (bool, error) {
		if p.n == f.size {
			return false, nil
		}
		err := c.pull(ctx, endpoint, f, p, m)
		further := p.n > best
		best = max(best, p.n)
		return further, err
	})
}

// pull asks for what a part lacks, and writes what comes.
func (c *Client) pull(ctx context.Context, endpoint *url.URL, f file, p *part, m *meter) error {
	ctx, alive, stop := c.watch(ctx)
	defer stop()
	if f.etag == "" { // nothing would say that it is still the same file
		if err := p.reset(m); err != nil {
			return err
		}
	}
	response, _, err := c.ask(ctx, endpoint, http.MethodGet, f, p.n)
	if errors.Is(err, errRange) {
		if err := p.reset(m); err != nil {
			return err
		}
		return &passing{err: &StatusError{Ref: f.ref, Status: http.StatusRequestedRangeNotSatisfiable, Host: endpoint.Host}}
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	start := int64(0)
	if response.StatusCode == http.StatusPartialContent {
		start, _ = contentRange(response.Header)
	}
	if start != p.n { // 0: it does not give parts of files
		if err := p.reset(m); err != nil {
			return err
		}
	}
	if start != p.n {
		return &passing{err: &StatusError{Ref: f.ref, Status: response.StatusCode, Host: response.Request.URL.Host, Fault: "with other bytes than were asked for"}}
	}
	buf := make([]byte, 1<<20)
	for p.n < f.size {
		n, err := response.Body.Read(buf[:min(int64(len(buf)), f.size-p.n)])
		if n > 0 {
			alive()
			if err := p.write(buf[:n]); err != nil {
				return err
			}
			m.add(int64(n))
		}
		if err != nil && p.n < f.size {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return networkError(ctx, f.ref, response.Request.URL, err)
		}
	}
	return nil
}

// part is a file on its way, with the digest of what is there.
type part struct {
	ref  Ref
	want file
	path string
	file *os.File
	hash hash.Hash
	n    int64 // bytes that are there
}

// openPart opens what an earlier run has left, or begins.
func openPart(ctx context.Context, path string, f file) (*part, error) {
	flags := os.O_RDWR | os.O_CREATE
	if f.etag == "" { // nothing says that it is the same file
		flags |= os.O_TRUNC
	}
	opened, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("fetch %v: %w", f.ref, err)
	}
	p := &part{ref: f.ref, want: f, path: path, file: opened, hash: sha256.New()}
	p.n, err = copyInto(ctx, p.hash, opened)
	if err == nil && p.n > f.size {
		err = p.reset(nil)
	}
	if err != nil {
		opened.Close()
		return nil, fmt.Errorf("fetch %v: read what is there: %w", f.ref, err)
	}
	return p, nil
}

func (p *part) write(b []byte) error {
	if _, err := p.file.Write(b); err != nil {
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return fmt.Errorf("fetch %v: write it: %w", p.ref, err)
		}
		dir := filepath.Dir(p.path)
		free, _ := freeSpace(dir)
		return &SpaceError{Ref: p.ref, Dir: dir, Need: p.want.size - p.n, Free: free, Err: err}
	}
	p.hash.Write(b)
	p.n += int64(len(b))
	return nil
}

// reset forgets what is there, which m has counted; nil = it has not.
func (p *part) reset(m *meter) error {
	if m != nil && p.n > 0 {
		m.add(-p.n)
	}
	p.hash.Reset()
	p.n = 0
	_, err := p.file.Seek(0, io.SeekStart)
	if err = errors.Join(err, p.file.Truncate(0)); err != nil {
		return fmt.Errorf("fetch %v: begin anew: %w", p.ref, err)
	}
	return nil
}

// finish checks a part that is complete, and makes it the file at path.
func (p *part) finish(path string, m manifest) error {
	m.SHA256 = hex.EncodeToString(p.hash.Sum(nil))
	if p.want.sha256 != "" && m.SHA256 != p.want.sha256 {
		return &DigestError{Ref: p.ref, Got: m.SHA256, Want: p.want.sha256}
	}
	if err := errors.Join(p.file.Sync(), p.file.Close()); err != nil {
		return fmt.Errorf("fetch %v: write it: %w", p.ref, err)
	}
	return keep(p.path, path, m)
}
