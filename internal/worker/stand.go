package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"tempo/api"
)

// stand is a worker's claim on its device, which it keeps alive from the first
// change on, whatever else the worker is at. Safe for concurrent use.
type stand struct {
	queue          Queue
	device, worker string
	every          time.Duration // between two renewals
	log            *zap.Logger

	mu   sync.Mutex
	last api.Claim // what was claimed last; guarded by mu, which is held while the queue is asked
	at   time.Time // when; guarded by mu

	renewing sync.WaitGroup
	stop     context.CancelFunc // ends the renewing; nil before begin
	giveUp   func()             // is end with the context of begin; nil before it
}

// set replaces the claim by what decide makes of the others', and waits for the
// queue until ctx is done.
func (s *stand) set(ctx context.Context, decide func(others []api.Claim) (api.Claim, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim(ctx, decide)
}

// claim is set with mu held.
func (s *stand) claim(ctx context.Context, decide func(others []api.Claim) (api.Claim, error)) error {
	var made api.Claim
	err := s.queue.Claim(ctx, s.device, s.worker, func(others []api.Claim) (c api.Claim, err error) {
		made, err = decide(others)
		return made, err
	})
	if err != nil {
		return fmt.Errorf("claim memory: %w", err)
	}
	s.last, s.at = made, time.Now()
	return nil
}

// begin renews the claim until end is called.
func (s *stand) begin(ctx context.Context) {
	alive := context.WithoutCancel(ctx)
	s.giveUp = func() {
		ctx, cancel := context.WithTimeout(alive, askLimit)
		defer cancel()
		s.end(ctx)
	}
	ctx, s.stop = context.WithCancel(alive)
	s.renewing.Go(func() {
		tick := time.NewTicker(s.every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.renew(ctx)
			}
		}
	})
}

func (s *stand) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stands() {
		return // it may have expired, and others have its memory: who knows the limit now must claim it
	}
	err := s.claim(ctx, func([]api.Claim) (api.Claim, error) { return s.last, nil })
	if err != nil {
		s.log.Debug("the claim on the device could not be renewed", zap.Error(err))
	}
}

// stands reports whether the claim cannot have expired yet. mu is held.
func (s *stand) stands() bool { return time.Since(s.at) <= claimLife-10*time.Second }

// told is what was claimed last, and whether that cannot have expired yet.
func (s *stand) told() (last api.Claim, stands bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.stands()
}

// end gives the claim back. It may be called more than once.
func (s *stand) end(ctx context.Context) {
	if s.stop != nil {
		s.stop()
		s.renewing.Wait()
	}
	if err := s.queue.Unclaim(ctx, s.device, s.worker); err != nil {
		s.log.Debug("the claim on the device could not be withdrawn; it expires", zap.Error(err))
	}
}
