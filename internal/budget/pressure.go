package budget

import "fmt"

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
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	l.thresholds = t
	return nil
}

// Pressure compares what is held ([Snapshot.Held]) with the limit.
func (l *Ledger) Pressure() Level {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return l.pressure()
}

func (l *Ledger) pressure() Level {
	switch {
	case l.beyond(l.limit.Scale(l.thresholds.Act)) > 0:
		return Act
	case l.beyond(l.limit.Scale(l.thresholds.Warn)) > 0:
		return Warn
	}
	return OK
}

// beyond is by how much more than n is held.
func (l *Ledger) beyond(n Bytes) Bytes {
	return max(l.held().Sub(n), 0)
}

// held is what all lines hold together.
func (l *Ledger) held() Bytes {
	return held(l.booked, l.measured).Total()
}
