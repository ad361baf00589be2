package budget

// Snapshot is a ledger at one moment.
type Snapshot struct {
	Device   string
	Limit    Bytes
	Booked   Footprint // KVCache is the pool's capacity
	Measured Footprint // 0 = not measured
	// Held is what all lines hold together: as measured; a line that was not, as
	// booked.
	Held     Bytes
	Pressure Level // how near Held is to the limit
	// Room is what may be reserved in all: the pool, less what is missing elsewhere.
	// It can be negative, and below Reserved: nothing is reserved then until enough
	// was released.
	Room     Bytes
	Reserved Bytes // sum of the leases
	// PeakReserved is the most that was reserved so far.
	PeakReserved Bytes
	Leases       int
	Waiting      int   // requests that wait
	WaitingBytes Bytes // what they ask for here
}

// Charged is what counts against the limit: for each line the larger of booking
// and measurement.
func (s Snapshot) Charged() Footprint {
	return charge(s.Booked, s.Measured)
}

// Snapshot returns the ledger as it is now.
func (l *Ledger) Snapshot() Snapshot {
	l.group.mu.Lock()
	defer l.group.mu.Unlock()
	return l.snapshot()
}

// Snapshot returns all ledgers as they are at one moment, in the order in which
// they were made.
func (g *Group) Snapshot() []Snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Snapshot, len(g.ledgers))
	for i, l := range g.ledgers {
		all[i] = l.snapshot()
	}
	return all
}

func (l *Ledger) snapshot() Snapshot {
	return Snapshot{
		Device:       l.device,
		Limit:        l.limit,
		Booked:       l.booked,
		Measured:     l.measured,
		Held:         l.held(),
		Pressure:     l.pressure(),
		Room:         l.room(),
		Reserved:     l.reserved,
		PeakReserved: l.peakReserved,
		Leases:       l.leases,
		Waiting:      l.waiting.count,
		WaitingBytes: l.waiting.bytes,
	}
}
