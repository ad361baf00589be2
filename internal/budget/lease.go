package budget

import "fmt"

// Lease is a running job's share of a ledger's pool. Safe for concurrent use.
type Lease struct {
	ledger *Ledger // constant; its group's lock guards the rest

	size     Bytes
	peak     Bytes
	released bool
}

// Grow adds n bytes to the lease or changes nothing. It returns ErrNoRoom if
// they are not free now, *TooLargeError if the lease would be larger than the
// whole pool, ErrReleased and ErrNegative.
//
// Growth overtakes those who wait in Acquire: a running job that grows ends and
// gives everything back, a waiting one has nothing to give.
func (s *Lease) Grow(n Bytes) error {
	l := s.ledger
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	switch {
	case n < 0:
		return fmt.Errorf("grow lease on %s by %v: %w", l.device, n, ErrNegative)
	case s.released:
		return fmt.Errorf("grow lease on %s by %v: %w", l.device, n, ErrReleased)
	case s.size.Add(n) > l.booked.KVCache:
		return l.tooLarge(s.size.Add(n))
	case !l.fits(n):
		return fmt.Errorf("grow lease on %s from %v by %v: %w", l.device, s.size, n, ErrNoRoom)
	}
	l.reserve(n)
	s.size = s.size.Add(n)
	s.peak = max(s.peak, s.size)
	return nil
}

// Shrink gives n bytes back, at most all there are. Below 0 counts as 0.
func (s *Lease) Shrink(n Bytes) {
	s.ledger.group.mu.Lock()
	defer s.ledger.group.mu.Unlock()
	s.shrink(min(max(n, 0), s.size))
	s.ledger.group.admit()
}

// Release gives everything back and ends the lease. Further calls do nothing.
func (s *Lease) Release() {
	s.ledger.group.mu.Lock()
	defer s.ledger.group.mu.Unlock()
	s.release()
	s.ledger.group.admit()
}

// Size is what the lease holds now; 0 after Release.
func (s *Lease) Size() Bytes {
	s.ledger.group.mu.Lock()
	defer s.ledger.group.mu.Unlock()
	return s.size
}

// Peak is the most that the lease has held.
func (s *Lease) Peak() Bytes {
	s.ledger.group.mu.Lock()
	defer s.ledger.group.mu.Unlock()
	return s.peak
}

func (s *Lease) release() {
	if s.released {
		return
	}
	s.shrink(s.size)
	s.released = true
	s.ledger.leases--
}

func (s *Lease) shrink(n Bytes) {
	s.size = s.size.Sub(n)
	s.ledger.reserved = s.ledger.reserved.Sub(n)
}
