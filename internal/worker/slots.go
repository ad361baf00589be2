package worker

import (
	"context"
	"sync"
)

// slots lets at most a number of holders in at once, and that number can change at
// any time: when it falls below those inside, nobody enters until enough have
// left. Safe for concurrent use.
type slots struct {
	mu      sync.Mutex
	most    int           // guarded by mu
	early   bool          // see newSlots; guarded by mu
	queued  int           // see queue; guarded by mu
	crowded bool          // see queue; guarded by mu
	ended   bool          // one has come to its end since the queue was empty; guarded by mu
	inside  int           // guarded by mu
	moved   chan struct{} // closed and replaced when there may be room; guarded by mu
}

// newSlots lets most in, and if early some more ahead of their time, to be there when
// others leave.
func newSlots(most int, early bool) *slots {
	return &slots{most: most, early: early, moved: make(chan struct{})}
}

// mostAhead is how many are ever let in ahead of their time where most run: as many again, but
// more than 64 only up to a quarter, as with many hundreds on their way a worker is slower.
func mostAhead(most int) int { return max((most+3)/4, min(most, 64)) }

// ahead is how many are let in ahead of their time. It is a quarter of most at first. When
// one has ended, other workers have had the time to fill up too: from then on it is as many
// as most, up to a limit, as jobs of one length all end at once, if twice as many are queued
// and there is room. mu is held.
func (s *slots) ahead() int {
	if !s.early {
		return 0
	}
	if s.ended && !s.crowded && s.queued >= 2*s.most {
		return mostAhead(s.most)
	}
	return (s.most + 3) / 4
}

// queue notes how many are queued that nobody has let in, and whether there is no room for so
// many more.
func (s *slots) queue(left int, crowded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued, s.crowded = left, crowded
	s.ended = s.ended && left > 0
	s.wake()
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
	if s.inside >= s.most+s.ahead() {
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

// end is leave for one that has come to its end.
func (s *slots) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.leave()
}

// set changes how many may be inside; see newSlots.
func (s *slots) set(most int, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most, s.early = most, early
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
