package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// barrier answers when so many requests are there at once.
type barrier struct {
	wanted int

	mu      sync.Mutex
	here    int
	most    int
	release chan struct{}
	bodies  []map[string]any
}

func (b *barrier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != api.Completions {
		http.Error(w, "not a completion", http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.bodies = append(b.bodies, body)
	b.here++
	b.most = max(b.most, b.here)
	release := b.release
	if b.here == b.wanted {
		b.here, b.release = 0, make(chan struct{})
		close(release)
	}
	b.mu.Unlock()
	select {
	case <-release:
		fmt.Fprintf(w, `{"usage":{"prompt_tokens":7,"completion_tokens":%v}}`, body["max_tokens"])
	case <-r.Context().Done():
	}
}

// All requests that may be in flight are, no more, each on a connection of its own.
func TestLoadKeepsRequestsInFlight(t *testing.T) {
	t.Parallel()
	const atOnce, n = 4, 20
	b := &barrier{wanted: atOnce, release: make(chan struct{})}
	server := httptest.NewUnstartedServer(b)
	var mu sync.Mutex
	connections := map[net.Conn]bool{}
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if s == http.StateActive {
			connections[c] = true
		}
	}
	server.Start()
	t.Cleanup(server.Close)

	jobs := make([]job, n)
	for i := range jobs {
		jobs[i] = job{prompt: fmt.Sprint("prompt ", i), in: 7, out: i + 1, sampling: greedy()}
	}
	got, err := newLoad(&http.Transport{}, server.URL, atOnce, map[string]any{"top_k": 1}).run(t.Context(), jobs)
	require.NoError(t, err)
	require.NoError(t, got.check(jobs))
	require.Equal(t, n*7, got.prompt)
	require.Equal(t, n*(n+1)/2, got.generated)
	require.Positive(t, got.took)
	require.Equal(t, atOnce, b.most)
	prompts := map[any]bool{}
	for _, body := range b.bodies {
		prompts[body["prompt"]] = true
		require.InDelta(t, 0, body["temperature"], 0)
		require.InDelta(t, 1, body["top_k"], 0)
		require.Equal(t, true, body["ignore_eos"])
	}
	require.Len(t, prompts, n)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, connections, n)
}

func TestLoadSaysWhatTheServerSays(t *testing.T) {
	t.Parallel()
	answers := map[string]http.HandlerFunc{
		"status 503: still loading": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "still loading")
		},
		"it has no usage: {}": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
	}
	for want, answer := range answers {
		server := httptest.NewServer(answer)
		t.Cleanup(server.Close)
		_, err := newLoad(&http.Transport{}, server.URL, 2, nil).run(t.Context(), make([]job, 3))
		require.ErrorContains(t, err, want)
	}
}
