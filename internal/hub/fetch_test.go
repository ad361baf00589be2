package hub

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFetch(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, 3_000_000)
	h.put("small.gguf", want)
	f := newFetcher(t, h)
	_, err := Locate(f.dir, small)
	var missing *NotFetchedError
	require.ErrorAs(t, err, &missing)
	require.EqualError(t, err, "look in the cache: hf://org/repo/small.gguf is not there")
	require.Equal(t, "fetch it with worker setup --model hf://org/repo/small.gguf", missing.Hint())
	offer, err := f.Look(t.Context(), small)
	require.NoError(t, err)
	require.Equal(t, Offer{Files: 1, Bytes: 3_000_000}, offer)
	served, _ := h.count()
	require.Zero(t, served)

	path, err := f.Fetch(t.Context(), small)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(f.dir, "models/hf/org/repo/main/small.gguf"), path)
	f.has(t, map[string][]byte{"small.gguf": want})
	require.Equal(t, [2]int64{3_000_000, 3_000_000}, f.last)
	require.Empty(t, f.notes)
	served, requests := h.count()
	require.Equal(t, int64(3_000_000), served)
	require.Equal(t, []string{"HEAD small.gguf", "GET small.gguf", "store small.gguf"}, requests)
	var m manifest
	require.NoError(t, json.Unmarshal(read(t, path+manifestEnding), &m))
	sum := m.SHA256
	require.Len(t, sum, 64)
	require.Equal(t, manifest{
		Source: "hf://org/repo/small.gguf", Hub: h.hub.URL, Commit: strings.Repeat("c0", 20), ETag: sum, Bytes: 3_000_000, SHA256: sum,
	}, m)

	// What is there is taken, whatever the hub has by now and whether there is one.
	h.put("small.gguf", content(2, 100))
	h.hub.Close()
	for _, c := range []*Client{f.Client, New(Options{CacheDir: f.dir}), New(Options{CacheDir: f.dir, Verify: true})} {
		again, err := c.Fetch(t.Context(), small)
		require.NoError(t, err)
		require.Equal(t, path, again)
	}
	found, err := Locate(f.dir, small)
	require.NoError(t, err)
	require.Equal(t, path, found)
	_, requests = h.count()
	require.Empty(t, requests)
}

// A hub gives small files itself; their ETag is no digest.
func TestFetchWithoutStore(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	h.plain = true
	want := content(1, 100_000)
	h.put("a%20dir/small+.gguf", want)
	f := newFetcher(t, h)
	r, err := Parse("hf://org/repo/a dir/small+.gguf@refs/pr/1")
	require.NoError(t, err)
	path, err := f.Fetch(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(f.dir, "models/hf/org/repo/refs%2Fpr%2F1/a dir/small+.gguf"), path)
	require.Equal(t, want, read(t, path))
}

// The token is for the hub, and for nobody it sends us to.
func TestTheTokenStaysWithTheHub(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	h.put("small.gguf", content(1, 1000))
	var mu sync.Mutex
	tokens := map[string][]string{}
	note := func(who string, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			tokens[who] = append(tokens[who], r.Header.Get("Authorization"))
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}
	h.hub.Config.Handler, h.store.Config.Handler = note("hub", h.hub.Config.Handler), note("store", h.store.Config.Handler)
	f := newFetcher(t, h)
	f.opts.Token = secret
	_, err := f.Fetch(t.Context(), small)
	require.NoError(t, err)
	require.Equal(t, map[string][]string{"hub": {"Bearer " + secret, "Bearer " + secret}, "store": {""}}, tokens)
}

// A repository that was renamed is found where it is now.
func TestFetchFollowsTheHub(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, 5000)
	h.put("small.gguf", want)
	renamed := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/org/repo/resolve/main/small.gguf")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	h.fail(fault{at: "HEAD", answer: renamed})
	f := newFetcher(t, h)
	f.opts.Token = secret
	_, err := f.Fetch(t.Context(), small)
	require.NoError(t, err)
	f.has(t, map[string][]byte{"small.gguf": want})

	for range maxHops {
		h.fail(fault{at: "HEAD", answer: renamed})
	}
	_, err = newFetcher(t, h).Fetch(t.Context(), small)
	require.ErrorContains(t, err, "it has sent us elsewhere 10 times")
}

func TestFetchSplit(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	files := map[string][]byte{}
	for i, name := range []string{"q4/big-00001-of-00003.gguf", "q4/big-00002-of-00003.gguf", "q4/big-00003-of-00003.gguf"} {
		files[name] = content(uint64(i), 10_000*(i+1))
		h.put(name, files[name])
	}
	f := newFetcher(t, h)
	second, err := Parse("hf://org/repo/q4/big-00002-of-00003.gguf")
	require.NoError(t, err)
	path, err := f.Fetch(t.Context(), second)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(f.dir, "models/hf/org/repo/main/q4/big-00001-of-00003.gguf"), path)
	f.has(t, files)
	require.Equal(t, [2]int64{60_000, 60_000}, f.last)
	served, _ := h.count()
	require.Equal(t, int64(60_000), served)

	// One that is missing is fetched alone.
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), "big-00003-of-00003.gguf")))
	_, err = Locate(f.dir, second)
	require.EqualError(t, err, "look in the cache: hf://org/repo/q4/big-00002-of-00003.gguf is not there: 1 of its 3 files are missing")
	offer, err := f.Look(t.Context(), second)
	require.NoError(t, err)
	require.Equal(t, Offer{Files: 3, Bytes: 60_000, Here: 30_000}, offer)
	_, err = f.Fetch(t.Context(), second)
	require.NoError(t, err)
	served, _ = h.count()
	require.Equal(t, int64(30_000), served)

	// The files of a model belong together: with one, those that the hub has changed.
	require.NoError(t, os.Remove(path))
	files["q4/big-00002-of-00003.gguf"] = content(9, 20_000)
	h.put("q4/big-00002-of-00003.gguf", files["q4/big-00002-of-00003.gguf"])
	_, err = f.Fetch(t.Context(), second)
	require.NoError(t, err)
	f.has(t, files)
	served, _ = h.count()
	require.Equal(t, int64(30_000), served)
}

func TestFetchTwoAtOnce(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, 2_000_000)
	h.put("small.gguf", want)
	f := newFetcher(t, h)
	var fetching sync.WaitGroup
	waits := make(chan string, 8)
	errs := make([]error, 4)
	for i := range errs {
		// Each as a process of its own: they share the cache only.
		c := New(Options{Endpoint: h.hub.URL, CacheDir: f.dir, Note: func(text string) { waits <- text }})
		if i == 0 { // it has begun when the others come, and ends when they wait
			begun := make(chan struct{})
			h.fail(fault{at: "HEAD", answer: func(w http.ResponseWriter, r *http.Request) {
				close(begun)
				for range len(errs) - 1 {
					<-waits
				}
				h.serveHub(w, r)
			}})
			fetching.Go(func() { _, errs[i] = c.Fetch(t.Context(), small) })
			<-begun
			continue
		}
		fetching.Go(func() { _, errs[i] = c.Fetch(t.Context(), small) })
	}
	fetching.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	f.has(t, map[string][]byte{"small.gguf": want})
	served, _ := h.count()
	require.Equal(t, int64(len(want)), served, "each byte is fetched once")
}

func TestFetchRepairs(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, 50_000)
	h.put("small.gguf", want)
	for name, tt := range map[string]struct {
		damage func(path string) error
		verify bool
	}{
		"no manifest":         {func(path string) error { return os.Remove(path + manifestEnding) }, false},
		"half a manifest":     {func(path string) error { return os.Truncate(path+manifestEnding, 9) }, false},
		"no file":             {os.Remove, false},
		"a shorter file":      {func(path string) error { return os.Truncate(path, 9) }, false},
		"a byte that differs": {func(path string) error { return os.WriteFile(path, content(2, 50_000), 0o600) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFetcher(t, h)
			path, err := f.Fetch(t.Context(), small)
			require.NoError(t, err)
			require.NoError(t, tt.damage(path))
			f.opts.Verify = tt.verify
			_, err = f.Fetch(t.Context(), small)
			require.NoError(t, err)
			f.has(t, map[string][]byte{"small.gguf": want})
		})
	}
}

func TestFetchCancelled(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	h.put("small.gguf", content(1, 50_000))
	ctx, cancel := context.WithCancelCause(t.Context())
	f := newFetcher(t, h)
	h.fail(fault{at: "store", after: 10_000, then: func() { cancel(os.ErrProcessDone) }})
	_, err := f.Fetch(ctx, small)
	require.ErrorIs(t, err, os.ErrProcessDone)
	require.ErrorContains(t, err, "fetch hf://org/repo/small.gguf: ")
	_, err = f.Fetch(ctx, small)
	require.ErrorIs(t, err, os.ErrProcessDone)

	f = newFetcher(t, h)
	f.opts.Verify = true
	_, err = f.Fetch(t.Context(), small)
	require.NoError(t, err)
	_, err = f.Fetch(ctx, small)
	require.ErrorIs(t, err, os.ErrProcessDone, "a check of a large file ends too")

	ctx, cancel = context.WithCancelCause(t.Context())
	f = newFetcher(t, h)
	f.pause = func(ctx context.Context, _ time.Duration) bool {
		cancel(os.ErrProcessDone)
		return pause(ctx, time.Hour)
	}
	h.fail(status("HEAD", http.StatusServiceUnavailable))
	_, err = f.Fetch(ctx, small)
	require.ErrorIs(t, err, os.ErrProcessDone, "a wait ends")
	require.ErrorContains(t, err, "503 Service Unavailable; then: ", "and what was waited for is said")
}
