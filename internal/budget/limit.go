package budget

import "fmt"

// Claimed is what another worker has claimed of a device's memory.
type Claimed struct {
	Promised Bytes // the most that it will hold
	Held     Bytes // what it held when it last said so, measured as LimitRequest.Mine
	// Target is what it will hold when the load, unload or resizing that it is at is
	// done; 0 = it is at none.
	Target Bytes
}

// LimitRequest is what [EffectiveLimit] is asked for.
type LimitRequest struct {
	Maximum Bytes  // max_memory_gb
	Device  Device // as it is now
	// Mine is what this worker holds on the device, by what Device.Free lacks: on a
	// GPU what its processes hold ([Monitor.Last]), on a CPU their [UncachedSetSize].
	Mine     Bytes
	Target   Bytes     // as Claimed.Target, of this worker
	Promised Bytes     // what its own claim stands at; 0 = it has none, or that has expired
	Others   []Claimed // all other Tempo workers on the device's memory
	Reserve  Bytes     // is left to whoever else needs it
}

// EffectiveLimit is what a worker may hold on a device: the smallest of
//
//	Maximum
//	what is free + what it holds - what others may still take - Reserve
//	what there is - what others were promised                 - Reserve
//
// never below 0. The second follows those who use the device and are no Tempo
// workers. The third bounds what all workers together are promised even when what
// others are said to hold is no longer true.
//
// What each worker holds was never measured at the moment at which the device was
// read: one that is loading a model looks like somebody else who takes memory from
// all the workers, one that unloads seems to leave them more. But it is between what
// was measured and the target, if there is one. So what this worker is promised is
// raised if the least of that allows it, and lowered if even the most demands it.
//
// The string says in one line what bounds the limit, with numbers.
func EffectiveLimit(r LimitRequest) (Bytes, string) {
	low, why := r.limit(leastHeld)
	high, whyHigh := r.limit(mostHeld)
	switch {
	case r.Promised <= low:
		return low, why
	case r.Promised >= high:
		return high, whyHigh
	}
	return r.Promised, fmt.Sprintf("%v stay promised while workers load or unload: %s", r.Promised, why)
}

func leastHeld(held, target Bytes) Bytes {
	if target > 0 {
		held = min(held, target)
	}
	return max(held, 0)
}

func mostHeld(held, target Bytes) Bytes { return max(held, target, 0) }

// limit is the limit if each worker holds now what holds says.
func (r LimitRequest) limit(holds func(held, target Bytes) Bytes) (Bytes, string) {
	dev, mine := r.Device, holds(r.Mine, r.Target)
	var promised, more Bytes
	for _, c := range r.Others {
		promised = promised.Add(max(c.Promised, 0))
		more = more.Add(max(c.Promised.Sub(holds(c.Held, c.Target)), 0))
	}
	usable := dev.Total.Sub(dev.Reserved)
	free := dev.Free.Add(mine).Sub(more).Sub(r.Reserve)
	left := usable.Sub(promised).Sub(r.Reserve)

	has := fmt.Sprintf("%s has %v free", dev.ID, dev.Free)
	if mine > 0 {
		has += fmt.Sprintf(" and this worker holds %v", mine)
	}
	rest := fmt.Sprintf("less a reserve of %v (max_memory_gb would allow %v)", r.Reserve, r.Maximum)
	switch others := len(r.Others); {
	case r.Maximum <= min(free, left):
		return max(r.Maximum, 0), fmt.Sprintf("max_memory_gb allows %v (%s)", r.Maximum, has)
	case left < free && others > 0:
		return max(left, 0), fmt.Sprintf("%s has %v and %s claimed %v of it, %s", dev.ID, usable, workers(others), promised, rest)
	case left < free:
		return max(left, 0), fmt.Sprintf("%s has %v, %s", dev.ID, usable, rest)
	case more > 0:
		return max(free, 0), fmt.Sprintf("%s, %s claimed %v more, %s", has, workers(others), more, rest)
	}
	return max(free, 0), fmt.Sprintf("%s, %s", has, rest)
}

func workers(n int) string {
	if n == 1 {
		return "1 other worker has"
	}
	return fmt.Sprintf("%d other workers have", n)
}
