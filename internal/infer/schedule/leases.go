package schedule

import "slices"

// askAhead asks for a job's memory before it arrives, so that it need not wait for the end
// of two steps: for that of the one that runs, and then for the answer's. The channel that
// is returned must be closed when it has arrived.
func (s *Scheduler) askAhead(j *job) (arrived chan struct{}) {
	arrived = make(chan struct{})
	cells := int(s.cells.Load())
	j.longest = j.most(cells)
	if want := j.want(cells); want != j.leased && j.fewest()+j.spare() <= j.within(cells) {
		j.asking = true
		j.asks.Go(func() {
			leased, err := j.resize(0, want)
			<-arrived
			s.tell(func() { s.answered(j, leased, err) })
		})
	}
	return arrived
}

// granted reports whether a job has the memory to join. A prompt starts only when the
// lease holds it whole, and not while the job asks: with nothing in the pool it may
// lose what it has for as long.
func (j *job) granted() bool { return !j.asking && j.leased >= j.least() }

// ask asks for the memory that the job wants, if it is not asking already.
func (s *Scheduler) ask(j *job) {
	if want := j.want(s.opts.Cells); !j.asking && want != j.leased {
		s.request(j, want)
	}
}

// request asks for so many tokens in all.
func (s *Scheduler) request(j *job, want int) {
	j.asking = true
	used := j.cells
	if j.seat == nil {
		used = 0
	} else { // what is given back belongs to others from now on
		j.leased = min(j.leased, want)
	}
	j.asks.Go(func() {
		leased, err := j.resize(used, want)
		s.tell(func() { s.answered(j, leased, err) })
	})
}

// resize asks for want tokens, with so many in use, and returns what the lease then is.
func (j *job) resize(used, want int) (leased int, err error) {
	err = j.req.Lease.Resize(j.ctx, used, want)
	return j.req.Lease.Tokens(), err
}

// answered notes the answer to a request for memory.
func (s *Scheduler) answered(j *job, leased int, err error) {
	if !slices.Contains(s.jobs, j) {
		return // it ended in the meantime
	}
	j.asking, j.leased = false, leased
	if err != nil {
		s.end(j, nil, err)
		return
	}
	s.giveUp(j)
	if j.seat == nil && j.leased > j.within(s.opts.Cells) { // they have become fewer meanwhile
		s.ask(j)
	}
}
