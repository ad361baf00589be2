package worker

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"
)

// On a CPU the threads of two engines at work would wait for each other's cores, which
// makes decoding many times slower. So only as many models of a team work at once as
// Options.AtOnce says. The others stay loaded, where there is memory for them, and
// rest: they take no jobs.

// isResting reports whether the member's worker is there and rests.
func (m *member) isResting(s state) bool { return s.worker != nil && m.resting == s.worker }

// rest has the model take no more jobs until wake, and waits until its running ones have
// ended.
func (m *member) rest(ctx context.Context) {
	s := m.state()
	if s.worker == nil || m.isResting(s) {
		return
	}
	m.log.Info("the model rests: another one is wanted", zap.Int("running", s.worker.count()))
	m.resting, m.resume = s.worker, s.worker.holdIntake()
	tick := time.NewTicker(restLook)
	defer tick.Stop()
	for s.worker.count() > 0 {
		select {
		case <-tick.C:
		case <-s.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// restLook is the time between two looks whether the jobs of a model have ended.
const restLook = 5 * time.Millisecond

// wake has the model take jobs again.
func (m *member) wake() {
	m.log.Info("the model is at work again")
	m.resting.touch()
	m.resume()
	m.resting, m.resume = nil, nil
}

// place is who has to rest so that one more model can work, nil = nobody; ok is false if
// nobody can yet. certain says that there are jobs for it beyond doubt.
func (t *Team) place(certain bool) (rests *member, ok bool) {
	working := slices.DeleteFunc(t.standings(), func(s standing) bool { return s.m.isResting(s.state) })
	if t.opts.AtOnce == 0 || len(working) < t.opts.AtOnce {
		return nil, true
	}
	for _, s := range working {
		if !s.busy || certain && s.over {
			return s.m, true
		}
	}
	return nil, false
}
