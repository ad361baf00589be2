// Package hubtest has a hub for tests.
package hubtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Hub is a hub that gives files itself, of any revision.
type Hub struct {
	URL      string       // its address
	Requests atomic.Int64 // that it has got
	Token    string       // that it wants; "" = none. Not to be changed later
}

// New starts a hub with files, by ORG/REPO/FILE. It ends with the test.
func New(t testing.TB, token string, files map[string][]byte) *Hub {
	t.Helper()
	h := &Hub{Token: token}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Requests.Add(1)
		if h.Token != "" && r.Header.Get("Authorization") != "Bearer "+h.Token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		repository, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/resolve/")
		_, file, _ := strings.Cut(rest, "/")
		content, ok := files[repository+"/"+file]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		sum := sha256.Sum256(content)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	h.URL = server.URL
	return h
}
