package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
)

// Where not all models of a team fit at once they take turns. Who is wanted first is
// loaded first. It gets room from what is free, from what the pools of the others have
// left over, from those that are idle (least recently used first), and last from those
// at work: these have had their turn once they have worked for as long as turn says, and
// are unloaded when their running jobs have ended. A model that has jobs and was not in
// anybody's way keeps its place for ever.
const (
	// turnLoads is how many times longer than its load a turn lasts at least, so that
	// loading takes a tenth of the time.
	turnLoads = 10
	// turnMost bounds that, whatever a load takes: others wait.
	turnMost = 10 * time.Minute
	// useful is the share of the pool that a model would have alone with which it is
	// loaded beside others. With less, turns are faster.
	useful = 0.25
	// failedFirst and failedMost bound how long a model that failed is left alone; each
	// failure in a row doubles it.
	failedFirst = 30 * time.Second
	failedMost  = 10 * time.Minute
)

// takeTurns looks again and again who is to be loaded, until ctx is done or nobody is
// left.
func (t *Team) takeTurns(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, m := range t.members {
		go m.notice(ctx)
	}
	tick := time.NewTicker(t.opts.WatchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-t.fatal:
			return err
		case <-tick.C:
		case <-t.wake:
		}
		t.look(ctx)
	}
}

// poke has takeTurns look at once.
func (t *Team) poke() {
	select {
	case t.wake <- struct{}{}:
	default: // it will anyway
	}
}

// failed notes that a model has failed, and ends the team where that was the last one,
// or where all will.
func (t *Team) failed(err error) {
	var all []error
	for _, m := range t.members {
		if s := m.state(); s.down() {
			all = append(all, s.failure)
		}
	}
	if len(all) < len(t.members) && !errors.Is(err, budget.ErrGPULost) {
		return
	}
	select {
	case t.fatal <- errors.Join(all...):
	default: // it is ending
	}
}

// look has the model work that is wanted first, if it is time for it.
func (t *Team) look(ctx context.Context) {
	for _, m := range t.members {
		s := m.state()
		switch {
		case s.worker != nil && !m.isResting(s):
			m.wanted, m.heard = time.Time{}, time.Time{}
		case time.Now().After(s.retry):
			m.listen(ctx, time.Now())
		}
	}
	for _, m := range t.waiting() {
		if !t.admit(ctx, m) {
			return // those behind it must not take what it waits for
		}
	}
}

// admit has a model work, if there is a place and memory for it. It returns false if it
// has to wait for them, and true if others may be looked at.
func (t *Team) admit(ctx context.Context, m *member) bool {
	rests, ok := t.place(!m.wanted.IsZero())
	if !ok {
		return false
	}
	if !m.isResting(m.state()) {
		return t.tryLoad(ctx, m, rests)
	}
	if rests != nil {
		rests.rest(ctx)
	}
	m.wake()
	return true
}

// waiting are the models that do not work and have jobs, in the order in which they are
// to work: those last of which nobody knows whether their jobs can be had.
func (t *Team) waiting() []*member {
	var list []*member
	for _, m := range t.members {
		s := m.state()
		if (s.worker == nil && time.Now().After(s.retry) || m.isResting(s)) && !m.heard.IsZero() {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b *member) int {
		if a.wanted.IsZero() != b.wanted.IsZero() {
			return compareBool(a.wanted.IsZero(), b.wanted.IsZero())
		}
		if a.wanted.IsZero() {
			return a.heard.Compare(b.heard)
		}
		return a.wanted.Compare(b.wanted)
	})
	return list
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// tryLoad makes room for a model and loads it, once rests rests, if that is anybody. It
// returns what admit does.
func (t *Team) tryLoad(ctx context.Context, m, rests *member) bool {
	chosen, ok, wait := t.sacrifices(ctx, m)
	if !ok {
		return !wait
	}
	if rests != nil {
		rests.rest(ctx)
		chosen, ok, _ = t.sacrifices(ctx, m) // it has more to give now
	}
	for _, o := range chosen {
		o.take(ctx)
	}
	if rests != nil || len(chosen) > 0 {
		m.listen(ctx, time.Now()) // others may have taken its jobs meanwhile
	}
	if !ok || m.heard.IsZero() || ctx.Err() != nil {
		return true
	}
	err := m.load(ctx)
	var large *budget.TooLargeError
	switch {
	case err == nil:
		m.wanted, m.heard = time.Time{}, time.Time{}
	case ctx.Err() != nil:
	case errors.As(err, &large), errors.Is(err, errTaken):
		m.log.Info("there is no room for the model yet", zap.Error(err))
		m.postpone(t.opts.RetryStart)
	default:
		m.fail(err)
	}
	return true
}

// sacrifices are what others must give so that there is room for a model. If that cannot
// be had, wait says whether it can later.
func (t *Team) sacrifices(ctx context.Context, m *member) (chosen []offer, ok, wait bool) {
	usable, err := m.usable(ctx)
	switch {
	case errors.Is(err, budget.ErrGPULost):
		m.fail(err)
		return nil, false, true
	case err != nil:
		m.log.Debug("it is not known what there is for the model", zap.Error(err))
		return nil, false, true
	}
	offers, whole := t.offers(m)
	all := usable.Add(whole)
	if all < m.least {
		m.log.Debug("the model would not fit, even alone", zap.Int64("usable_bytes", int64(all)), zap.Int64("need_bytes", int64(m.least)))
		return nil, false, false
	}
	enough := max(min(m.least.Add(m.full.Sub(m.least).Scale(useful)), all), m.least)
	chosen, ok = choose(enough.Sub(usable), offers)
	return chosen, ok, true
}

// usable is what the model's plan may have beside what all others hold now.
func (m *member) usable(ctx context.Context) (budget.Bytes, error) {
	others, err := m.team.claims(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := m.Monitor.Sample(); err != nil { // the last one is of an engine that has ended
		return 0, err
	}
	limit, _, err := m.probe.limitNow(others, 0)
	return limit.Scale(m.team.opts.Thresholds.Act), err
}

// offer is room that a loaded model can give.
type offer struct {
	from   *member
	state  state
	unload bool // else its pool gets smaller
	frees  budget.Bytes
}

func (o offer) take(ctx context.Context) {
	if o.unload {
		o.from.unload(ctx)
		return
	}
	o.state.worker.yield(ctx, o.state.ended)
}

// standing is what a loaded model is at.
type standing struct {
	state
	m     *member
	busy  bool
	over  bool      // it has had its turn
	last  time.Time // when a job came or left last
	since time.Time // when its jobs began to come
}

// standings are those of all loaded models: idle ones first, the least recently used
// first; then those at work, first who has worked for longest.
func (t *Team) standings() []standing {
	now := time.Now()
	var loaded []standing
	for _, m := range t.members {
		s := m.state()
		if s.worker == nil {
			continue
		}
		_, last, since := s.worker.work()
		_, idle := s.worker.idleSince()
		loaded = append(loaded, standing{
			state: s, m: m, last: last, since: since, over: now.Sub(since) >= m.turn(), busy: !idle && !m.isResting(s),
		})
	}
	slices.SortStableFunc(loaded, func(a, b standing) int {
		switch {
		case a.busy != b.busy:
			return compareBool(a.busy, b.busy)
		case a.busy:
			return a.since.Compare(b.since)
		}
		return a.last.Compare(b.last)
	})
	return loaded
}

// offers are what the loaded models can give for another, in the order in which it is
// to be asked for; and what they hold in all.
func (t *Team) offers(wants *member) (offers []offer, whole budget.Bytes) {
	certain := !wants.wanted.IsZero()
	loaded := t.standings()
	for _, unload := range []bool{false, true} {
		for _, s := range loaded {
			o := offer{from: s.m, state: s.state, unload: unload, frees: promise(s.worker.ledger.Snapshot())}
			if unload {
				whole = whole.Add(o.frees)
			} else {
				o.frees = s.worker.yieldable()
			}
			if o.frees > 0 && (!s.busy || certain && (!unload || s.over)) {
				offers = append(offers, o)
			}
		}
	}
	return offers, whole
}

// choose takes offers in their order until they free need, and leaves out those that
// are needless then. An unloading takes the place of what the model offered before.
func choose(need budget.Bytes, offers []offer) (chosen []offer, ok bool) {
	var sum budget.Bytes
	for _, o := range offers {
		if sum >= need {
			break
		}
		for i, c := range chosen {
			if c.from == o.from {
				sum = sum.Sub(c.frees)
				chosen = slices.Delete(chosen, i, i+1)
				break
			}
		}
		chosen = append(chosen, o)
		sum = sum.Add(o.frees)
	}
	if sum < need {
		return nil, false
	}
	return slices.DeleteFunc(chosen, func(c offer) bool {
		if sum.Sub(c.frees) < need {
			return false
		}
		sum = sum.Sub(c.frees)
		return true
	}), true
}

// turn is how long the model may work while others wait for its place.
func (m *member) turn() time.Duration {
	return max(m.team.opts.Turn, min(turnLoads*m.state().took, turnMost))
}
