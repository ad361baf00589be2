package schedule

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/internal/infer"
)

// note remembers what a job that has ended needed.
func (s *Scheduler) note(j *job) {
	if j.longest == 0 {
		return // it never was one that could run
	}
	if len(s.recent) < remembered {
		s.recent = append(s.recent, need{})
	}
	n := s.expects(j)
	n.exact, n.sets, n.pooled, n.attends = false, false, false, false // that is for as long as such a job is there
	s.recent[s.left%remembered] = n
	s.left++
}

// remembered is how many jobs are looked back on.
const remembered = 256

// usual is how long answers usually are: nearly all of the last ones were shorter.
type usual struct {
	made []int // tokens of the last answers, a ring
	next int
	now  int // 0 = none has ended yet
}

// unknown is what an answer is expected to come to before any has ended.
const unknown = 512

func (u *usual) tokens() int {
	if u.now == 0 {
		return unknown
	}
	return u.now
}

// add takes an answer into account.
func (u *usual) add(made int) {
	if len(u.made) < remembered {
		u.made = append(u.made, 0)
	}
	u.made[u.next%remembered] = made
	u.next++
	if u.next%16 != 1 && len(u.made) > 16 {
		return // it changes slowly
	}
	sorted := slices.Sorted(slices.Values(u.made))
	u.now = max(1, sorted[len(sorted)*95/100]*5/4)
}

// need is what one job may come to.
type need struct {
	tokens  int
	exact   bool
	vectors bool
	sets    bool // several tokens at one position
	pooled  bool // and one pool for them
	attends bool
}

// expects is what a job needs of a layout: all that it may come to, or what answers
// usually come to, if that is less.
func (s *Scheduler) expects(j *job) need {
	if j.vectors != nil {
		return need{tokens: j.longest, vectors: true}
	}
	most := min(j.longest, s.opts.Cells-j.spare()) // a running job may have been promised more, before the cells became fewer
	n := min(max(len(j.tokens)+s.usual.tokens(), j.leased), most)
	e := need{tokens: max(n, len(j.tokens)+1) + j.spare(), exact: j.exact()}
	if j.sets != nil {
		e.sets, e.pooled, e.attends = true, s.opts.Layout != Streams || j.sets.pooled(), j.sets.o.Removal != nil
	}
	return e
}

// reconsider sees whether the waiting jobs would be better served by another layout.
// Nobody joins until it is taken; see due.
func (s *Scheduler) reconsider() {
	waiting, misfit := false, false
	var first *job
	for _, j := range s.jobs {
		if j.seat == nil && j.granted() {
			waiting = true
			if s.misfit(j) && !misfit {
				misfit, first = true, j
			}
		}
	}
	if !waiting {
		return
	}
	s.lookAlike()
	needs := append(s.needs(), s.recent...)
	if first != nil {
		needs = append([]need{s.expects(first)}, needs...)
	}
	target := s.choose(needs)
	if !misfit && !s.better(target, needs) {
		return
	}
	switch {
	case !slices.Equal(target, s.layouts()):
		s.target, s.patience = target, drainSteps
	case misfit: // it would wait for ever
		s.end(first, nil, &infer.PoolError{Need: s.expects(first).tokens, Have: target[0].longest()})
	}
}

// better reports whether other layouts are worth the pause.
func (s *Scheduler) better(target []layout, needs []need) bool {
	switch {
	case s.alike != s.together:
		return true
	case s.exact() && !target[0].exact:
		return s.single || s.arrived-s.lastExact >= linger
	case s.pools[0].pooled && !target[0].pooled, s.pools[0].attends && !target[0].attends:
		return s.arrived-s.lastSets >= linger
	case target[0].exact != s.exact(), target[0].vectors != s.pools[0].vectors, target[0].pooled != s.pools[0].pooled, target[0].attends != s.pools[0].attends:
		return false // of another kind: a job that fits nowhere asks for it
	}
	d := s.divider()
	return d.pace(target, needs) > worthDividing*d.pace(s.layouts(), needs)
}

// worthDividing is how many times as fast other layouts must be. The pause is short, but
// what the next jobs are like nobody knows.
const worthDividing = 1.25

// idle reports whether no job has a seat.
func (s *Scheduler) idle() bool {
	return !slices.ContainsFunc(s.jobs, func(j *job) bool { return j.seat != nil })
}

// drainSteps is how long jobs may go on before the pools are divided anew under them,
// in steps. What they have is decoded anew then, so most should have ended; but nobody
// is to wait for a job that writes for minutes.
const drainSteps = 64

// linger is how many jobs must have come since the last reproducible one, or the last with
// sets, before the pools are for others again.
const linger = 16

// due reports whether the pools are to be divided anew now: when the jobs have had
// their time, when none of them can go on, or when they have so little that decoding it
// anew takes no longer than a few steps. A job that has lost its seat to this once is
// waited for, so that two kinds of jobs never take it from each other for ever.
func (s *Scheduler) due() bool {
	if s.target == nil {
		return false
	}
	cells, going := 0, false
	for _, j := range s.jobs {
		if j.seat == nil || !j.goesOn() {
			continue
		}
		if j.evicted {
			return false
		}
		cells += j.cells
		going = true
	}
	return s.patience <= 0 || !going || cells <= 2*s.opts.Batch
}

func (s *Scheduler) choose(needs []need) []layout { return s.divider().choose(needs) }

// divider divides the cells there are for the jobs there are.
func (s *Scheduler) divider() divider {
	d := s.opts.divider()
	d.singly, d.undivided, d.costs = s.single, s.undivided, onCPU()
	if d.kind == Auto && s.alike {
		d.kind = Unified
	}
	if s.model.OnGPU() {
		d.costs = onGPU()
	}
	return d
}

// divider divides the cells for jobs of which nothing is known.
func (o Options) divider() divider {
	d := divider{kind: o.Layout, cells: o.Cells, attended: o.Cells, n: o.Sequences}
	if o.Attends != nil {
		d.attended = o.Attends(o.Cells)
	}
	return d
}

// needs are those of all jobs that are there.
func (s *Scheduler) needs() []need {
	needs := make([]need, len(s.jobs))
	for i, j := range s.jobs {
		needs[i] = s.expects(j)
	}
	return needs
}

// exact reports whether the pools are exact now.
func (s *Scheduler) exact() bool {
	return slices.ContainsFunc(s.pools, func(p *pool) bool { return p.exact })
}

func (s *Scheduler) layouts() []layout {
	var all []layout
	for _, p := range s.pools {
		all = append(all, p.layout)
	}
	return all
}

// divide makes the pools anew as they are to be. Jobs that still run lose their seats.
func (s *Scheduler) divide() error {
	target := s.target
	s.target, s.together = nil, s.alike
	began := time.Now()
	for _, j := range s.jobs {
		if j.seat != nil {
			j.unseat()
			j.evicted = true
			j.restart()
		}
	}
	if err := s.open(target); err != nil {
		return err
	}
	if s.unread != nil {
		for _, j := range slices.Clone(s.jobs) {
			s.fits(j)
		}
	}
	s.log.Info("the KV cache is divided anew", zap.Any("layouts", describe(s.layouts())),
		zap.Duration("took", time.Since(began)))
	return nil
}
