package schedule

import (
	"fmt"
	"slices"

	"tempo/internal/infer"
	"tempo/internal/infer/llama"
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
	opts := s.ctx.Options()
	opts.Cells, opts.Sequences = shape.Cells, shape.Sequences
	if err := s.exchange(opts); err != nil {
		s.fault = err
		return err
	}
	for _, j := range slices.Clone(s.jobs) {
		if j.seq >= 0 || s.fits(j) {
			// Never less: what a running job may write was promised when it came.
			j.longest = max(j.longest, min(j.limit, shape.Cells))
		}
	}
	return nil
}

// usage is how many jobs are in the pool, and the cells of all leases, also of
// those that may join at the next step.
func (s *Scheduler) usage() (jobs, cells int) {
	for _, j := range s.jobs {
		if j.seq >= 0 {
			jobs++
		}
		if j.seq >= 0 || !j.asking { // who asks with nothing in the pool may hold nothing
			cells += j.leased
		}
	}
	return jobs, cells
}

// exchange makes the context anew, and puts the running jobs into it, their sequences numbered from 0 on.
func (s *Scheduler) exchange(opts llama.ContextOptions) error {
	var running []*job
	for _, j := range s.jobs {
		if j.seq < 0 {
			continue
		}
		running = append(running, j)
		if j.cells > 0 {
			if err := s.save(j); err != nil {
				return err
			}
		}
	}
	if err := s.ctx.Reshape(opts); err != nil {
		return err
	}
	if s.model.OnGPU() { // its runtime has pools that show only in a step; others may be waiting for memory
		if err := s.ctx.WarmUp(); err != nil {
			return err
		}
	}
	for seq, j := range running {
		j.seq = seq
		if j.saved != nil {
			if err := s.restore(j, seq); err != nil {
				return err
			}
		}
	}
	s.renumber()
	return nil
}

// renumber frees the sequences that no job has: all but the first ones.
func (s *Scheduler) renumber() {
	running, _ := s.usage()
	s.free = nil
	for seq := running; seq < s.ctx.Options().Sequences; seq++ {
		s.free = append(s.free, seq)
	}
}

// save copies what a job has in the pool.
func (s *Scheduler) save(j *job) (err error) {
	if j.saved, err = s.ctx.Save(j.seq); err != nil {
		return fmt.Errorf("take a job with %d tokens out of the pool: %w", j.cells, err)
	}
	return nil
}

// restore puts a saved job into the pool as seq.
func (s *Scheduler) restore(j *job, seq int) error {
	if err := s.ctx.Restore(j.saved, seq); err != nil {
		return fmt.Errorf("put a job with %d tokens back into the pool: %w", j.cells, err)
	}
	j.saved.Free()
	j.saved = nil
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
	if j.seq >= 0 {
		if j.cells > 0 {
			if err := s.save(j); err != nil {
				s.fault = err
				return
			}
		}
		if err := s.vacate(j); err != nil {
			s.fault = err
			return
		}
	}
	j.recall = false
	s.request(j, j.want(s.ctx.Options().Cells))
}
