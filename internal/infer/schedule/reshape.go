package schedule

import (
	"slices"

	"tempo/internal/infer"
)

// Reshape gives the context another shape between two steps; the running jobs go on
// where they were. What they have in the pool is in host memory meanwhile. It
// returns *infer.BusyError, and nothing has changed, if they use more than shape
// has. After another error the context is gone: Run returns it too.
func (s *Scheduler) Reshape(shape infer.Shape) error {
	done := make(chan error, 1)
	if !s.tell(func() { done <- s.reshape(shape) }) {
		return infer.ErrStopped
	}
	return <-done
}

func (s *Scheduler) reshape(shape infer.Shape) error {
	jobs, cells := s.usage()
	if jobs > shape.Sequences || cells > shape.Cells {
		return &infer.BusyError{Jobs: jobs, Cells: cells, Shape: shape}
	}
	s.opts.Cells, s.opts.Sequences, s.opts.Ample = shape.Cells, shape.Sequences, shape.Ample
	s.cells.Store(int64(shape.Cells))
	s.undivided = false
	if err := s.exchange(); err != nil {
		s.fault = err
		return err
	}
	for _, j := range slices.Clone(s.jobs) {
		switch {
		case j.seat == nil && !s.fits(j): // it has ended
		case j.seat == nil && j.made == 0 && j.vectors == nil:
			j.longest = j.most(shape.Cells)
		default: // never less: what a running job may write was promised when it came
			j.longest = max(j.longest, j.most(shape.Cells))
		}
	}
	return nil
}

// usage is how many jobs are in the pool, or tokens that the largest set of a job has now, if these
// are more, and the cells of all leases, also of those that may join at the next step.
func (s *Scheduler) usage() (jobs, cells int) {
	widest := 0
	for _, j := range s.jobs {
		if j.seat != nil {
			jobs++
		}
		if j.sets != nil { // it may have to be decoded anew, whole
			widest = max(widest, j.sets.WidestLeft())
		}
		if j.seat != nil || !j.asking { // who asks with nothing in the pool may hold nothing
			cells += j.leased
		}
	}
	return max(jobs, widest), cells
}

// exchange makes the contexts anew, in the layout that suits the running jobs, and puts
// these into it.
func (s *Scheduler) exchange() error {
	var running []*job
	var needs, waiting []need // what suits the running ones counts first
	for _, j := range s.jobs {
		n := s.expects(j)
		n.exact = s.exact() // what is saved of one kind does not go into the other
		if j.seat == nil {
			waiting = append(waiting, n)
			continue
		}
		needs = append(needs, n)
		if j.cells > 0 {
			if err := j.pool.save(j); err != nil {
				return err
			}
		}
		running = append(running, j)
		j.unseat()
	}
	s.target, s.together = nil, s.alike
	if err := s.allocate(s.model.OnGPU()); err != nil { // a GPU's runtime has pools that show only in a step
		return err
	}
	if len(running) == 0 {
		return nil // whoever comes will see to it
	}
	if err := s.open(s.choose(append(needs, waiting...))); err != nil {
		return err
	}
	for _, j := range running {
		if err := s.reseat(j); err != nil {
			return err
		}
	}
	return nil
}

// reseat puts a job that was saved into one of the new pools. Where there is no seat
// for it, it waits, and what it had is decoded anew.
func (s *Scheduler) reseat(j *job) error {
	if p := s.poolFor(j); p != nil {
		_, err := p.sit(j)
		return err
	}
	j.drop()
	j.restart()
	return nil
}

// watch passes on that a job's memory is wanted back, until the job has ended.
func (s *Scheduler) watch(j *job, recall <-chan struct{}) {
	for {
		select {
		case <-recall:
			s.tell(func() {
				if slices.Contains(s.jobs, j) { // it may have ended
					j.recall = true
					s.giveUp(j)
				}
			})
		case <-j.ctx.Done():
			return
		}
	}
}

// giveUp takes a job whose memory is wanted back out of the pool and asks for it
// anew. One that asks already is dealt with when it has its answer.
func (s *Scheduler) giveUp(j *job) {
	if !j.recall || j.asking {
		return
	}
	if p := j.pool; p != nil {
		if j.cells > 0 {
			if s.fault = p.save(j); s.fault != nil {
				return
			}
		}
		if s.fault = p.vacate(j); s.fault != nil {
			return
		}
	}
	j.recall = false
	s.request(j, j.want(s.opts.Cells))
}
