package worker

import (
	"context"
	"sync"
)

// slots lets at most a number of holders in at once, and that number can change at
// any time: when it falls below those inside, nobody enters until enough have
// left. Safe for concurrent use.
type slots struct {
	mu     sync.Mutex
	most   int           // guarded by mu
	ahead  int           // see newSlots; guarded by mu
	inside int           // guarded by mu
	moved  chan struct{} // closed and replaced when there may be room; guarded by mu
}

// newSlots lets most in, and so many more ahead of their time, to be there when one of
// the others leaves.
func newSlots(most, ahead int) *slots {
	return &slots{most: most, ahead: ahead, moved: make(chan struct{})}
}

// enter waits for room. It returns ctx's error if ctx is done first.
func (s *slots) enter(ctx context.Context) error {
	for {
		ok, moved := s.try()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryEnter enters if there is room now.
func (s *slots) tryEnter() bool {
	ok, _ := s.try()
	return ok
}

func (s *slots) try() (entered bool, moved <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside >= s.most+s.ahead {
		return false, s.moved
	}
	s.inside++
	return true, nil
}

// leave makes room for another.
func (s *slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	s.wake()
}

// set changes how many may be inside.
func (s *slots) set(most, ahead int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most, s.ahead = most, ahead
	s.wake()
}

// wake has those who wait look again. mu is held.
func (s *slots) wake() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// counts returns how many may be inside, without those ahead, and how many are.
func (s *slots) counts() (most, inside int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most, s.inside
}
