package queue

import (
	"slices"
	"time"
)

// Each priority has a rota, which says from which batch the next jobs come. A batch
// has the turn until it has used a quantum of tokens, so that jobs that begin alike
// come one after the other and find that beginning in the worker's cache. The next
// turn is that of the batch that has used least, and so all get equal shares, whatever
// the size of their jobs.
const (
	// quantum is how many tokens a turn is worth. A common prefix of 512 tokens that
	// left the cache meanwhile is read again for less than 1 % of that.
	quantum = 64 * 1024
	// turnMost bounds a turn where a model is so slow that a quantum takes minutes. It
	// is not less, since such a model needs seconds to read a prefix again.
	turnMost = 30 * time.Second
	// firstMost and firstJobs bound it too while a batch waits for its first turn: a
	// batch of a few jobs beside one of a million starts within seconds, also if there
	// are thousands of those in a quantum.
	firstMost = 10 * time.Second
	firstJobs = 64
	// roundMost bounds the turns of all batches together: each has its part of it, so
	// that no one of many waits for minutes.
	roundMost = time.Minute
)

// rota is whose turn it is among the lanes of one priority. It is guarded by Taker.mu,
// as are the accounts of the lanes.
//
// It is start-time fair queueing (Goyal, Vin and Cheng, 1996) with the quanta of
// deficit round robin.
type rota struct {
	of    *lane     // whose turn it is, or was last; nil = there was none yet
	start int64     // what that lane had used when its turn began
	began time.Time // when that was
	jobs  int       // how many it has given since
	fresh bool      // it was the first turn of that lane
	ended bool      // that turn is over
	// clock is the most that a lane had used when its turn began. Who was away comes
	// back with that, and does not catch up on shares that it had no jobs for.
	clock int64
}

// next is the lane to ask for jobs, of those that may have some (at least one), and for
// how many: what is left of its quantum, at least 1 and at most want. Where nobody
// else waits it is want.
func (r *rota) next(lanes []*lane, want int, now time.Time) (*lane, int) {
	r.ended = r.ended || !slices.Contains(lanes, r.of) || r.over(lanes, now)
	l, left := r.of, int64(quantum)
	if r.ended {
		l = r.pick(lanes)
	} else {
		left -= l.used - r.start
	}
	if len(lanes) == 1 {
		return l, want
	}
	price := l.price(l.cost)
	return l, int(min((left+price-1)/price, int64(want)))
}

// over says whether the turn has used its quantum, or its part of a round's time, or
// has to make way for a first turn.
func (r *rota) over(lanes []*lane, now time.Time) bool {
	waiting, longest, fresh := 0, turnMost, false
	for _, l := range lanes {
		if l.rest == 0 { // it had jobs when it was asked last, or was never asked
			waiting++
		}
		fresh = fresh || l.fresh
	}
	if fresh {
		longest = firstMost
	}
	longest = min(longest, roundMost/time.Duration(max(waiting, 1)))
	return r.of.used-r.start >= quantum || now.Sub(r.began) >= longest || fresh && r.jobs >= firstJobs
}

// pick chooses who is next: the lane that came first of those that had no turn yet, so
// that a batch starts at once; otherwise the one that has used least. After a first
// turn that one goes before the next first turn if it has waited for longer, so that no
// stream of small batches keeps the others from their shares.
func (r *rota) pick(lanes []*lane) *lane {
	var fresh, least *lane
	for _, l := range lanes {
		switch {
		case l.fresh && (fresh == nil || l.since < fresh.since):
			fresh = l
		case !l.fresh && (least == nil || l.used < least.used || l.used == least.used && l.since < least.since):
			least = l
		}
	}
	if fresh == nil || r.fresh && least != nil && least != r.of && least.since < fresh.since {
		return least
	}
	return fresh
}

// gives notes that a lane has given jobs. If it is not its turn, one begins; count is
// higher than in all turns and arrivals before.
func (r *rota) gives(l *lane, jobs int, count uint64, now time.Time) {
	if r.of == l && !r.ended {
		r.jobs += jobs
		return
	}
	if l.fresh || l.rest > 0 {
		l.used = max(l.used, r.clock)
	}
	r.clock = max(r.clock, l.used)
	r.of, r.start, r.began, r.jobs, r.fresh, r.ended = l, l.used, now, jobs, l.fresh, false
	l.fresh, l.since = false, count
}
