package submit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
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
	// Render writes an answer for people, to Stdout where Output is "-". It returns false
	// if the answer is to be written as JSON. nil = all are.
	Render func(w io.Writer, r *api.Result) (bool, error)
	Lines  batchfile.Options
	// Priority of the batch; "" = normal.
	Priority api.Priority
	// Weight is the batch's share beside others of its priority, 1 to api.MaxWeight; 0 = the usual.
	Weight int
	// MaxInFlight bounds the jobs of the batch that all workers together have; 0 = no bound.
	MaxInFlight int
	// Deadline is when jobs that are not done end with an error, from now on; 0 = never.
	Deadline time.Duration
	// Route is the model that answers all lines, whatever they name; "" = as they say.
	Route string
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
	Narrowed  int // of Succeeded: answers with sets that only the worker's memory has cut
	// OfCache is how many of Narrowed had a KV cache that was smaller than the memory limit asks
	// for: the worker held less than half of that.
	OfCache  int
	Tokens   int // generated now, without resumed results
	Embedded int // tokens that were read for embeddings now
	Seconds  float64
	// TokensPerSecond is of Tokens, over the time from the first job's start to the last
	// result; resumed results do not count.
	TokensPerSecond float64
	Output, Errors  string   // where the results are
	Workers         []string // that answered
}

// Read checks the input. It must be closed. It returns *batchfile.EmptyFileError
// if there is no line in it; bad lines are no error, they end in the error file. A bad prompt is
// a *batchfile.LineError.
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
	c, err := in.scan(opts.Route)
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

// Len is the number of jobs.
func (b *Batch) Len() int { return b.content.good }

// Models are the models that the lines name.
func (b *Batch) Models() []string { return b.content.models }

// Run queues the batch, writes its results as they come, and returns when the
// last one is there. If ctx is done before, what is queued goes on; the same
// batch can be run again. It returns a *[ChangedError] if the file is no longer
// what Read has checked.
func (b *Batch) Run(ctx context.Context, client *queue.Client) (*Summary, error) {
	out, err := openOutput(b.opts)
	if err != nil {
		return nil, err
	}
	f := newFollower(b, out)
	err = b.run(ctx, client, f)
	return f.summary(), errors.Join(err, out.close())
}

func (b *Batch) run(ctx context.Context, client *queue.Client, f *follower) error {
	if err := b.queue(ctx, client, f); err != nil {
		return err
	}
	if err := f.follow(ctx, client); err != nil {
		return err
	}
	b.complete(ctx, client)
	return nil
}

// Send queues the batch and returns; only the errors of lines that cannot be sent are written.
// [Wait] has its results. Otherwise it is as Run.
func (b *Batch) Send(ctx context.Context, client *queue.Client) (*Summary, error) {
	out, err := openOutput(b.opts)
	if err != nil {
		return nil, err
	}
	f := newFollower(b, out)
	err = b.queue(ctx, client, f)
	return f.summary(), errors.Join(err, out.close())
}

// queue queues the batch, and has f expect its results.
func (b *Batch) queue(ctx context.Context, client *queue.Client, f *follower) error {
	served, err := b.served(ctx, client)
	if err != nil {
		return err
	}
	if err := b.create(ctx, client); err != nil {
		return err
	}
	if f.earlier, err = client.CountResults(ctx, b.ID); err != nil {
		return err
	}
	published, err := b.publish(ctx, client, served, f)
	if ended, ok := errors.AsType[*queue.EndedError](err); ok { // what was sent until then ends alike
		return errors.Join(err, client.EndAgain(ctx, api.Batch{ID: b.ID, Status: ended.Status}))
	}
	if err != nil {
		return err
	}
	if published.Known > 0 {
		b.log.Info("the batch was sent before and goes on; --new sends it again",
			zap.String("batch", b.ID), zap.Int("known", published.Known), zap.Int("new", published.New))
	}
	b.log.Info("all jobs are queued", zap.String("batch", b.ID), zap.Int("jobs", f.total), zap.Int("refused", f.failed))
	object, err := client.UpdateBatch(ctx, b.ID, func(o *api.Batch) error {
		if o.RequestCounts.Total = f.total; o.Status.Runs() || o.Status == api.Completed {
			o.Status, o.InProgressAt = api.InProgress, time.Now().Unix()
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.expires = object.ExpiresAt
	if !object.Status.Runs() { // it was ended while it was sent: so is what came after that
		if err := client.EndAgain(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

// served returns the models that workers serve, nil if no worker is there yet or
// the route says who answers.
func (b *Batch) served(ctx context.Context, client *queue.Client) ([]string, error) {
	if b.opts.Route != "" {
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
		return nil, nil
	}
	for _, m := range b.content.models {
		if !slices.Contains(models, m) {
			b.log.Warn("no worker serves this model: its lines are refused, but those of an earlier run wait for one",
				zap.String("model", m), zap.Strings("served", models))
		}
	}
	return models, nil
}

// create makes the batch object, or opens that of an earlier run again.
func (b *Batch) create(ctx context.Context, client *queue.Client) error {
	models := b.content.models
	if b.opts.Route != "" {
		models = []string{b.opts.Route}
	}
	_, existed, err := client.CreateBatch(ctx, api.Batch{
		ID: b.ID, Object: "batch", Endpoint: b.content.endpoint, InputFileID: b.in.name,
		Status: api.Validating, CreatedAt: time.Now().Unix(),
		ExpiresAt: expiry(b.opts.Deadline),
		Tempo: api.BatchTempo{
			Priority: b.opts.Priority, Models: models, // the id follows from the models too
			Weight: b.opts.Weight, MaxInFlight: b.opts.MaxInFlight,
		},
	})
	if err != nil || !existed {
		return err
	}
	_, err = client.UpdateBatch(ctx, b.ID, func(o *api.Batch) error {
		if o.Status == api.Completed {
			o.ExpiresAt = expiry(b.opts.Deadline)
		}
		if o.Status.Runs() || o.Status == api.Completed {
			o.Status = api.Validating
			o.Tempo.Weight, o.Tempo.MaxInFlight = b.opts.Weight, b.opts.MaxInFlight
		}
		return nil
	})
	return err
}

// expiry is a time from now on in Unix seconds, 0 for 0.
func expiry(deadline time.Duration) int64 {
	if deadline == 0 {
		return 0
	}
	return time.Now().Add(deadline).Unix()
}

// completeLimit bounds what is done for the batch object when all is done for the user.
const completeLimit = 10 * time.Second

// complete notes how it went. The results are written by now: neither the user who
// stops the command nor a queue that is away makes a failure of that.
func (b *Batch) complete(ctx context.Context, client *queue.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeLimit)
	defer cancel()
	if _, err := client.CompleteBatch(ctx, b.ID); err != nil {
		b.log.Warn("all results are written, but the queue does not know that the batch is completed",
			zap.String("batch", b.ID), zap.Error(err))
	}
}

// publish queues the good lines; f gets an error for each of the others.
func (b *Batch) publish(ctx context.Context, client *queue.Client, served []string, f *follower) (queue.Published, error) {
	p := client.NewPublisher()
	sum, n := newDigest(b.opts.Route), 0
	for line, err := range b.in.lines() {
		var bad *batchfile.LineError
		switch {
		case errors.As(err, &bad):
			err = f.refuse(b.errorLine(bad.CustomID, bad.Line, bad.Code, bad.Error()))
		case err != nil:
		case n == len(b.content.marks) || sum.add(line) != b.content.marks[n]:
			err = &ChangedError{File: b.in.name, Line: line.Number}
		default:
			n++
			err = b.send(ctx, p, line, served, f)
		}
		if err != nil {
			return queue.Published{}, err
		}
	}
	if n < len(b.content.marks) {
		return queue.Published{}, &ChangedError{File: b.in.name}
	}
	return p.Flush(ctx)
}

// send hands a good line to the publisher. Its job may be refused, unless an
// earlier run has sent it.
func (b *Batch) send(ctx context.Context, p *queue.Publisher, line batchfile.Line, served []string, f *follower) error {
	job := b.job(line)
	if len(served) > 0 && !slices.Contains(served, line.Model) {
		known, err := p.Known(ctx, job)
		if err != nil {
			return err
		}
		if !known {
			return f.refuse(b.unserved(line, served))
		}
	}
	err := p.Add(ctx, job)
	if large, ok := errors.AsType[*queue.TooLargeError](err); ok {
		return f.refuse(b.errorLine(job.CustomID, job.Line, "request_too_large", large.Error()+": "+large.Hint()))
	}
	if err != nil {
		return err
	}
	f.expect(line.Number)
	return nil
}

// job makes the job of a line.
func (b *Batch) job(line batchfile.Line) api.Job {
	return api.Job{
		ID: jobID(line.Number), Batch: b.ID, CustomID: line.CustomID, Model: cmp.Or(b.opts.Route, line.Model),
		Priority: b.opts.Priority, URL: line.URL, Body: line.Body, Line: line.Number,
	}
}

func (b *Batch) unserved(line batchfile.Line, served []string) api.Result {
	return b.errorLine(line.CustomID, line.Number, "model_not_found", fmt.Sprintf(
		"%s:%d: body.model is %q, which no worker serves; served are: %s. Change the line, or start a worker with --model %s=PATH",
		b.in.name, line.Number, line.Model, strings.Join(served, ", "), line.Model))
}

// errorLine is the line of the error file for a line of the input that is not sent.
func (b *Batch) errorLine(customID string, line int, code, message string) api.Result {
	return api.Result{
		ID: api.ResultID(b.ID, jobID(line)), CustomID: customID,
		Error: &api.Error{Code: code, Message: message},
		Tempo: &api.Tempo{File: b.in.name, Line: line},
	}
}
