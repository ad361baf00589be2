package worker

import (
	"sync"
	"sync/atomic"

	"tempo/internal/budget"
)

// common is what the models of a team have together: one limit, and the host's
// memory. What a model may book is what the others and the process itself leave of
// the limit, looked at in the same step in which it is booked, so that two models
// never have the same bytes. Safe for concurrent use.
type common struct {
	most   budget.Bytes // max_memory_gb
	act    float64      // Thresholds.Act
	group  *budget.Group
	host   *budget.Ledger
	own    atomic.Int64 // bytes that count for the process itself
	models []string     // all that are served, loaded or not

	mu       sync.Mutex
	accounts map[string]*account // by model; guarded by mu
}

// account is the memory of one model. Its ledger stays while the model is not
// loaded, with nothing in it.
type account struct {
	ledger  *budget.Ledger // nil before the first load
	worker  *Worker        // the last that was loaded
	pledged budget.Bytes   // planned for a load, and not booked yet
}

func newCommon(o Options, models []string) (*common, error) {
	c := &common{most: o.Limit, act: o.Thresholds.Act, models: models, group: budget.NewGroup(), accounts: map[string]*account{}}
	var err error
	c.host, err = openHost(c.group, o.HostMemory)
	return c, err
}

// room is what a model may hold beside the others. It is such that the threshold at
// which a model acts on its room is that of all of them on the limit.
func (c *common) room(model string) budget.Bytes {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leave(model)
}

// leave is room with mu held.
func (c *common) leave(model string) budget.Bytes {
	beside := budget.Bytes(c.own.Load())
	for name, a := range c.accounts {
		if name != model {
			beside = beside.Add(a.counts())
		}
	}
	return max(c.most.Sub(beside.Scale(1/c.act)), 0)
}

// counts is what the others must leave to a model.
func (a *account) counts() budget.Bytes {
	if a.ledger == nil {
		return a.pledged
	}
	return max(a.pledged, promise(a.ledger.Snapshot()))
}

// pledge keeps room for a load that is planned, until it is booked. It reports
// whether the room is there still.
func (c *common) pledge(model string, n budget.Bytes) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.leave(model) {
		return false
	}
	c.account(model).pledged = n
	return true
}

// account finds or makes a model's. mu is held.
func (c *common) account(model string) *account {
	a := c.accounts[model]
	if a == nil {
		a = &account{}
		c.accounts[model] = a
	}
	return a
}

// open is the ledger of a model that is about to be loaded.
func (c *common) open(w *Worker, limit budget.Bytes) (_ *budget.Ledger, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.account(w.opts.Model)
	a.worker = w
	if a.ledger != nil {
		a.ledger.SetLimit(limit)
		return a.ledger, nil
	}
	a.ledger, err = c.group.NewLedger(w.opts.Device.ID, limit)
	return a.ledger, err
}

// spare is the limit of a model where limit is what the others leave to it. If that is
// less than it has, others have taken memory of the device. Then models that are idle
// give theirs back first, the least recently used before the others, and only what is
// still missing then is the model's to give.
func (c *common) spare(w *Worker, limit budget.Bytes) budget.Bytes {
	c.mu.Lock()
	defer c.mu.Unlock()
	has := promise(w.ledger.Snapshot()).Scale(1 / c.act)
	if limit >= has {
		return limit
	}
	var first budget.Bytes
	mine, idle := w.idleSince()
	// What they have told, since that was read before the device was: who has given
	// memory back since then must not be counted on.
	for _, told := range w.others {
		a := c.accounts[told.Model]
		if a == nil || a.worker == nil || !told.Own || told.Worker != a.worker.claimant() {
			continue
		}
		if since, is := a.worker.idleSince(); is && (!idle || since.Before(mine)) {
			first = first.Add(budget.Bytes(told.Bytes))
		}
	}
	return min(has, limit.Add(first.Scale(1/c.act)))
}

// book books a line within the room that there is now.
func (c *common) book(model string, line budget.Line, n budget.Bytes) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ledger := c.accounts[model].ledger
	ledger.SetLimit(min(ledger.Snapshot().Limit, c.leave(model)))
	return ledger.Book(line, n)
}

// booked notes that what was pledged is booked.
func (c *common) booked(model string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts[model].pledged = 0
}

// clear notes that a model holds nothing any more.
func (c *common) clear(model string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.account(model)
	a.pledged = 0
	if a.ledger == nil {
		return
	}
	for _, line := range []budget.Line{budget.KVCache, budget.Weights, budget.ParallelBatch, budget.Overhead} {
		_ = a.ledger.Book(line, 0) // less is never refused
		a.ledger.SetMeasured(line, 0)
	}
}

// heldBeside is what the others have: the engines' buffers, and what the runtime of
// each takes at first. A model that is being loaded counts as if it were.
func (c *common) heldBeside(model string) budget.Bytes {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum budget.Bytes
	for name, a := range c.accounts {
		if name == model {
			continue
		}
		sum = sum.Add(a.pledged)
		if a.ledger == nil {
			continue
		}
		m := a.ledger.Snapshot().Measured
		if buffers := m.Total().Sub(m.Overhead); buffers > 0 {
			sum = sum.Add(buffers).Add(firstCUDA)
		}
	}
	return sum
}
