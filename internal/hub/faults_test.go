package hub

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// status is a fault of a request to the hub.
func status(at string, code int, header ...string) fault {
	return fault{at: at, answer: func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	want := content(1, 10_000)
	other := strings.Repeat("a", 64)
	for name, tt := range map[string]struct {
		faults     []fault
		token      string
		says, hint string
		pauses     int
	}{
		"gated": {
			faults: []fault{status("HEAD", http.StatusForbidden, "X-Error-Code", "GatedRepo")},
			says:   "fetch hf://org/repo/small.gguf: the hub refuses it: 403 Forbidden", hint: "set HF_TOKEN to a token that may read it",
		},
		"private":     {faults: []fault{status("HEAD", http.StatusUnauthorized)}, says: "the hub refuses it: 401 Unauthorized", hint: "or there is none of that name"},
		"wrong token": {faults: []fault{status("HEAD", http.StatusUnauthorized)}, token: secret, says: "the hub refuses it: 401 Unauthorized", hint: "the token in HF_TOKEN may not read it"},
		"gated later": {faults: []fault{status("GET", http.StatusForbidden)}, says: "the hub refuses it: 403 Forbidden", hint: "set HF_TOKEN"},
		"no repository": {
			faults: []fault{status("HEAD", http.StatusNotFound, "X-Error-Code", "RepoNotFound")},
			says:   `the hub has no such repository: organisation "org", repository "repo", revision "main", file "small.gguf"`, hint: "check the spelling",
		},
		"no revision": {faults: []fault{status("HEAD", http.StatusNotFound, "X-Error-Code", "RevisionNotFound")}, says: "no such revision: ", hint: "check the spelling"},
		"not found":   {faults: []fault{status("HEAD", http.StatusNotFound)}, says: "no such repository, revision or file: ", hint: "hidden without HF_TOKEN"},
		"no hub":      {faults: []fault{status("HEAD", http.StatusMethodNotAllowed)}, says: "answers 405 Method Not Allowed", hint: "check HF_ENDPOINT"},
		"no size":     {faults: []fault{status("HEAD", http.StatusOK)}, says: "answers 200 OK without the file's size", hint: "check HF_ENDPOINT"},
		"wrong digest": {
			faults: []fault{{at: "store", change: func(b []byte) { b[5000]++ }}},
			says:   "verify hf://org/repo/small.gguf: its SHA-256 is ", hint: "try again",
		},
		"wrong digest of the hub": {
			faults: []fault{{at: "HEAD", header: http.Header{"X-Linked-Etag": {`"` + other + `"`}}}, {at: "GET", header: http.Header{"X-Linked-Etag": {`"` + other + `"`}}}},
			says:   ", the hub says " + other, hint: "the mirror in HF_ENDPOINT",
		},
		"no room": {
			faults: []fault{{at: "HEAD", header: http.Header{"X-Linked-Size": {"5000000000000000000"}}}},
			says:   "it needs 5.0 EB, and ", hint: "make room there, or set XDG_CACHE_HOME",
		},
		"too many requests": {
			faults: repeat(maxTries, status("HEAD", http.StatusTooManyRequests, "Retry-After", "2")),
			says:   "answers 429 Too Many Requests", hint: "with which it may take more", pauses: maxTries - 1,
		},
		"too long a wait": {
			faults: []fault{status("HEAD", http.StatusTooManyRequests, "Retry-After", "3600")},
			says:   "answers 429 Too Many Requests", hint: "try again later",
		},
		"down": {
			faults: repeat(maxTries, status("HEAD", http.StatusServiceUnavailable)),
			says:   "answers 503 Service Unavailable", hint: "try again later; what was fetched is kept", pauses: maxTries - 1,
		},
		"cut without a byte": {
			faults: repeat(maxTries, fault{at: "store", answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}),
			says:   "EOF", hint: "it goes on where this one stopped", pauses: maxTries - 1,
		},
		"sent nowhere": {faults: []fault{status("HEAD", http.StatusFound)}, says: "it sends us elsewhere, and does not say where", hint: "check the network"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHub(t)
			h.put("small.gguf", want)
			h.fail(tt.faults...)
			f := newFetcher(t, h)
			f.opts.Token = tt.token
			_, err := f.Fetch(t.Context(), small)
			require.ErrorContains(t, err, tt.says)
			var hinted interface{ Hint() string }
			require.ErrorAs(t, err, &hinted)
			require.Contains(t, hinted.Hint(), tt.hint)
			require.Len(t, f.pauses, tt.pauses)
			said := err.Error() + strings.Join(f.notes, "") + hinted.Hint()
			require.NotContains(t, said, secret)
			require.NotContains(t, said, "signature", "addresses of the store are signed")
			_, err = Locate(f.dir, small)
			require.Error(t, err, "nothing of it is taken")
			if strings.HasPrefix(name, "wrong digest") {
				f.has(t, nil)
			}
			_, err = f.Fetch(t.Context(), small)
			require.NoError(t, err, "the fault was the hub's")
			f.has(t, map[string][]byte{"small.gguf": want})
		})
	}
}

func repeat(n int, f fault) []fault {
	list := make([]fault, n)
	for i := range list {
		list[i] = f
	}
	return list
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	h.put("small.gguf", content(1, 10_000))
	h.fail(status("HEAD", http.StatusTooManyRequests, "Retry-After", "45"), status("GET", http.StatusServiceUnavailable, "Retry-After", "120"))
	f := newFetcher(t, h)
	_, err := f.Fetch(t.Context(), small)
	require.NoError(t, err)
	require.Equal(t, []time.Duration{45 * time.Second, 2 * time.Minute}, f.pauses)
	require.Equal(t, "fetch hf://org/repo/small.gguf: "+strings.TrimPrefix(h.hub.URL, "http://")+" answers 429 Too Many Requests; next try in 45s", f.notes[0])
}

// A connection without a sign of life counts as broken.
func TestStall(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, 100_000)
	h.put("small.gguf", want)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) }) // before the servers are closed
	hang := func(http.ResponseWriter, *http.Request) { <-over }
	h.fail(fault{at: "HEAD", answer: hang}, fault{at: "store", after: 40_000, then: func() { <-over }}, fault{at: "store", answer: hang})
	f := newFetcher(t, h)
	f.stall = 300 * time.Millisecond
	_, err := f.Fetch(t.Context(), small)
	require.NoError(t, err)
	f.has(t, map[string][]byte{"small.gguf": want})
	require.GreaterOrEqual(t, len(f.pauses), 3) // more on a machine that stalls itself
	require.Contains(t, f.notes[0], "nothing came for a minute")
}

func TestNoHub(t *testing.T) {
	t.Parallel()
	for endpoint, says := range map[string]string{
		"":                      "fetch hf://org/repo/small.gguf: the address of the hub is not set",
		"hub.example":           `the address of the hub is "hub.example", which is no http or https address`,
		"ftp://me:word@example": `the address of the hub is "example"`,
	} {
		c := New(Options{Endpoint: endpoint, CacheDir: t.TempDir()})
		_, err := c.Fetch(t.Context(), small)
		var none *EndpointError
		require.ErrorAs(t, err, &none)
		require.ErrorContains(t, err, says)
		require.Contains(t, none.Hint(), "set HF_ENDPOINT, or hf_endpoint in the configuration, to the address of the hub, such as https://… of Hugging Face")
		_, err = c.Look(t.Context(), small)
		require.ErrorAs(t, err, &none)
	}
	h := newFakeHub(t)
	h.hub.Close()
	f := newFetcher(t, h)
	_, err := f.Fetch(t.Context(), small)
	var network *NetworkError
	require.ErrorAs(t, err, &network)
	require.ErrorIs(t, err, unix.ECONNREFUSED)
	require.Len(t, f.pauses, maxTries-1)
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	defer full.Close()
	p := &part{ref: small, want: file{size: 1000}, path: filepath.Join(t.TempDir(), "part"), file: full}
	err = p.write([]byte("x"))
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	require.ErrorIs(t, err, unix.ENOSPC)
	require.Equal(t, int64(1000), space.Need)
	require.Regexp(t, `^fetch hf://org/repo/small.gguf: no space left in /.*: it needs 1.0 kB, and .* are free \(write /dev/full: no space left on device\)$`, err.Error())
}

func TestFollow(t *testing.T) {
	t.Parallel()
	from := func(s string) *url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return u
	}
	to, err := follow(from("https://hub.example/a"), "/b")
	require.NoError(t, err)
	require.Equal(t, "https://hub.example/b", to.String())
	_, err = follow(from("http://hub.example/a"), "https://store.example/b")
	require.NoError(t, err)
	_, err = follow(from("https://hub.example/a"), "http://store.example/b?signature=x")
	require.EqualError(t, err, "it sends us to store.example by http, which does not protect the file")
	for _, location := range []string{"", "http://", "%zz"} {
		_, err = follow(from("https://hub.example/a"), location)
		require.Error(t, err, location)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "0": 0, "7": 7 * time.Second,
		"Mon, 04 May 2026 03:02:31 GMT": 30 * time.Second,
		"Mon, 04 May 2026 03:02:00 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {text}}, now), text)
	}
	for failed, longest := range map[int]time.Duration{1: firstPause, 2: 2 * firstPause, 3: 4 * firstPause, 8: maxPause, 1000: maxPause} {
		for range 100 {
			d := backoff(failed)
			require.LessOrEqual(t, d, longest)
			require.GreaterOrEqual(t, d, longest/2)
		}
	}
	require.True(t, pause(t.Context(), 0))
	require.Equal(t, "x", (&passing{err: errors.New("x")}).Error())
}
