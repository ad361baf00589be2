package queue

import "tempo/api"

const (
	// firstCost is what a job is taken to cost in tokens before one of its batch has
	// told. It is high, as what was taken is not given back: a quantum is 32 of them.
	firstCost = 2048
	// leastCost is the least that a job costs, in tokens: fetching and answering it
	// takes the time of a few, and a batch of free jobs would keep the turn.
	leastCost = 16
)

// charge is what a lane was charged for a job whose cost is not known yet.
type charge struct {
	lane   *lane
	tokens int64
}

// Served tells what the job has cost: the tokens (≥ 0) of its prompt and of all its
// answers. The batches of a priority get equal shares of these. It is called before
// Complete; a job of which it is not told counts as much as others of its batch do. It
// does nothing if no taker gave the delivery.
func (d *Delivery) Served(tokens int) {
	if d.t == nil {
		return
	}
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	c, ok := d.t.charges[d]
	if !ok {
		return
	}
	delete(d.t.charges, d)
	cost := max(int64(tokens), leastCost)
	c.lane.used += c.lane.price(cost) - c.lane.price(c.tokens)
	c.lane.cost = max(c.lane.cost+(cost-c.lane.cost)/8, leastCost)
}

// charge has a lane pay for a job that it has given.
func (t *Taker) charge(l *lane, d *Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.used += l.price(l.cost)
	t.charges[d] = charge{l, l.cost}
}

// settle forgets what was charged for jobs that have ended without telling their cost:
// the charge stays. t.mu must be held.
func (t *Taker) settle() {
	for d := range t.charges {
		if t.open[d.msg.Subject()] != d {
			delete(t.charges, d)
		}
	}
}

// price is what a lane pays for so many tokens: the more its batch weighs, the less.
func (l *lane) price(tokens int64) int64 { return max(tokens*api.DefaultWeight/l.weight, 1) }
