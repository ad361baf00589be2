package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"

	"tempo/internal/infer"
)

// admit gives seats to waiting jobs, and divides the pools anew where that is due.
func (s *Scheduler) admit(now time.Time) error {
	if s.displace(); s.fault != nil {
		return s.fault
	}
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
			r.cached = math.MaxInt
		}
		ranks = append(ranks, r)
	}
	slices.SortStableFunc(ranks, func(a, b rank) int {
		return cmp.Or(cmp.Compare(b.req.Priority, a.req.Priority), cmp.Compare(b.cached, a.cached))
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
	most := j.pool.longest() - j.spare()
	return most-j.cells < j.unit() && j.leased-j.cells >= j.unit() && j.longest > most
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
			if j.leased > j.within(s.opts.Cells) { // it was granted when there were more
				s.ask(j)
			}
		}
	}
}
