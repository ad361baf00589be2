package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tempo/internal/infer"
	"tempo/internal/infer/local"
)

// direct is the engine in this process.
type direct struct{ engine *local.Engine }

func startDirect(ctx context.Context, spec infer.Spec, shape infer.Shape) (*direct, error) {
	d := &direct{engine: local.New(nil)}
	if _, err := d.engine.Open(ctx, spec); err != nil {
		return nil, errors.Join(err, d.engine.Close())
	}
	if _, err := d.engine.Load(ctx, shape); err != nil {
		return nil, errors.Join(err, d.engine.Close())
	}
	return d, nil
}

func (d *direct) close() error { return d.engine.Close() }

// run gives the engine all jobs at once.
func (d *direct) run(ctx context.Context, jobs []job) (t tally, err error) {
	var prompt, generated atomic.Int64
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, j := range jobs {
		group.Go(func() error {
			out, err := d.engine.Generate(ctx, infer.Request{ID: fmt.Sprint(i), Seed: uint32(i), Job: j.request(), Lease: &plenty{}})
			if err != nil {
				return err
			}
			prompt.Add(int64(out.PromptTokens))
			generated.Add(int64(out.CompletionTokens))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return t, err
	}
	return tally{int(prompt.Load()), int(generated.Load()), time.Since(started)}, nil
}

// plenty is a lease that is always granted.
type plenty struct{ tokens atomic.Int64 }

func (p *plenty) Tokens() int { return int(p.tokens.Load()) }

func (p *plenty) Reclaim() <-chan struct{} { return nil }

func (p *plenty) Resize(_ context.Context, _, n int) error {
	p.tokens.Store(int64(n))
	return nil
}
