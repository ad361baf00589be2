package budget

import "fmt"

// Snapshot is a ledger at one moment.
type Snapshot struct {
	Device   string
	Limit    Bytes
	Booked   Footprint // KVCache is the pool's capacity
	Measured Footprint // 0 = not measured
	// Room is what may be reserved in all: the pool, less what is missing elsewhere.
	// It can be negative, and below Reserved: nothing is reserved then until enough
	// was released.
	Room     Bytes
	Reserved Bytes // sum of the leases
	// PeakReserved is the most that was reserved so far.
	PeakReserved Bytes
	Leases       int
	Waiting      int   // requests that wait
	WaitingBytes Bytes // what they ask for
}

// Charged is what counts against the limit: for each line the larger of booking
// and measurement.
func (s Snapshot) Charged() Footprint {
	return charge(s.Booked, s.Measured)
}

// Snapshot returns the ledger as it is now.
func (l *Ledger) Snapshot() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Snapshot{
		Device:       l.device,
		Limit:        l.limit,
		Booked:       l.booked,
		Measured:     l.measured,
		Room:         l.room(),
		Reserved:     l.reserved,
		PeakReserved: l.peakReserved,
		Leases:       l.leases,
		Waiting:      l.waiting.count,
		WaitingBytes: l.waiting.bytes,
	}
}

// Level says how near the limit a device is.
type Level int

// Levels of pressure.
const (
	OK   Level = iota
	Warn       // say so
	Act        // beyond what was planned for
)

// String returns "ok", "warn" or "act".
func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Warn:
		return "warn"
	case Act:
		return "act"
	}
	return fmt.Sprintf("level %d", int(l))
}

// Thresholds are shares of the limit beyond which a level holds:
// 0 < Warn ≤ Act ≤ 1. A plan that fills a limit to just Act is not over it.
type Thresholds struct {
	Warn float64
	Act  float64
}

// DefaultThresholds returns 0.85 and 0.95.
func DefaultThresholds() Thresholds {
	return Thresholds{Warn: 0.85, Act: 0.95}
}

// SetThresholds changes when [Ledger.Pressure] warns and acts.
func (l *Ledger) SetThresholds(t Thresholds) error {
	if !(t.Warn > 0 && t.Warn <= t.Act && t.Act <= 1) { // so that NaN is refused too
		return fmt.Errorf("set thresholds of %s: warn %v, act %v: must be 0 < warn ≤ act ≤ 1", l.device, t.Warn, t.Act)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.thresholds = t
	return nil
}

// Pressure compares what is held with the limit. A line counts as it was
// measured; one that was not, as it is booked.
func (l *Ledger) Pressure() Level {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := combine(l.booked, l.measured, func(booked, measured Bytes) Bytes {
		if measured > 0 {
			return measured
		}
		return booked
	}).Total()
	switch {
	case held > l.limit.Scale(l.thresholds.Act):
		return Act
	case held > l.limit.Scale(l.thresholds.Warn):
		return Warn
	}
	return OK
}
