package hub

import (
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const size = 3_000_000

// A process that is killed leaves a part, and the next goes on behind it.
func TestResumeAfterAKill(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, size)
	h.put("small.gguf", want)
	f := newFetcher(t, h)
	killed := make(chan struct{})
	h.fail(fault{at: "store", after: 1_250_000, then: func() { <-killed }})
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fetchInChild+"="+h.hub.URL, childCache+"="+f.dir)
	require.NoError(t, child.Start())
	require.Eventually(t, func() bool { return sizeOf(f.part(want)) == 1_250_000 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	close(killed)
	h.count()

	offer, err := f.Look(t.Context(), small)
	require.NoError(t, err)
	require.Equal(t, Offer{Files: 1, Bytes: size, Here: 1_250_000}, offer)
	_, err = f.Fetch(t.Context(), small)
	require.NoError(t, err)
	f.has(t, map[string][]byte{"small.gguf": want})
	served, requests := h.count()
	require.Equal(t, int64(size-1_250_000), served)
	require.Contains(t, requests, "store small.gguf bytes=1250000-")
	require.Equal(t, [2]int64{size, size}, f.last)
}

// A part that was complete when the process was killed is only checked.
func TestResumeCompletePart(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, size)
	h.put("small.gguf", want)
	f := newFetcher(t, h)
	path, err := f.Fetch(t.Context(), small)
	require.NoError(t, err)
	require.NoError(t, os.Rename(path, f.part(want)))
	h.count()
	_, err = f.Fetch(t.Context(), small)
	require.NoError(t, err)
	f.has(t, map[string][]byte{"small.gguf": want})
	served, requests := h.count()
	require.Zero(t, served)
	require.Equal(t, []string{"HEAD small.gguf"}, requests)
}

func TestResume(t *testing.T) {
	t.Parallel()
	want := content(1, size)
	status := func(code int) func(w http.ResponseWriter, _ *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, tt := range map[string]struct {
		faults []fault
		plain  bool
		served int64
		tries  int // that failed
	}{
		"a cut connection":          {faults: []fault{{at: "store", after: 1_000_000}}, served: size, tries: 1},
		"many cut connections":      {faults: cuts(20, 100_000), served: size, tries: 20},
		"a hub without store":       {faults: []fault{{at: "GET", after: 1_000_000}}, plain: true, served: size, tries: 1},
		"a store that fails":        {faults: []fault{{at: "store", after: 1_000_000}, {at: "store", answer: status(http.StatusBadGateway)}}, served: size, tries: 2},
		"an address that has ended": {faults: []fault{{at: "store", answer: status(http.StatusForbidden)}}, served: size, tries: 1},
		"a store without parts": {
			faults: []fault{{at: "store", after: 1_000_000}, {at: "store", answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(want) }}},
			served: 1_000_000, tries: 1, // and all of it once more, which is not counted
		},
		"other bytes": {
			faults: []fault{{at: "store", after: 1_000_000}, {at: "store", answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Range", "bytes 5-9/3000000")
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(want[5:10])
			}}},
			served: 1_000_000 + size, tries: 2,
		},
		"no such range":     {faults: []fault{{at: "store", after: 1_000_000}, {at: "store", answer: status(http.StatusRequestedRangeNotSatisfiable)}}, served: 1_000_000 + size, tries: 2},
		"a hub that fails":  {faults: []fault{{at: "HEAD", answer: status(http.StatusInternalServerError)}, {at: "GET", answer: status(http.StatusServiceUnavailable)}}, served: size, tries: 2},
		"a cut before byte": {faults: []fault{{at: "store", answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}}, served: size, tries: 1},
		"a cut of the head": {faults: []fault{{at: "HEAD", answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}}, served: size, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHub(t)
			h.plain = tt.plain
			h.put("small.gguf", want)
			h.fail(tt.faults...)
			f := newFetcher(t, h)
			_, err := f.Fetch(t.Context(), small)
			require.NoError(t, err)
			f.has(t, map[string][]byte{"small.gguf": want})
			served, _ := h.count()
			require.Equal(t, tt.served, served)
			require.Len(t, f.pauses, tt.tries, "%v", f.notes)
			require.Equal(t, [2]int64{size, size}, f.last)
		})
	}
}

func cuts(n, after int) []fault {
	list := make([]fault, n)
	for i := range list {
		list[i] = fault{at: "store", after: after}
	}
	return list
}

// A file that has become another between two runs begins anew.
func TestChangedBetweenTwoRuns(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	old, want := content(1, size), content(2, size+1)
	h.put("small.gguf", old)
	f := newFetcher(t, h)
	h.fail(fault{at: "store", after: 1_000_000}, fault{at: "GET", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }})
	_, err := f.Fetch(t.Context(), small)
	var missing *NotFoundError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, int64(1_000_000), sizeOf(f.part(old)))

	h.put("small.gguf", want)
	h.count()
	_, err = f.Fetch(t.Context(), small)
	require.NoError(t, err)
	served, requests := h.count()
	require.Equal(t, int64(size+1), served)
	require.Contains(t, requests, "store small.gguf")
	f.has(t, map[string][]byte{"small.gguf": want}) // and the old part is gone
}

// A file that becomes another while it is fetched is the new one as a whole.
func TestChangedWhileFetched(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"with store": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHub(t)
			h.plain = plain
			want := content(2, size) // of the same size
			h.put("small.gguf", content(1, size))
			f := newFetcher(t, h)
			at := map[bool]string{false: "store", true: "GET"}[plain]
			h.fail(fault{at: at, after: 1_000_000, then: func() { h.put("small.gguf", want) }})
			_, err := f.Fetch(t.Context(), small)
			require.NoError(t, err)
			f.has(t, map[string][]byte{"small.gguf": want})
			served, _ := h.count()
			require.GreaterOrEqual(t, served, int64(1_000_000+size)) // a hub without store sends some of the new one before it is seen
			if !plain {
				require.Equal(t, int64(1_000_000+size), served)
			}
			require.Contains(t, f.notes, "hf://org/repo/small.gguf was changed on the hub; the new one is fetched")
		})
	}
	h := newFakeHub(t)
	f := newFetcher(t, h)
	h.put("small.gguf", content(1, size))
	for i := range 3 {
		h.fail(fault{at: "store", after: 1_000_000, then: func() { h.put("small.gguf", content(uint64(i)+2, size)) }})
	}
	_, err := f.Fetch(t.Context(), small)
	require.ErrorIs(t, err, errChanged, "again and again")
}

// A part that was damaged on the disk is seen by the digest, and fetched anew.
func TestDamagedPart(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, size)
	h.put("small.gguf", want)
	f := newFetcher(t, h)
	h.fail(fault{at: "GET", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }})
	_, err := f.Fetch(t.Context(), small)
	require.Error(t, err)
	for _, n := range []int{1000, size + 1} { // one that is too long has no part of use
		require.NoError(t, os.WriteFile(f.part(want), content(5, n), 0o600))
		_, err = f.Fetch(t.Context(), small)
		require.NoError(t, err)
		f.has(t, map[string][]byte{"small.gguf": want})
		require.NoError(t, os.Remove(small.path(f.dir)))
	}
	require.Len(t, f.notes, 1)
	require.Contains(t, f.notes[0], "it is fetched anew")
}

// Where nothing tells one content from another, none is continued.
func TestNoETag(t *testing.T) {
	t.Parallel()
	h := newFakeHub(t)
	want := content(1, size)
	h.put("small.gguf", want)
	h.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, f := h.seen("hub", r, "small.gguf")
		if f.answer != nil {
			f.answer(w, r)
			return
		}
		h.give(w, r, want, "", f)
	})
	h.fail(fault{at: "GET", after: 1_000_000}, status("GET", http.StatusNotFound))
	f := newFetcher(t, h)
	_, err := f.Fetch(t.Context(), small)
	require.Error(t, err)
	h.count()
	_, err = f.Fetch(t.Context(), small)
	require.NoError(t, err)
	f.has(t, map[string][]byte{"small.gguf": want})
	served, requests := h.count()
	require.Equal(t, int64(size), served)
	require.Equal(t, []string{"HEAD small.gguf", "GET small.gguf"}, requests)
}
