package submit

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/queue"
)

// Wait writes the results of a batch that somebody has sent, and returns when the last one is
// there. With now it writes those that are there. Of opts the outputs and what is shown count.
// The error is queue.ErrNoBatch, wrapped, if there is no such batch.
func Wait(ctx context.Context, client *queue.Client, id string, now bool, opts Options, log *zap.Logger) (*Summary, error) {
	if log == nil {
		log = zap.NewNop()
	}
	object, err := client.Batch(ctx, id)
	if err != nil {
		return nil, err
	}
	out, err := openOutput(opts)
	if err != nil {
		return nil, err
	}
	b := &Batch{ID: id, opts: opts, log: log.Named("submit"), in: &input{name: object.InputFileID}}
	f := newFollower(b, out)
	f.any = true
	err = b.wait(ctx, client, f, now)
	return f.summary(), errors.Join(err, out.close())
}

func (b *Batch) wait(ctx context.Context, client *queue.Client, f *follower, now bool) (err error) {
	if f.earlier, err = client.CountResults(ctx, b.ID); err != nil {
		return err
	}
	if now {
		f.total = f.earlier
		return f.follow(ctx, client)
	}
	object, err := b.sent(ctx, client)
	if err != nil {
		return err
	}
	if f.total, f.expires = object.RequestCounts.Total, object.ExpiresAt; object.Status.Ended() {
		// No more will come: some may have expired, or were never sent.
		if f.total, err = client.CountResults(ctx, b.ID); err != nil {
			return err
		}
		return f.follow(ctx, client)
	}
	if err := f.follow(ctx, client); err != nil {
		return err
	}
	b.complete(ctx, client)
	return nil
}

// sent waits until all jobs of a batch are queued, and returns it.
func (b *Batch) sent(ctx context.Context, client *queue.Client) (api.Batch, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := false; ; said = true {
		object, err := client.Batch(ctx, b.ID)
		if err != nil || object.Status != api.Validating {
			return object, err
		}
		if !said {
			b.log.Info("the batch is not sent whole yet; if its submit was stopped, send the file again", zap.String("batch", b.ID), zap.String("file", object.InputFileID))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return object, ctx.Err()
		}
	}
}
