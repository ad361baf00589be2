package memtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/budget"
	"tempo/internal/submit"
)

const (
	// mostJobs bounds the batch: on a device that answers more in the time, the pool
	// has been full long before.
	mostJobs = 2000
	// turns is how many jobs there are for each place in a step.
	turns = 12
	// shortTokens is the prompt, and the output, of jobs that are soon answered.
	shortTokens = 16
	// sizes is how many sizes of jobs there are.
	sizes = 5
)

// generate has the worker answer a batch for some time, as submit run --local does,
// and then ends the worker.
func (t *test) generate(ctx context.Context) Outcome {
	g := &t.result.Generation
	batch, err := t.batch(ctx)
	if err != nil {
		return failure(err)
	}
	defer batch.Close()
	g.Jobs = batch.Len()
	t.sampler.begin()
	started := time.Now()
	summary, err := t.work(ctx, batch)
	g.Seconds = time.Since(started).Seconds()
	g.Peak, _ = t.sampler.phase()
	s := t.node.Worker.Stats()
	g.Tokens, g.Pool = s.Tokens, max(g.Pool, budget.Bytes(s.KVCache))
	err = errors.Join(err, t.node.Close())
	t.node = nil
	if err != nil {
		return failure(err)
	}
	g.Answered = summary.Succeeded
	switch {
	case summary.Failed > 0:
		return Outcome{Status: Failed, Problem: fmt.Sprintf("%d jobs failed, the first with: %s", summary.Failed, t.firstError())}
	case g.Tokens == 0:
		return Outcome{Status: Failed, Problem: fmt.Sprintf("no job was answered in %.0f s", t.opts.Seconds), Hint: "give it more time with --seconds"}
	}
	return Outcome{Status: OK}
}

// errTime ends the reading of results when there were enough.
var errTime = errors.New("the time of the test is over")

// work runs worker and batch beside each other until the batch is done or the time
// is over, and looks at the worker meanwhile.
func (t *test) work(ctx context.Context, batch *submit.Batch) (*submit.Summary, error) {
	working, stop := context.WithCancel(ctx)
	defer stop()
	reading, enough := context.WithTimeoutCause(ctx, time.Duration(t.opts.Seconds*float64(time.Second)), errTime)
	defer enough()
	reading, failed := context.WithCancelCause(reading)
	defer failed(nil)
	worker := make(chan error, 1)
	go func() {
		err := t.node.Worker.Run(working)
		failed(errors.Join(errors.New("the worker ended"), err))
		worker <- err
	}()
	looking, seen := context.WithCancel(ctx)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		t.look(looking)
	}()
	summary, err := batch.Run(reading, t.client)
	t.result.Generation.GaveWay = int(t.node.Worker.Stats().GaveWay) // before the end: its drain does not count
	seen()
	<-looked
	stop()
	workErr := <-worker
	if summary != nil && errors.Is(context.Cause(reading), errTime) {
		err = nil
	}
	return summary, errors.Join(err, workErr)
}

// look notes the most that was reserved, and how many ran and waited.
func (t *test) look(ctx context.Context) {
	g := &t.result.Generation
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s := t.node.Worker.Stats()
		g.PeakReserved = max(g.PeakReserved, budget.Bytes(s.Reserved))
		g.Pool = max(g.Pool, budget.Bytes(s.KVCache))
		g.PeakRunning, g.PeakWaiting = max(g.PeakRunning, s.Running), max(g.PeakWaiting, s.Waiting)
		if limit := budget.Bytes(s.Limit); g.LowestLimit == 0 || limit < g.LowestLimit {
			g.LowestLimit = limit
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// batch writes and reads the batch file.
func (t *test) batch(ctx context.Context) (*submit.Batch, error) {
	s := t.node.Worker.Stats()
	path := filepath.Join(t.dir, "prompts.jsonl")
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("write the prompts: %w", err)
	}
	w := bufio.NewWriter(f)
	err = writeJobs(w, s.MaxParallelTokens, s.MaxCacheTokens, t.longest)
	if err = errors.Join(err, w.Flush(), f.Close()); err != nil {
		return nil, fmt.Errorf("write the prompts: %w", err)
	}
	return submit.Read(ctx, submit.Options{
		File: path, Output: filepath.Join(t.dir, "results.jsonl"), Errors: filepath.Join(t.dir, "errors.jsonl"),
		Lines: batchfile.Options{DefaultModel: s.Model}, Route: s.Model, Quiet: true,
	}, t.log)
}

// writeJobs writes jobs that take more of the pool than there is. The first to run
// are short, so that some are answered on a slow machine too; of the others those
// that can run at once have prompts for more than its cells, of different lengths,
// and grow by half a share each.
func writeJobs(w *bufio.Writer, parallel, cells, longest int) error {
	share := cells / parallel
	room := min(longest, cells)*3/4 - shortTokens // for prompts whose words are more than a token
	encoder := json.NewEncoder(w)
	for i := range min(turns*parallel, mostJobs) {
		words, output := shortTokens, shortTokens
		if size := i % sizes; i >= parallel && size > 0 {
			output = min(max(share/2, shortTokens), room/3)
			words = max(min(share*size*3/sizes, room-output), 1)
		}
		if err := encoder.Encode(map[string]any{
			"custom_id": fmt.Sprintf("job-%d", i), "method": "POST", "url": api.Completions,
			"body": map[string]any{"prompt": fmt.Sprint(i) + strings.Repeat(" a", words), "max_tokens": max(output, 1)},
		}); err != nil {
			return fmt.Errorf("encode a job: %w", err)
		}
	}
	return nil
}

// firstError is what the error file says first.
func (t *test) firstError() string {
	text, err := os.ReadFile(filepath.Join(t.dir, "errors.jsonl"))
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var r api.Result
	var body api.ErrorBody
	switch err := json.Unmarshal([]byte(line), &r); {
	case err != nil:
		return line
	case r.Error != nil:
		return r.Error.Message
	case r.Response != nil && json.Unmarshal(r.Response.Body, &body) == nil:
		return body.Error.Message
	}
	return line
}
