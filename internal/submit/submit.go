package submit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/queue"
)

// Options say what to send and where the results go.
type Options struct {
	File   string    // input file; "-" = Stdin; "" = Prompt
	Prompt string    // one prompt instead of a file
	Stdin  io.Reader // for File "-"
	Stdout io.Writer // for Output "-"
	Output string    // file of the results; "-" = Stdout
	Errors string    // file of the failures; "" = with the results
	Lines  batchfile.Options
	// Priority of the batch; "" = normal.
	Priority api.Priority
	// New makes another batch of a file that was sent before.
	New bool
	// Status shows a status line to a person, "" = none; nil = nobody looks, then
	// progress is logged.
	Status func(string)
	Quiet  bool // neither
}

// Batch is an input that was read and found good enough to send.
type Batch struct {
	ID string

	opts    Options
	log     *zap.Logger
	in      *input
	content content
}

// Summary is how a batch went.
type Summary struct {
	Batch     string
	Succeeded int
	Failed    int // answered with an error, or refused
	BadLines  int // of Failed: never sent
	Resumed   int // results that were there before
	Tokens    int // generated now, without resumed results
	Seconds   float64
	// TokensPerSecond is over the time from the first job's start to the last
	// result; resumed results do not count.
	TokensPerSecond float64
	Output, Errors  string   // where the results are
	Workers         []string // that answered
}

// Read checks the input. It must be closed. It returns *batchfile.EmptyFileError
// if there is no line in it; bad lines are no error, they end in the error file.
// If ctx is done while it waits for somebody to write, it returns ctx's error.
func Read(ctx context.Context, opts Options, log *zap.Logger) (*Batch, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if opts.Priority == "" {
		opts.Priority = api.Normal
	}
	in := &input{name: "--prompt", prompt: opts.Prompt, opts: opts.Lines}
	if opts.File != "" {
		var err error
		if in, err = openInput(ctx, opts.File, opts.Stdin, opts.Lines); err != nil {
			return nil, err
		}
	}
	c, err := in.scan()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	b := &Batch{ID: "batch_" + c.digest[:24], opts: opts, log: log.Named("submit"), in: in, content: c}
	if opts.New {
		b.ID += "-" + strings.ToLower(rand.Text()[:8])
	}
	return b, nil
}

// Close removes temporary files.
func (b *Batch) Close() error { return b.in.Close() }

// Models are the models that the lines name.
func (b *Batch) Models() []string { return b.content.models }

// Run queues the batch, writes its results as they come, and returns when the
// last one is there. If ctx is done before, what is queued goes on; the same
// batch can be run again.
//
// route is the model that answers all jobs, whatever they name; "" = as they say.
func (b *Batch) Run(ctx context.Context, client *queue.Client, route string) (*Summary, error) {
	out, err := openOutput(b.opts)
	if err != nil {
		return nil, err
	}
	f := newFollower(b, out)
	err = b.run(ctx, client, route, f)
	return f.summary(), errors.Join(err, out.close())
}

func (b *Batch) run(ctx context.Context, client *queue.Client, route string, f *follower) error {
	served, err := b.served(ctx, client, route)
	if err != nil {
		return err
	}
	if err := b.create(ctx, client, route); err != nil {
		return err
	}
	if f.earlier, err = client.CountResults(ctx, b.ID); err != nil {
		return err
	}
	published, err := b.publish(ctx, client, route, served, f)
	if err != nil {
		return err
	}
	total := published.New + published.Known
	if published.Known > 0 {
		b.log.Info("the batch was sent before and goes on; --new sends it again",
			zap.String("batch", b.ID), zap.Int("known", published.Known), zap.Int("new", published.New))
	}
	b.log.Info("all jobs are queued", zap.String("batch", b.ID), zap.Int("jobs", total), zap.Int("refused", f.failed))
	if _, err := client.UpdateBatch(ctx, b.ID, func(o *api.Batch) error {
		o.Status, o.Tempo.Sealed, o.RequestCounts.Total = api.InProgress, true, total
		return nil
	}); err != nil {
		return err
	}
	if err := f.follow(ctx, client, total); err != nil {
		return err
	}
	_, err = client.UpdateBatch(ctx, b.ID, func(o *api.Batch) error {
		o.Status, o.CompletedAt = api.Completed, time.Now().Unix()
		o.RequestCounts = api.RequestCounts{Total: total, Completed: f.succeeded, Failed: total - f.succeeded}
		return nil
	})
	return err
}

// served returns the models that workers serve, nil if no worker is there yet or
// route says who answers.
func (b *Batch) served(ctx context.Context, client *queue.Client, route string) ([]string, error) {
	if route != "" {
		return nil, nil
	}
	workers, err := client.Workers(ctx)
	if err != nil {
		return nil, err
	}
	var models []string
	for _, w := range workers {
		models = append(models, w.Models...)
	}
	slices.Sort(models)
	models = slices.Compact(models)
	if len(models) == 0 {
		b.log.Warn("no worker is there yet; the jobs wait in the queue", zap.Strings("models", b.content.models))
	}
	return models, nil
}

// create makes the batch object, or opens that of an earlier run again.
func (b *Batch) create(ctx context.Context, client *queue.Client, route string) error {
	models := b.content.models
	if route != "" {
		models = []string{route}
	}
	now := time.Now().Unix()
	_, existed, err := client.CreateBatch(ctx, api.Batch{
		ID: b.ID, Object: "batch", Endpoint: b.content.endpoint, InputFileID: b.in.name,
		Status: api.InProgress, CreatedAt: now, InProgressAt: now,
		Tempo: api.BatchTempo{Priority: b.opts.Priority, Models: models},
	})
	if err != nil || !existed {
		return err
	}
	_, err = client.UpdateBatch(ctx, b.ID, func(o *api.Batch) error {
		o.Status, o.Tempo.Sealed, o.Tempo.Models = api.InProgress, false, models
		return nil
	})
	return err
}

// publish queues the good lines; f gets an error for each of the others.
func (b *Batch) publish(ctx context.Context, client *queue.Client, route string, served []string, f *follower) (queue.Published, error) {
	var writeErr error
	jobs := func(yield func(api.Job, error) bool) {
		for line, err := range b.in.lines() {
			var bad *batchfile.LineError
			switch {
			case errors.As(err, &bad):
				writeErr = f.refuse(batchfile.ErrorLine(bad))
			case err != nil:
				writeErr = err
			case len(served) > 0 && !slices.Contains(served, line.Model):
				writeErr = f.refuse(b.unserved(line, served))
			default:
				if !yield(b.job(line, route), nil) {
					return
				}
			}
			if writeErr != nil {
				yield(api.Job{}, writeErr)
				return
			}
		}
	}
	published, err := client.PublishJobs(ctx, iter.Seq2[api.Job, error](jobs))
	if err != nil {
		return published, err
	}
	for _, r := range published.Refused {
		if err := f.refuse(b.errorLine(r.Job.CustomID, r.Job.Line, "request_too_large", r.Err.Error()+": "+r.Err.Hint())); err != nil {
			return published, err
		}
	}
	return published, nil
}

// job makes the job of a line.
func (b *Batch) job(line batchfile.Line, route string) api.Job {
	model := line.Model
	if route != "" {
		model = route
	}
	return api.Job{
		ID: fmt.Sprintf("%08d", line.Number), Batch: b.ID, CustomID: line.CustomID, Model: model,
		Priority: b.opts.Priority, URL: line.URL, Body: line.Body, Line: line.Number,
	}
}

func (b *Batch) unserved(line batchfile.Line, served []string) api.Result {
	return b.errorLine(line.CustomID, line.Number, "model_not_found", fmt.Sprintf(
		"%s:%d: body.model is %q, which no worker serves; served are: %s. Change the line, or start a worker with --model %s=PATH",
		b.in.name, line.Number, line.Model, strings.Join(served, ", "), line.Model))
}

func (b *Batch) errorLine(customID string, line int, code, message string) api.Result {
	return api.Result{
		ID: fmt.Sprintf("batch_req_%s-%08d", b.ID, line), CustomID: customID,
		Error: &api.Error{Code: code, Message: message},
		Tempo: &api.Tempo{File: b.in.name, Line: line},
	}
}
