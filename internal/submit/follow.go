package submit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/queue"
)

// follower writes results as they come and counts them. It belongs to one
// goroutine.
type follower struct {
	batch *Batch
	out   *output
	began bool // the files are emptied

	started           time.Time // of this run
	first, last       time.Time // of results that are not resumed
	succeeded, failed int
	narrowed          int // of succeeded: sets were cut for want of memory
	ofCache           int // of narrowed: on a worker that held less than half of its limit
	badLines, resumed int
	saidFailed        int // jobs that failed in this run
	earlier           int // results that were there when this run began; they are read first
	read              int // results, also those of others
	tokens            int // generated, of results that are not resumed
	embedded          int // read for embeddings, of the same
	workers           map[string]bool
	expires           int64 // when the batch's time is over, Unix seconds; 0 = never
	total             int   // jobs that were sent
	awaited           lines // of the jobs that were sent and have no result yet
	any               bool  // results of all jobs of the batch are awaited, whoever sent them
}

func newFollower(b *Batch, out *output) *follower {
	return &follower{batch: b, out: out, started: time.Now(), workers: map[string]bool{}}
}

const (
	flushEvery  = time.Second
	statusEvery = 250 * time.Millisecond
	logEvery    = 5 * time.Second
)

// sayRefused is how many refused lines, and how many failed jobs, are said in the log, too; all
// of them are written.
const sayRefused = 3

// refuse writes the error of a line that was not sent.
func (f *follower) refuse(r api.Result) error {
	f.failed++
	f.badLines++
	if r.Error != nil {
		f.warn(f.badLines, "a line is refused", r.Error.Message)
	}
	return f.write(r)
}

// warn says the n-th of many faults of a kind, if it is one of the first.
func (f *follower) warn(n int, what, reason string) {
	switch {
	case n <= sayRefused:
		f.batch.log.Warn(what, zap.String("reason", reason))
	case n == sayRefused+1:
		f.batch.log.Warn(what + ", and more like it: " + f.batch.opts.failures() + " all of them with the reason")
	}
}

// expect says that the job of a line was sent.
func (f *follower) expect(line int) {
	f.total++
	f.awaited.add(line)
}

func (f *follower) write(r api.Result) error {
	if !f.began {
		f.began = true
		if err := f.out.begin(); err != nil {
			return err
		}
	}
	return f.out.write(r)
}

// follow writes results until each job that was sent has its own.
func (f *follower) follow(ctx context.Context, client *queue.Client) error {
	if !f.began { // also if there is none, what an earlier run wrote goes
		f.began = true
		if err := f.out.begin(); err != nil {
			return err
		}
	}
	if f.total == 0 {
		return nil
	}
	results := make(chan api.Result)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- client.Results(ctx, f.batch.ID, func(r api.Result) error {
			select {
			case results <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	flush, status, log := time.NewTicker(flushEvery), time.NewTicker(statusEvery), time.NewTicker(logEvery)
	defer flush.Stop()
	defer status.Stop()
	defer log.Stop()
	defer f.show("")
	var over <-chan time.Time
	if f.expires > 0 {
		timer := time.NewTimer(time.Until(time.Unix(f.expires, 0)))
		defer timer.Stop()
		over = timer.C
	}
	for f.done() < f.total {
		select {
		case <-over: // workers see to it too, if there are any
			if _, err := client.Expire(ctx, f.batch.ID); err != nil {
				return err
			}
		case r := <-results:
			if err := f.take(r); err != nil {
				return err
			}
		case <-flush.C:
			if err := f.out.writer.Flush(); err != nil {
				return err
			}
		case <-status.C:
			f.show(f.line(time.Now()))
		case <-log.C:
			f.logProgress()
		case err := <-ended:
			return f.interrupted(err)
		}
	}
	return nil
}

// interrupted explains that the batch goes on without its reader.
func (f *follower) interrupted(err error) error {
	return &InterruptedError{Batch: f.batch.ID, Done: f.done(), Total: f.total, New: f.batch.opts.New, Err: err}
}

// take counts and writes a result, if it is of a job that was sent: one who sends
// the same batch at the same time may have sent others.
func (f *follower) take(r api.Result) error {
	f.read++
	if !f.any && !f.awaited.remove(lineOf(f.batch.ID, r)) {
		return nil
	}
	now := time.Now()
	var body struct {
		Object string          `json:"object"`
		Usage  api.Usage       `json:"usage"`
		Error  api.ErrorDetail `json:"error"`
	}
	if r.Response != nil {
		_ = json.Unmarshal(r.Response.Body, &body) // a body without usage counts no tokens
	}
	if r.OK() {
		f.succeeded++
		if t := r.Tempo; t != nil && t.Parallel != nil && t.Parallel.CutByMemory > 0 {
			f.narrowed++
			if m := t.Memory; m != nil && m.Total() < m.Limit/2 {
				f.ofCache++
			}
		}
	} else {
		f.fail(&r, body.Error.Message)
	}
	if f.read <= f.earlier {
		f.resumed++
	} else {
		f.tokens += body.Usage.CompletionTokens
		if body.Object == api.ObjectList {
			f.embedded += body.Usage.PromptTokens
		}
		if f.first.IsZero() {
			f.first = now
			if r.Tempo != nil && r.Tempo.Timing != nil { // its start, not its end
				f.first = now.Add(-time.Duration((r.Tempo.PrefillSeconds + r.Tempo.DecodeSeconds) * float64(time.Second)))
			}
		}
		f.last = now
	}
	if r.Tempo != nil && r.Tempo.Worker != "" {
		f.workers[r.Tempo.Worker] = true
	}
	return f.write(r)
}

// fail counts a job that was sent and failed, and says where it stands.
func (f *follower) fail(r *api.Result, reason string) {
	f.failed++
	if r.Error != nil {
		reason = r.Error.Message
	}
	if r.Tempo != nil && r.Tempo.Line > 0 {
		r.Tempo.File = f.batch.in.name
		reason = fmt.Sprintf("%s:%d: %s", r.Tempo.File, r.Tempo.Line, reason)
	}
	if f.read > f.earlier { // else it was said then
		f.saidFailed++
		f.warn(f.saidFailed, "a job has failed", reason)
	}
}

// rate is how many tokens that is in a second.
func (f *follower) rate(tokens int) float64 {
	if seconds := f.last.Sub(f.first).Seconds(); seconds > 0 {
		return float64(tokens) / seconds
	}
	return 0
}

// done counts the results of jobs that were sent.
func (f *follower) done() int { return f.succeeded + f.failed - f.badLines }

// line is the status at a moment. The tokens of a job are known when it is done: until then the
// seconds show that time goes by.
func (f *follower) line(now time.Time) string {
	text := fmt.Sprintf("%d of %d done, %d failed", f.done(), f.total, f.failed)
	if tokens := f.tokens + f.embedded; tokens > 0 {
		text += fmt.Sprintf(", %.0f tokens/s", f.rate(tokens))
	}
	return fmt.Sprintf("%s, %v", text, now.Sub(f.started).Truncate(time.Second))
}

func (f *follower) show(line string) {
	if f.batch.opts.Status != nil && !f.batch.opts.Quiet {
		f.batch.opts.Status(line)
	}
}

// logProgress says how far it is where nobody looks at a status line.
func (f *follower) logProgress() {
	if f.batch.opts.Status == nil && !f.batch.opts.Quiet {
		f.batch.log.Info("progress", zap.Int("done", f.done()), zap.Int("total", f.total),
			zap.Int("failed", f.failed), zap.Float64("tokens_per_second", f.rate(f.tokens+f.embedded)))
	}
}

func (f *follower) summary() *Summary {
	s := &Summary{
		Batch: f.batch.ID, Succeeded: f.succeeded, Failed: f.failed, BadLines: f.badLines, Resumed: f.resumed, Narrowed: f.narrowed, OfCache: f.ofCache,
		Tokens: f.tokens, Embedded: f.embedded, Seconds: time.Since(f.started).Seconds(), TokensPerSecond: f.rate(f.tokens),
		Output: f.batch.opts.Output, Errors: f.batch.opts.Errors,
	}
	for w := range f.workers {
		s.Workers = append(s.Workers, w)
	}
	slices.Sort(s.Workers)
	return s
}

// InterruptedError says that the results were no longer waited for.
type InterruptedError struct {
	Batch       string
	Done, Total int
	New         bool // it was sent with --new
	Err         error
}

func (e *InterruptedError) Error() string {
	text := fmt.Sprintf("stopped waiting for batch %s: %d of %d results are there", e.Batch, e.Done, e.Total)
	if errors.Is(e.Err, context.Canceled) {
		return text // it was the user who stopped it
	}
	return fmt.Sprintf("%s: %v", text, e.Err)
}

func (e *InterruptedError) Unwrap() error { return e.Err }

// Hint says how to go on, behind what mends the cause.
func (e *InterruptedError) Hint() string {
	again := "nothing is lost: run the same command again, it goes on where this one stopped"
	if e.New {
		again = "what is queued goes on, but --new would make yet another batch of it: leave --new out where a run may be interrupted"
	}
	var cause interface{ Hint() string }
	if errors.As(e.Err, &cause) && cause.Hint() != "" {
		return cause.Hint() + "; " + again
	}
	return again
}
