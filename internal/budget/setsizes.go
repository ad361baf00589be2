package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SetSizes tells [ProportionalSetSize] and [UncachedSetSize] of processes that are asked
// for again and again. For those the kernel goes through all pages of a process, some
// milliseconds for each GiB on a core that llama.cpp's threads wait for. What a process
// has in memory itself, whoever shares it, the kernel counts all the time: where that has
// hardly changed, of its own and of what could be shared, the sizes have changed as much. Safe for concurrent use; the zero value
// is ready.
type SetSizes struct {
	mu   sync.Mutex
	seen map[int]*setSize // by process id; guarded by mu
}

// setSize is what a process had when all its pages were looked at.
type setSize struct {
	at                     time.Time
	resident, own          Bytes // counted, and without what others could share
	proportional, uncached Bytes
}

const (
	// setSizeAge is how long the sizes are good for: others may come to share pages.
	setSizeAge = 10 * time.Second
	// setSizeDrift is how much more or less a process may have: some of it could be shared.
	setSizeDrift = 8 * MiB
)

// Proportional is [ProportionalSetSize].
func (s *SetSizes) Proportional(pid int) (Bytes, error) {
	return s.proportional(os.DirFS("/"), pid, time.Now())
}

// Uncached is [UncachedSetSize].
func (s *SetSizes) Uncached(pid int) (Bytes, error) {
	return s.uncached(os.DirFS("/"), pid, time.Now())
}

func (s *SetSizes) proportional(root fs.FS, pid int, now time.Time) (Bytes, error) {
	then, resident, _, err := s.look(root, pid, now)
	if err != nil {
		return 0, err
	}
	return max(0, then.proportional+resident-then.resident), nil
}

func (s *SetSizes) uncached(root fs.FS, pid int, now time.Time) (Bytes, error) {
	then, _, own, err := s.look(root, pid, now)
	if err != nil {
		return 0, err
	}
	return max(0, then.uncached+own-then.own), nil
}

// look returns the sizes of a process as they were last, or anew where that is too long
// ago, and what is counted now.
func (s *SetSizes) look(root fs.FS, pid int, now time.Time) (then setSize, resident, own Bytes, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resident, own, err = countedSizes(root, pid)
	if err != nil {
		clear(s.seen) // what that one has shared may be the others' alone now
		return then, 0, 0, err
	}
	if last := s.seen[pid]; last != nil && resident > 0 && now.Sub(last.at) < setSizeAge &&
		near(own, last.own) && near(resident-own, last.resident-last.own) {
		return *last, resident, own, nil
	}
	then = setSize{at: now, resident: resident, own: own}
	values, name, err := setSizes(root, pid)
	if err != nil {
		return then, 0, 0, err
	}
	if then.proportional, err = proportional(values, pid, name); err != nil {
		return then, 0, 0, err
	}
	if then.uncached, err = uncached(values, pid, name); err != nil {
		return then, 0, 0, err
	}
	if s.seen == nil {
		s.seen = make(map[int]*setSize)
	}
	s.seen[pid] = &then
	return then, resident, own, nil
}

func near(a, b Bytes) bool { return max(a-b, b-a) <= setSizeDrift }

// countedSizes reads /proc/<pid>/statm: all that a process has in memory, and without
// what has a file or is shared memory.
func countedSizes(root fs.FS, pid int) (resident, own Bytes, err error) {
	name := path.Join("proc", strconv.Itoa(pid), "statm")
	text, err := readFile(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = ErrProcessNotFound
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	var pages, shared uint64
	if _, err := fmt.Sscan(text, new(uint64), &pages, &shared); err != nil {
		return 0, 0, fmt.Errorf("read memory of process %d: /%s has %q", pid, name, strings.TrimSpace(text))
	}
	page := int64(os.Getpagesize())
	resident = FromUint64(pages).Mul(page)
	return resident, resident - FromUint64(min(shared, pages)).Mul(page), nil
}
