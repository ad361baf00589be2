package schedule

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/internal/infer"
)

// admit gives seats to waiting jobs, and divides the pools anew where that is due.
func (s *Scheduler) admit(now time.Time) error {
	s.displace()
	if s.target == nil && s.idle() {
		s.reconsider()
	}
	if s.due() {
		if err := s.divide(); err != nil {
			return err
		}
	}
	if s.target != nil {
		s.patience--
		return nil
	}
	for _, j := range s.waiting() {
		p := s.poolFor(j)
		if p == nil {
			continue
		}
		sat, err := p.sit(j)
		if err != nil {
			return err
		}
		if sat {
			s.start(j, now)
		}
	}
	s.reconsider()
	return nil
}

// mostPassed is how many later jobs may join before a job because more of their prompt
// is cached.
const mostPassed = 8

// waiting are the jobs that have their memory and no seat, in the order in which they
// are to join: by priority; then those that were passed over often enough; then those
// of whose prompt most is cached; then by age.
func (s *Scheduler) waiting() []*job {
	type rank struct {
		*job
		cached int
	}
	var ranks []rank
	for _, j := range s.jobs {
		if j.seat != nil || !j.granted() {
			continue
		}
		r := rank{job: j}
		if p := s.poolFor(j); p != nil && j.saved == nil {
			_, r.cached, _ = p.source(j)
		}
		if j.passed >= mostPassed || j.saved != nil {
			r.cached = j.longest
		}
		ranks = append(ranks, r)
	}
	slices.SortStableFunc(ranks, func(a, b rank) int {
		if a.req.Priority != b.req.Priority {
			return int(b.req.Priority - a.req.Priority)
		}
		return b.cached - a.cached
	})
	jobs := make([]*job, len(ranks))
	for i, r := range ranks {
		jobs[i] = r.job
	}
	return jobs
}

// poolFor is a pool with room for a job now, nil if there is none.
func (s *Scheduler) poolFor(j *job) *pool {
	need := s.expects(j)
	for _, p := range s.pools {
		if p.takes(need) && p.room(j) {
			return p
		}
	}
	return nil
}

// misfit reports whether a job fits into none of the pools, were they empty.
func (s *Scheduler) misfit(j *job) bool {
	need := s.expects(j)
	return s.target == nil && !slices.ContainsFunc(s.pools, func(p *pool) bool { return p.takes(need) })
}

// start notes that a job has joined.
func (s *Scheduler) start(j *job, now time.Time) {
	for _, o := range s.jobs {
		if o == j {
			break
		}
		if o.seat == nil && o.granted() {
			o.passed++
		}
	}
	if !j.started.IsZero() {
		return
	}
	j.started = now
	if limit := j.req.Job.Timeout; limit > 0 {
		j.timeout = time.AfterFunc(limit, func() {
			s.tell(func() {
				if slices.Contains(s.jobs, j) {
					s.end(j, nil, &infer.TimeoutError{Limit: limit, Made: j.made})
				}
			})
		})
	}
}

// stuck reports whether a job has come to the end of its stream, but may go on.
func (j *job) stuck() bool {
	return j.room() <= 0 && j.leased > j.cells && j.longest > j.pool.longest()
}

// displace takes jobs out of their seats that cannot go on there: those that have come
// to the end of their stream, and the youngest where jobs have grown beyond what one
// pool has. They go on in another seat or another layout, where what they have is
// decoded anew.
func (s *Scheduler) displace() {
	for _, p := range s.pools {
		over := 0
		if p.streams == 0 {
			over = p.leased() - p.cells
		}
		for _, seat := range slices.Backward(p.oldest()) {
			j := seat.job
			if over <= 0 && !j.stuck() {
				continue
			}
			over -= j.leased
			if s.fault = p.vacate(j); s.fault != nil {
				return
			}
			j.restart()
		}
	}
}

// note remembers what a job that has arrived may come to.
func (s *Scheduler) note(j *job) {
	if len(s.recent) < remembered {
		s.recent = append(s.recent, need{})
	}
	s.recent[s.arrived%remembered] = s.expects(j)
	s.arrived++
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
}

// expects is what a job needs of a layout: all that it may come to, or what answers
// usually come to, if that is less.
func (s *Scheduler) expects(j *job) need {
	if j.vectors != nil {
		return need{tokens: j.longest, vectors: true}
	}
	return need{tokens: min(max(len(j.tokens)+s.usual.tokens(), j.leased), j.longest), exact: j.exact()}
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
	needs := append(s.needs(), s.recent...)
	if first != nil {
		needs = append([]need{s.expects(first)}, needs...)
	}
	target := s.choose(needs)
	better := seats(target, s.opts.Sequences) >= s.seats()*3/2 || s.exact() && !target[0].exact
	if !misfit && !better { // other seats are worth the pause only if there are many more
		return
	}
	if !slices.Equal(target, s.layouts()) {
		s.target, s.patience = target, drainSteps
	}
}

// idle reports whether no job has a seat.
func (s *Scheduler) idle() bool {
	return !slices.ContainsFunc(s.jobs, func(j *job) bool { return j.seat != nil })
}

// drainSteps is how long jobs may go on before the pools are divided anew under them,
// in steps. What they have is decoded anew then, so most should have ended; but nobody
// is to wait for a job that writes for minutes.
const drainSteps = 64

// due reports whether the pools are to be divided anew now.
func (s *Scheduler) due() bool {
	return s.target != nil && (s.patience <= 0 || !slices.ContainsFunc(s.jobs, func(j *job) bool {
		return j.seat != nil && j.room() > 0
	}))
}

// choose divides the cells for jobs with these needs.
func (s *Scheduler) choose(needs []need) []layout {
	return choose(s.opts.Layout, s.opts.Cells, s.opts.Sequences, needs, s.single)
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

// seats is how many jobs can run at once in a layout.
func seats(layouts []layout, sequences int) int {
	n := 0
	for _, l := range layouts {
		if l.streams > 0 {
			n += l.streams
		} else {
			n += sequences
		}
	}
	return min(n, sequences)
}

func (s *Scheduler) seats() int { return seats(s.layouts(), s.opts.Sequences) }

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
	s.target = nil
	began := time.Now()
	for _, j := range s.jobs {
		if j.seat != nil {
			j.pool, j.seat = nil, nil
			j.restart()
		}
	}
	if err := s.open(target); err != nil {
		return err
	}
	s.log.Info("the KV cache is divided anew", zap.Any("layouts", describe(s.layouts())),
		zap.Duration("took", time.Since(began)))
	return nil
}
