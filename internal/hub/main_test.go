package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// fetchInChild has a test's program fetch from the hub that the variable names, into
// the cache of the next one, and end.
const (
	fetchInChild = "TEMPO_TEST_FETCH_FROM"
	childCache   = "TEMPO_TEST_FETCH_INTO"
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(fetchInChild); endpoint != "" {
		_, err := New(Options{Endpoint: endpoint, CacheDir: os.Getenv(childCache)}).Fetch(context.Background(), small)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) // it was to be killed
	}
	goleak.VerifyTestMain(m)
}

// small is the file of most tests.
var small = Ref{Org: "org", Repo: "repo", File: "small.gguf", Revision: "main"}

const secret = "hf_secret"

// content makes n bytes that look like no others.
func content(seed uint64, n int) []byte {
	source := rand.NewChaCha8([32]byte{byte(seed)})
	b := make([]byte, n)
	_, _ = source.Read(b)
	return b
}

// fakeHub is a hub with a store beside it, on another port, as large files have it.
type fakeHub struct {
	t     *testing.T
	hub   *httptest.Server
	store *httptest.Server

	mu       sync.Mutex
	files    map[string][]byte // by the path in the repository; guarded by mu
	plain    bool              // the hub gives the files itself; guarded by mu
	commit   string            // guarded by mu
	faults   []fault           // of the next requests, in their order; guarded by mu
	requests []string          // to both, with the range; guarded by mu
	served   int64             // bytes of files; guarded by mu
}

// fault is what goes wrong with a request.
type fault struct {
	at     string // "HEAD", "GET" (of the hub) or "store"; "" = any
	answer func(w http.ResponseWriter, r *http.Request)
	after  int          // so many bytes of the file the connection is cut; 0 = never
	then   func()       // is called before that
	change func([]byte) // is called with the file that is given
	header http.Header  // is set too
}

func newFakeHub(t *testing.T) *fakeHub {
	t.Helper()
	h := &fakeHub{t: t, files: map[string][]byte{}, commit: strings.Repeat("c0", 20)}
	h.hub, h.store = httptest.NewServer(http.HandlerFunc(h.serveHub)), httptest.NewServer(http.HandlerFunc(h.serveStore))
	t.Cleanup(h.hub.Close)
	t.Cleanup(h.store.Close)
	return h
}

func (h *fakeHub) put(file string, content []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[file] = content
}

func (h *fakeHub) fail(f ...fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f...)
}

// seen notes a request, and returns the file that it asks for and its fault.
func (h *fakeHub) seen(who string, r *http.Request, file string) ([]byte, fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := r.Method
	if who == "store" {
		at = who
	}
	h.requests = append(h.requests, strings.TrimSpace(at+" "+file+" "+r.Header.Get("Range")))
	if len(h.faults) > 0 && (h.faults[0].at == "" || h.faults[0].at == at) {
		f := h.faults[0]
		h.faults = h.faults[1:]
		return h.files[file], f
	}
	return h.files[file], fault{}
}

func (h *fakeHub) serveHub(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/org/repo/resolve/")
	revision, file, _ := strings.Cut(rest, "/")
	content, fault := h.seen("hub", r, file)
	if fault.answer != nil {
		fault.answer(w, r)
		return
	}
	if !ok || content == nil || revision != "main" && revision != "refs%2Fpr%2F1" {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	w.Header().Set("X-Repo-Commit", h.commit)
	h.mu.Lock()
	plain := h.plain
	h.mu.Unlock()
	if plain {
		sum := sha1.Sum(content)
		h.give(w, r, content, `"`+hex.EncodeToString(sum[:])+`"`, fault)
		return
	}
	sum := sha256.Sum256(content)
	w.Header().Set("X-Linked-Etag", `"`+hex.EncodeToString(sum[:])+`"`)
	w.Header().Set("X-Linked-Size", fmt.Sprint(len(content)))
	for name := range fault.header {
		w.Header().Set(name, fault.header.Get(name))
	}
	http.Redirect(w, r, h.store.URL+"/"+file+"?signature=signed", http.StatusFound)
}

func (h *fakeHub) serveStore(w http.ResponseWriter, r *http.Request) {
	content, fault := h.seen("store", r, strings.TrimPrefix(r.URL.Path, "/"))
	if fault.answer != nil {
		fault.answer(w, r)
		return
	}
	h.give(w, r, content, `"`+strings.Repeat("e", 64)+`"`, fault) // looks like a digest, and is none
}

// give serves a file, or the part of it that is asked for.
func (h *fakeHub) give(w http.ResponseWriter, r *http.Request, content []byte, etag string, f fault) {
	if f.change != nil {
		content = bytes.Clone(content)
		f.change(content)
	}
	w.Header().Set("ETag", etag)
	http.ServeContent(&cut{ResponseWriter: w, hub: h, fault: f}, r, "", time.Time{}, bytes.NewReader(content))
}

// cut counts what is served, and cuts the connection if it is to.
type cut struct {
	http.ResponseWriter
	hub   *fakeHub
	fault fault
	n     int
}

func (c *cut) Write(b []byte) (int, error) {
	cut := c.fault.after > 0 && c.n+len(b) > c.fault.after
	if cut {
		b = b[:c.fault.after-c.n]
	}
	n, err := c.ResponseWriter.Write(b)
	c.n += n
	c.hub.mu.Lock()
	c.hub.served += int64(n)
	c.hub.mu.Unlock()
	if cut {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		if c.fault.then != nil {
			c.fault.then()
		}
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// count returns the bytes served since the last call, and the requests.
func (h *fakeHub) count() (served int64, requests []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	served, requests = h.served, h.requests
	h.served, h.requests = 0, nil
	return served, requests
}

// fetcher is a client with a cache of its own, which waits for nobody.
type fetcher struct {
	*Client
	dir    string
	notes  []string
	pauses []time.Duration
	last   [2]int64 // of the progress
}

func newFetcher(t *testing.T, h *fakeHub) *fetcher {
	t.Helper()
	f := &fetcher{dir: t.TempDir()}
	f.Client = New(Options{
		Endpoint: h.hub.URL, CacheDir: f.dir,
		Note:     func(text string) { f.notes = append(f.notes, text) },
		Progress: func(done, total int64) { f.last = [2]int64{done, total} },
	})
	f.pause = func(ctx context.Context, d time.Duration) bool {
		f.pauses = append(f.pauses, d)
		return ctx.Err() == nil
	}
	return f
}

// has requires that the cache has exactly these files of the repository, whole.
func (f *fetcher) has(t *testing.T, want map[string][]byte) {
	t.Helper()
	dir := filepath.Join(f.dir, "models", "hf", "org", "repo", "main")
	got := map[string]bool{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".lock") && !strings.HasSuffix(path, manifestEnding) {
			name, _ := filepath.Rel(dir, path)
			got[filepath.ToSlash(name)] = true
		}
		return nil
	}))
	for name, content := range want {
		require.True(t, got[name], name)
		require.Equal(t, content, read(t, filepath.Join(dir, name)), name)
		delete(got, name)
	}
	require.Empty(t, got)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// part is the path of the file that is not complete.
func (f *fetcher) part(content []byte) string {
	sum := sha256.Sum256(content)
	return partOf(small.path(f.dir), hex.EncodeToString(sum[:]))
}
