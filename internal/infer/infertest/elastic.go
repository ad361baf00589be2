package infertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/internal/infer"
)

// ended is what Generate returned.
type ended struct {
	out *infer.Output
	err error
}

// begin runs a job beside the test.
func (s *suite) begin(ctx context.Context, r infer.Request) <-chan ended {
	end := make(chan ended, 1)
	go func() {
		out, err := s.Generate(ctx, r)
		end <- ended{out, err}
	}()
	return end
}

// exact opens and loads with a cache in f32: what else is in the pool hardly ever
// changes a text then.
func (s *suite) exact(t *testing.T) {
	t.Helper()
	s.spec.CacheTypeK, s.spec.CacheTypeV = "f32", "f32"
	s.load(t)
}

// recalled makes a lease that calls again with the number of the time when a job
// with nothing in the pool asks for its tokens: 1 at first, then once each time that
// it has given up what it had.
func recalled(again func(ctx context.Context, time int) error) *Lease {
	l, times := NewLease(0), 0
	l.Grant = func(ctx context.Context, used, _ int) error {
		if used > 0 {
			return nil
		}
		times++ // one call at a time
		return again(ctx, times)
	}
	return l
}

func moreThanThePool(t *testing.T, s *suite) {
	s.load(t)
	for _, n := range []int{512, 1000} {
		l := NewLease(0)
		_, err := s.Generate(t.Context(), complete("too long for now", Words(n), 1, l))
		var pool *infer.PoolError
		require.ErrorAs(t, err, &pool)
		require.Equal(t, infer.PoolError{Need: n + 1, Have: 512}, *pool)
		require.NotEmpty(t, pool.Hint())
		require.Empty(t, l.Calls())
	}
	_, err := s.Reshape(t.Context(), infer.Shape{Sequences: 4, Cells: 1024})
	require.NoError(t, err)
	out, err := s.Generate(t.Context(), complete("and then it fits", Words(1000), 1, NewLease(0)))
	require.NoError(t, err)
	require.Equal(t, 1000, out.PromptTokens)
}

// reshape changes the pool under jobs that run, up and down: they must have the
// text that they have without.
func reshape(t *testing.T, s *suite) {
	s.exact(t)
	prompts := []string{"the quick brown fox", "one two three", Words(60)}
	want := make([]string, len(prompts))
	for i, p := range prompts {
		out, err := s.Generate(t.Context(), complete("alone", p, 100, NewLease(0)))
		require.NoError(t, err)
		want[i] = out.Text()
	}
	for _, cells := range []int{1024, 768, 1024, 512} {
		var jobs errgroup.Group
		started := make(chan struct{}, len(prompts))
		for i, p := range prompts {
			l := NewLease(0)
			l.Grant = func(_ context.Context, used, _ int) error {
				if used == 0 {
					started <- struct{}{}
				}
				return nil
			}
			jobs.Go(func() error {
				out, err := s.Generate(t.Context(), complete(fmt.Sprint(i), p, 100, l))
				if err == nil && out.Text() != want[i] {
					err = fmt.Errorf("in %d cells: got %q, want %q", cells, out.Text(), want[i])
				}
				return err
			})
		}
		<-started
		for range 3 { // some are in the pool by now, some not yet, some have ended
			f, err := s.Reshape(t.Context(), infer.Shape{Sequences: 3, Cells: cells})
			require.NoError(t, err)
			require.Positive(t, int64(f.KVCache))
		}
		require.NoError(t, jobs.Wait())
	}
	small, err := s.Reshape(t.Context(), infer.Shape{Sequences: 1, Cells: 256})
	require.NoError(t, err)
	dry, err := s.Reshape(t.Context(), infer.Shape{Sequences: 1, Cells: 1024})
	require.NoError(t, err)
	require.InEpsilon(t, 4*float64(small.KVCache), float64(dry.KVCache), 0.2)
	require.NoError(t, s.check(t.Context(), "then", 400, 20))
}

// reshapeRefused asks for less than two running jobs have: nothing may change. The
// jobs stay until they are cancelled, for they get no more tokens than at first.
func reshapeRefused(t *testing.T, s *suite) {
	s.load(t)
	ctx, stop := context.WithCancel(t.Context())
	var jobs errgroup.Group
	for range 2 {
		l := NewLease(0)
		l.Grant = func(ctx context.Context, used, _ int) error {
			if used == 0 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		jobs.Go(func() error {
			for { // engines that never ask for more come to their end
				if _, err := s.Generate(ctx, complete("runs", Words(100), 300, l)); err != nil {
					return err
				}
			}
		})
	}
	for _, c := range []struct{ wanted, back infer.Shape }{
		{infer.Shape{Sequences: 1, Cells: 512}, shape()},
		{infer.Shape{Sequences: 4, Cells: 256}, shape()},
		{infer.Shape{}, shape()},
	} {
		var busy *infer.BusyError
		require.Eventually(t, func() bool {
			_, err := s.Reshape(t.Context(), c.wanted)
			if err != nil {
				return errors.As(err, &busy)
			}
			_, err = s.Reshape(t.Context(), c.back)
			return err != nil
		}, prompt, time.Millisecond)
		require.NotNil(t, busy)
		require.Equal(t, c.wanted, busy.Shape)
		require.Positive(t, busy.Jobs)
		require.NotEmpty(t, busy.Error())
	}
	stop()
	require.ErrorIs(t, jobs.Wait(), context.Canceled)
	_, err := s.Reshape(t.Context(), infer.Shape{Sequences: 1, Cells: 256})
	require.NoError(t, err, "they have left")
	_, err = s.Reshape(t.Context(), shape())
	require.NoError(t, err)
	require.NoError(t, s.check(t.Context(), "whole pool", 511, 1))
}

func reshapeAnyTime(t *testing.T, s *suite) {
	_, err := s.Reshape(t.Context(), shape())
	require.Error(t, err, "before Open")
	_, err = s.Open(t.Context(), s.spec)
	require.NoError(t, err)
	f, err := s.Reshape(t.Context(), shape())
	require.NoError(t, err, "instead of Load")
	require.Positive(t, int64(f.KVCache))
	require.NoError(t, s.check(t.Context(), "1", 10, 10))
	var both errgroup.Group
	for i := range 4 {
		both.Go(func() error {
			_, err := s.Reshape(t.Context(), infer.Shape{Sequences: 4, Cells: 512 + 256*i})
			return err
		})
		both.Go(func() error { return s.check(t.Context(), fmt.Sprint(i), 100, 10) })
	}
	require.NoError(t, both.Wait())
	require.NoError(t, s.Close())
	_, err = s.Reshape(t.Context(), shape())
	require.Error(t, err, "after Close")
}

// unload has jobs wait until the model is there again, or until they are cancelled.
func unload(t *testing.T, s *suite) {
	s.load(t)
	require.NoError(t, s.check(t.Context(), "before", 10, 10))
	for range 2 {
		for range 2 { // again changes nothing
			f, err := s.Reshape(t.Context(), infer.Shape{})
			require.NoError(t, err)
			require.Zero(t, f.Total())
		}
		ctx, stop := context.WithCancel(t.Context())
		doomed := s.begin(ctx, complete("cancelled", Words(10), 10, NewLease(0)))
		l := NewLease(0)
		waits := s.begin(t.Context(), complete("waits", Words(10), 10, l))
		stop()
		require.ErrorIs(t, (<-doomed).err, context.Canceled)
		require.Empty(t, waits)
		require.Empty(t, l.Calls())
		f, err := s.Reshape(t.Context(), shape())
		require.NoError(t, err)
		require.Positive(t, int64(f.KVCache))
		end := <-waits
		require.NoError(t, end.err)
		require.Equal(t, 10, end.out.PromptTokens)
	}
	_, err := s.Reshape(t.Context(), infer.Shape{})
	require.NoError(t, err)
	waits := s.begin(t.Context(), complete("until the end", Words(10), 10, NewLease(0)))
	require.NoError(t, s.Close())
	require.Error(t, (<-waits).err)
}

// reclaim takes a job's memory back again and again; the text must be the same.
func reclaim(t *testing.T, s *suite) {
	s.exact(t)
	const text, most = "the quick brown fox jumps over the lazy dog", 200
	alone, err := s.Generate(t.Context(), complete("alone", text, most, NewLease(0)))
	require.NoError(t, err)
	back := make(chan struct{}, 1)
	var l *Lease
	l = recalled(func(_ context.Context, time int) error {
		if time == 1 {
			l.TakeBack() // at the latest when the job has what it asks for now
		} else {
			back <- struct{}{}
		}
		return nil
	})
	end := s.begin(t.Context(), complete("disturbed", text, most, l))
	for range 10 {
		select {
		case <-back:
			l.TakeBack()
		case e := <-end:
			require.NoError(t, e.err)
			require.Equal(t, alone.Text(), e.out.Text())
			require.Equal(t, alone.CompletionTokens, e.out.CompletionTokens)
			require.Greater(t, len(l.Calls()), 1, "it was told, and has not answered")
			return
		case <-time.After(prompt):
			require.FailNow(t, "a job keeps what is wanted back")
		}
	}
	go func() { // the last one may be answered or not
		for range back {
		}
	}()
	defer close(back)
	e := <-end
	require.NoError(t, e.err)
	require.Equal(t, alone.Text(), e.out.Text())
	require.Equal(t, alone.CompletionTokens, e.out.CompletionTokens)
}

// reclaimFrees has the whole pool used by others while a job is out of it.
func reclaimFrees(t *testing.T, s *suite) {
	s.load(t)
	began, out, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l := recalled(func(_ context.Context, time int) error {
		switch time {
		case 1:
			close(began)
		case 2:
			close(out)
			<-goOn
		}
		return nil
	})
	end := s.begin(t.Context(), complete("out", Words(300), 200, l))
	<-began
	l.TakeBack()
	select {
	case <-out:
	case e := <-end: // it was quicker
		require.NoError(t, e.err)
		return
	}
	require.NoError(t, s.check(t.Context(), "whole pool", 511, 1))
	require.Empty(t, end)
	close(goOn)
	require.NoError(t, (<-end).err)
}

// reclaimRefused ends a job that is out of the pool, by an error and by a cancel.
func reclaimRefused(t *testing.T, s *suite) {
	s.load(t)
	refused := errors.New("it is gone for good")
	for _, want := range []error{refused, context.Canceled} {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var l *Lease
		l = recalled(func(ctx context.Context, time int) error {
			if time == 1 {
				l.TakeBack()
				return nil
			}
			if want == refused { //nolint:errorlint // the very one
				return refused
			}
			stop()
			<-ctx.Done()
			return ctx.Err()
		})
		_, err := s.Generate(ctx, complete("out", Words(200), 200, l))
		require.ErrorIs(t, err, want)
		require.NoError(t, s.check(t.Context(), "whole pool", 511, 1))
	}
}
