package infer

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// tail passes what the engine writes on and keeps the end of it.
type tail struct {
	next io.Writer // nil = nowhere

	mu   sync.Mutex
	last []byte // guarded by mu
}

const (
	tailKept  = 64 << 10 // bytes: Go's account of a fault can be long, and begins with what matters
	tailShown = 600      // bytes of it that are said
)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.last = append(t.last, b...)
	if n := len(t.last) - tailKept; n > 0 {
		t.last = append(t.last[:0], t.last[n:]...)
	}
	t.mu.Unlock()
	if t.next != nil {
		if _, err := t.next.Write(b); err != nil {
			return len(b), nil //nolint:nilerr // a closed stderr must not block the engine
		}
	}
	return len(b), nil
}

// String is the last that the engine wrote, without the stacks of Go's account of a
// fault.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.last
	for _, stacks := range []string{"\nruntime stack:\n", "\ngoroutine "} {
		last, _, _ = bytes.Cut(last, []byte(stacks))
	}
	last = bytes.TrimSpace(last)
	return strings.ToValidUTF8(string(last[max(len(last)-tailShown, 0):]), "")
}
