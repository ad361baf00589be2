package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/queue"
)

// tally is what came of the jobs.
type tally struct {
	answered, dead, refused int
	again                   int // that ended at a later attempt than the first
	wrong                   []string
}

func (t *tally) fail(format string, args ...any) {
	t.wrong = append(t.wrong, fmt.Sprintf(format, args...))
}

// check reads everything back and prints the table.
func (w *world) check(ctx context.Context) error {
	client, err := connect(ctx, w.proxy.url(), zap.NewNop())
	if err != nil {
		return err
	}
	defer client.Close()
	batches, err := client.Batches(ctx)
	if err != nil {
		return err
	}
	if len(batches) != 1 {
		return fmt.Errorf("%d batches are in the queue, must be 1", len(batches))
	}
	t := &tally{}
	letters, err := deadLetters(ctx, client, batches[0].ID)
	if err != nil {
		return err
	}
	if err := w.checkQueue(ctx, client, batches[0].ID, letters, t); err != nil {
		return err
	}
	if err := w.checkFile(t); err != nil {
		return err
	}
	if err := w.checkLedgers(ctx, client, t); err != nil {
		return err
	}
	w.print(t)
	if len(t.wrong) > 0 {
		return fmt.Errorf("%d things are wrong; --seed %d repeats the faults", len(t.wrong), w.o.seed)
	}
	return nil
}

func deadLetters(ctx context.Context, c *queue.Client, batch string) (map[string]bool, error) {
	letters := map[string]bool{}
	err := c.DeadLetters(ctx, batch, func(l api.DeadLetter) error {
		letters[l.Job.CustomID] = true
		return nil
	})
	return letters, err
}

// checkQueue compares the results in the queue with the jobs, each by its text.
func (w *world) checkQueue(ctx context.Context, c *queue.Client, batch string, letters map[string]bool, t *tally) error {
	n, err := c.CountResults(ctx, batch)
	if err != nil {
		return err
	}
	if n != w.o.jobs {
		t.fail("%d results in the queue", n)
	}
	seen, read := map[string]bool{}, 0
	err = c.Results(ctx, batch, func(r api.Result) error {
		if n == 0 {
			return queue.Stop
		}
		if seen[r.CustomID] {
			t.fail("%s has two results", r.CustomID)
		}
		seen[r.CustomID] = true
		if r.Tempo != nil && r.Tempo.Attempt > 1 {
			t.again++
		}
		switch {
		case !r.OK() && letters[r.CustomID]:
			t.dead++
		case !r.OK():
			t.refused++
			t.fail("%s failed and is no dead letter: %s", r.CustomID, r.Response.Body)
		default:
			t.answered++
			w.checkText(r, t)
		}
		if read++; read == n {
			return queue.Stop
		}
		return nil
	})
	if err != nil {
		return err
	}
	pending, err := c.Pending(ctx, batch)
	if err != nil {
		return err
	}
	if pending > 0 {
		t.fail("%d jobs are still queued", pending)
	}
	b, err := c.Counts(ctx, batch)
	if err != nil {
		return err
	}
	want := api.RequestCounts{Total: w.o.jobs, Completed: t.answered, Failed: t.dead + t.refused}
	if b.RequestCounts != want {
		t.fail("the batch counts %+v, must be %+v", b.RequestCounts, want)
	}
	return nil
}

// checkText: an engine that sleeps answers with the prompt.
func (w *world) checkText(r api.Result, t *tally) {
	var body api.Completion
	var i int
	if _, err := fmt.Sscanf(r.CustomID, "line-%d", &i); err != nil || customID(i) != r.CustomID || i >= w.o.jobs {
		t.fail("a result of %q, which was not sent", r.CustomID)
		return
	}
	if err := json.Unmarshal(r.Response.Body, &body); err != nil || len(body.Choices) != 1 || body.Choices[0].Message.Content != prompt(i) {
		t.fail("%s is answered with %s", r.CustomID, r.Response.Body)
	}
}

// checkFile: each line of the input has one in the output.
func (w *world) checkFile(t *tally) error {
	f, err := os.Open(w.path("results.jsonl"))
	if err != nil {
		return fmt.Errorf("read the output: %w", err)
	}
	defer f.Close()
	lines := map[string]int{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var r api.Result
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.fail("a line of the output is %q", s.Text())
			continue
		}
		lines[r.CustomID]++
	}
	for i := range w.o.jobs {
		if n := lines[customID(i)]; n != 1 {
			t.fail("%s is %d times in the output", customID(i), n)
		}
	}
	if len(lines) > w.o.jobs {
		t.fail("%d lines in the output are of no job", len(lines)-w.o.jobs)
	}
	return s.Err()
}

// ticket is the host memory that a worker has reserved for each job that it could fetch next, of
// which it may keep a quarter more than run at once.
const ticket = 64 << 10

// holds reports whether a worker has a job, or memory for one that is not there any more.
func holds(s api.MemoryStats) bool {
	return s.Running > 0 || s.Waiting > 0 || s.Host.Reserved > int64(s.MaxParallelTokens*5/4)*ticket
}

// checkLedgers: when all is done no worker has anything reserved for a job that it has.
func (w *world) checkLedgers(ctx context.Context, c *queue.Client, t *tally) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		stats, err := c.LatestStats(ctx)
		if err != nil {
			return err
		}
		now := slices.DeleteFunc(stats, func(s api.MemoryStats) bool { return time.Since(s.Time) > 5*time.Second })
		held := slices.DeleteFunc(slices.Clone(now), func(s api.MemoryStats) bool { return !holds(s) })
		if len(now) == len(w.workers) && len(held) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			t.fail("%d of %d workers tell their statistics, %d of them hold memory for jobs: %+v", len(now), len(w.workers), len(held), held)
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err())
		}
	}
}

func (w *world) print(t *tally) {
	fmt.Fprintln(w.out, "\nwhat went wrong:")
	w.mu.Lock()
	for _, f := range faults() {
		fmt.Fprintf(w.out, "  %-36s %6d\n", f.name, w.counts[f.name])
	}
	w.mu.Unlock()
	fmt.Fprintln(w.out, "what came of it:")
	for _, row := range []struct {
		name string
		n    int
	}{
		{"submitted", w.o.jobs},
		{"answered", t.answered},
		{"dead letters", t.dead},
		{"other failures", t.refused},
		{"at a later attempt", t.again},
		{"wrong", len(t.wrong)},
	} {
		fmt.Fprintf(w.out, "  %-36s %6d\n", row.name, row.n)
	}
	for i, text := range t.wrong {
		if i == 20 {
			fmt.Fprintln(w.out, "  …")
			break
		}
		fmt.Fprintln(w.out, "  "+text)
	}
}
