package submit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/queue"
)

func TestRun(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	o := options(write(t, append(prompts(5), "not JSON", `{"custom_id":"bad","prompt":"fail"}`)...))
	o.Errors = filepath.Join(filepath.Dir(o.File), "deep", "er", "errors.jsonl")
	s := send(t, c, o)
	require.Positive(t, s.Seconds)
	require.Positive(t, s.TokensPerSecond)
	require.Equal(t, &Summary{
		Batch: s.Batch, Succeeded: 5, Failed: 2, BadLines: 1, Tokens: 50, Seconds: s.Seconds, TokensPerSecond: s.TokensPerSecond,
		Output: o.Output, Errors: o.Errors, Workers: []string{"w"},
	}, s)
	require.ElementsMatch(t, []string{"job-0", "job-1", "job-2", "job-3", "job-4"}, ids(t, o.Output))
	require.Equal(t, []string{"", "bad"}, ids(t, o.Errors))
	text, err := os.ReadFile(o.Errors)
	require.NoError(t, err)
	require.Contains(t, string(text), `{"id":"batch_req_`+s.Batch+`-00000006","custom_id":"","response":null,"error":{"code":"parse_error","message":"`+o.File+`:6: `)

	b, err := c.Batch(t.Context(), s.Batch)
	require.NoError(t, err)
	require.Equal(t, api.Completed, b.Status)
	require.Equal(t, api.RequestCounts{Total: 6, Completed: 5, Failed: 1}, b.RequestCounts)
	require.GreaterOrEqual(t, b.InProgressAt, b.CreatedAt)
	require.GreaterOrEqual(t, b.CompletedAt, b.InProgressAt)
	require.Equal(t, []string{model}, b.Tempo.Models)

	// The same again, now all in one file: nothing is done twice.
	o.Errors = ""
	again := send(t, c, o)
	require.Equal(t, s.Batch, again.Batch)
	require.Equal(t, 6, again.Resumed)
	require.Zero(t, again.TokensPerSecond)
	require.Len(t, ids(t, o.Output), 7)

	o.New = true
	again = send(t, c, o)
	require.NotEqual(t, s.Batch, again.Batch)
	require.Zero(t, again.Resumed)
}

func TestRunToStandardOutput(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	var out bytes.Buffer
	s := send(t, c, Options{Prompt: "hello", Output: "-", Stdout: &out, Lines: batchfile.Options{DefaultModel: model}})
	require.Equal(t, 1, s.Succeeded)
	require.Contains(t, out.String(), `"custom_id":"prompt"`)
}

// Answers are rendered on standard output only, and the others written as ever.
func TestRunRendered(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	o := options(write(t, `{"custom_id":"a","prompt":"hello"}`, `{"custom_id":"b","prompt":"hello"}`, `{"custom_id":"c","prompt":"fail"}`))
	file := o.Output
	var out bytes.Buffer
	o.Output, o.Stdout = "-", &out
	o.Render = func(w io.Writer, r *api.Result) (bool, error) {
		if r.CustomID == "a" {
			fmt.Fprintln(w, "rendered")
		}
		return r.CustomID == "a", nil
	}
	require.Equal(t, 2, send(t, c, o).Succeeded)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, lines, "rendered")
	require.Contains(t, out.String(), `"custom_id":"b"`)
	require.Contains(t, out.String(), `"custom_id":"c"`)
	require.NotContains(t, out.String(), `"custom_id":"a"`)

	o.Output = file
	out.Reset()
	require.Equal(t, 3, send(t, c, o).Resumed)
	require.Empty(t, out.String())
	require.ElementsMatch(t, []string{"a", "b", "c"}, ids(t, file))

	o.Output, o.Render = "-", func(io.Writer, *api.Result) (bool, error) { return false, errors.New("no room") }
	_, err := read(t, o).Run(t.Context(), c)
	require.ErrorContains(t, err, "no room")
}

func TestOnlyBadLines(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	o := options(write(t, "{", "}"))
	s := send(t, c, o)
	require.Equal(t, 2, s.Failed)
	require.Equal(t, 2, s.BadLines)
	require.Len(t, ids(t, o.Output), 2)
}

func TestInterruptedRunGoesOn(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	turns := make(chan struct{})
	answerer(t, c, "w", turns)
	o := options(write(t, prompts(20)...))
	ctx, cancel := context.WithCancel(t.Context())
	b := read(t, o)
	type outcome struct {
		*Summary
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		s, err := b.Run(ctx, c)
		ended <- outcome{s, err}
	}()
	for range 7 {
		turns <- struct{}{}
	}
	require.Eventually(t, func() bool { // they are in the file
		text, err := os.ReadFile(o.Output)
		return err == nil && strings.Count(string(text), "\n") == 7
	}, 10*time.Second, 10*time.Millisecond)
	cancel()
	first := <-ended
	var interrupted *InterruptedError
	require.ErrorAs(t, first.err, &interrupted)
	require.Equal(t, []any{b.ID, 7, 20}, []any{interrupted.Batch, interrupted.Done, interrupted.Total})
	require.Equal(t, "stopped waiting for batch "+b.ID+": 7 of 20 results are there", interrupted.Error())
	require.Contains(t, interrupted.Hint(), "run the same command again")
	require.Len(t, ids(t, o.Output), 7)

	close(turns)
	s := send(t, c, o)
	require.Equal(t, 20, s.Succeeded)
	require.GreaterOrEqual(t, s.Resumed, 7)
	got := ids(t, o.Output)
	require.Len(t, got, 20)
	for i := range 20 {
		require.Contains(t, got, fmt.Sprintf("job-%d", i))
	}
}

func TestWorkerThatEndsIsNamed(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	o := options(write(t, prompts(1)...))
	o.Route = model
	b := read(t, o)
	ended := make(chan error, 1)
	go func() {
		_, err := b.Run(ctx, c)
		ended <- err
	}()
	require.Eventually(t, func() bool { return status(t, c, b.ID) == api.InProgress }, 10*time.Second, 10*time.Millisecond)
	cancel(fmt.Errorf("the worker ended: %w", &FileError{Op: "write", Path: "here", Err: errors.New("no room")}))
	err := <-ended
	require.ErrorContains(t, err, "the worker ended: write here: no room")
	var interrupted *InterruptedError
	require.ErrorAs(t, err, &interrupted)
	require.Equal(t, "check the path and its permissions; nothing is lost: run the same command again, it goes on where this one stopped", interrupted.Hint())
}

// status is that of a batch; "" if there is none yet.
func status(t *testing.T, c *queue.Client, id string) api.BatchStatus {
	t.Helper()
	b, err := c.Batch(t.Context(), id)
	if !errors.Is(err, queue.ErrNoBatch) {
		require.NoError(t, err)
	}
	return b.Status
}

func TestUnservedModel(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	require.NoError(t, c.Announce(t.Context(), api.Worker{ID: "w", Models: []string{model, "another"}}))
	answerer(t, c, "w", always())
	o := options(write(t, `{"custom_id":"a","prompt":"hello"}`, `{"custom_id":"b","prompt":"hello","model":"gpt-5"}`))
	var failures bytes.Buffer
	o.Errors, o.Stdout = "-", &failures
	s := send(t, c, o)
	require.Equal(t, 1, s.Succeeded)
	require.Equal(t, 1, s.Failed)
	require.Contains(t, failures.String(), `"code":"model_not_found"`)
	require.Contains(t, failures.String(), `prompts.jsonl:2: body.model is \"gpt-5\", which no worker serves; served are: another, tiny`)
}

func TestRouteAnswersAll(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	o := options(write(t, `{"prompt":"hello","model":"gpt-5"}`))
	o.Route = model
	require.Equal(t, 1, send(t, c, o).Succeeded)
}

// interrupt runs a batch until its status begins as told.
func interrupt(t *testing.T, c *queue.Client, o Options, status string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o.Status = func(line string) {
		if strings.HasPrefix(line, status) {
			cancel()
		}
	}
	_, err := read(t, o).Run(ctx, c)
	require.ErrorIs(t, err, context.Canceled)
}

// A run that was stopped and is sent to another model does not wait for what the
// first one has left.
func TestAnotherRouteAfterAnInterruption(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	o := options(write(t, prompts(3)...))
	o.Route = "first"
	answererOf(t, c, "w1", "first", once())
	interrupt(t, c, o, "1 of 3")

	answererOf(t, c, "w2", "second", always())
	o.Route = "second"
	s := send(t, c, o)
	require.Equal(t, 3, s.Succeeded)
	require.Zero(t, s.Resumed)
	require.Equal(t, []string{"w2"}, s.Workers)
}

// What an earlier run has sent is waited for, also if no worker serves it now.
func TestAnotherSetOfWorkers(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	serve := func(models ...string) {
		require.NoError(t, c.Announce(t.Context(), api.Worker{ID: "w", Models: models}))
	}
	o := options(write(t, append(prompts(2), `{"custom_id":"a","prompt":"a","model":"rare"}`, `{"custom_id":"b","prompt":"b","model":"rare"}`)...))
	serve(model, "rare")
	answerer(t, c, "w", always())
	stop := answererOf(t, c, "w", "rare", once())
	interrupt(t, c, o, "3 of 4")
	stop()

	serve(model)
	back := sync.OnceFunc(func() { answererOf(t, c, "w", "rare", always()) })
	o.Status = func(line string) {
		if strings.HasPrefix(line, "3 of 4") {
			back()
		}
	}
	s := send(t, c, o)
	require.Equal(t, []int{4, 0, 3}, []int{s.Succeeded, s.Failed, s.Resumed})
	require.ElementsMatch(t, []string{"job-0", "job-1", "a", "b"}, ids(t, o.Output))
}

// One who sends the same batch at the same time, and meets other workers, may send
// lines that are refused here.
func TestResultsOfOthersDoNotCount(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	o := options(write(t, prompts(2)...))
	b := read(t, o)
	require.NoError(t, b.create(t.Context(), c))
	_, err := c.PublishJobs(t.Context(), func(yield func(api.Job, error) bool) {
		yield(api.Job{ID: jobID(99), Batch: b.ID, CustomID: "other", Model: model}, nil)
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		n, err := c.CountResults(t.Context(), b.ID)
		return err == nil && n == 1
	}, 10*time.Second, 5*time.Millisecond)
	s := send(t, c, o)
	require.Equal(t, []int{2, 0}, []int{s.Succeeded, s.Resumed})
	require.ElementsMatch(t, []string{"job-0", "job-1"}, ids(t, o.Output))
}

func TestChangedInput(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		becomes []string
		line    int
		says    string
	}{
		"other line": {[]string{prompts(3)[0], `{"custom_id":"x","prompt":"other"}`, prompts(3)[2]}, 2, "prompts.jsonl:2: the file was changed"},
		"more lines": {prompts(4), 4, "prompts.jsonl:4: the file was changed"},
		"bad line":   {[]string{prompts(3)[0], "not JSON", prompts(3)[2]}, 3, "prompts.jsonl:3: the file was changed"},
		"fewer":      {prompts(2), 0, "lines at its end are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newQueue(t)
			o := options(write(t, prompts(3)...))
			b := read(t, o)
			require.NoError(t, os.WriteFile(o.File, []byte(strings.Join(test.becomes, "\n")), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := b.Run(ctx, c)
			var changed *ChangedError
			require.ErrorAs(t, err, &changed)
			require.Equal(t, ChangedError{File: o.File, Line: test.line}, *changed)
			require.ErrorContains(t, err, test.says)
			require.NotEmpty(t, changed.Hint())
			require.Equal(t, api.Validating, status(t, c, b.ID))

			answerer(t, c, "w", always())
			require.Len(t, ids(t, send(t, c, o).Output), len(test.becomes), "as a batch of its own")
		})
	}
}

// The user who stops the command behind the last result has a success.
func TestInterruptionBehindTheLastResult(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	o := options(write(t, prompts(1)...))
	ctx, cancel := context.WithCancel(t.Context())
	o.Status = func(line string) {
		if line == "" { // the results are there
			cancel()
		}
	}
	b := read(t, o)
	s, err := b.Run(ctx, c)
	require.NoError(t, err)
	require.Equal(t, 1, s.Succeeded)
	require.ErrorIs(t, ctx.Err(), context.Canceled)
	require.Equal(t, api.Completed, status(t, c, b.ID))
}

// A batch whose time is over ends, also where no worker is.
func TestDeadlineWithoutWorkers(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	o := options(write(t, prompts(3)...))
	o.Deadline = time.Second
	s := send(t, c, o)
	require.Equal(t, 3, s.Failed)
	text, err := os.ReadFile(o.Output)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(text), queue.CodeExpired))
}

// Of a batch that has ended wait writes what there is, also if its submit never said how much that
// would be.
func TestWaitForABatchThatHasEnded(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	b := read(t, options(write(t, prompts(3)...)))
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, err := b.Run(ctx, c)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = c.UpdateBatch(t.Context(), b.ID, func(o *api.Batch) error {
		o.Status, o.RequestCounts.Total = api.Validating, 0
		return nil
	})
	require.NoError(t, err)
	_, err = c.Cancel(t.Context(), b.ID)
	require.NoError(t, err)
	o := options("")
	o.Output = filepath.Join(t.TempDir(), "out.jsonl")
	s, err := Wait(t.Context(), c, b.ID, false, o, nil)
	require.NoError(t, err)
	require.Equal(t, 3, s.Failed)
	text, err := os.ReadFile(o.Output)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(text), queue.CodeCancelled))
}

func TestNoWorkerYet(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	core, logs := observer.New(zap.WarnLevel)
	b, err := Read(t.Context(), options(write(t, prompts(1)...)), zap.New(core))
	require.NoError(t, err)
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = b.Run(ctx, c)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, 1, logs.FilterMessageSnippet("no worker is there yet").Len())
}

// A request beyond what a message may be is sent all the same; one beyond all measure is refused,
// and the others go on.
func TestLargeRequests(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	answerer(t, c, "w", always())
	line := func(id string, size int) string {
		return `{"custom_id":"` + id + `","prompt":"` + strings.Repeat("x", size) + `"}`
	}
	o := options(write(t, line("large", 2<<20), line("small", 1), line("huge", 17<<20)))
	o.Errors = o.Output + ".errors"
	s := send(t, c, o)
	require.Equal(t, 2, s.Succeeded)
	require.Equal(t, 1, s.BadLines)
	text, err := os.ReadFile(o.Errors)
	require.NoError(t, err)
	require.Contains(t, string(text), `"custom_id":"huge"`)
	require.Contains(t, string(text), "longer than 16777216 bytes")
}

func TestWhereFailuresAre(t *testing.T) {
	t.Parallel()
	require.Equal(t, "the error file has", Options{Output: "-", Errors: "e.jsonl"}.failures())
	require.Equal(t, "the output has", Options{Output: "-"}.failures())
	require.Equal(t, "--errors FILE would have", Options{Output: os.DevNull}.failures())
}

func TestOutput(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	// What an earlier run wrote stays while this one has nothing.
	o := options(write(t, prompts(1)...))
	require.NoError(t, os.MkdirAll(filepath.Dir(o.Output), 0o755))
	require.NoError(t, os.WriteFile(o.Output, []byte("of an earlier run"), 0o600))
	b := read(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Run(ctx, c)
	require.Error(t, err)
	text, err := os.ReadFile(o.Output)
	require.NoError(t, err)
	require.Equal(t, "of an earlier run", string(text))

	answerer(t, c, "w", always())
	send(t, c, o)
	require.Equal(t, []string{"job-0"}, ids(t, o.Output))

	// Both files are one, by two names.
	both := o
	both.File = write(t, append(prompts(3), "not JSON")...)
	both.Errors = filepath.Join(filepath.Dir(o.Output), "link.jsonl")
	require.NoError(t, os.Symlink(o.Output, both.Errors))
	send(t, c, both)
	require.ElementsMatch(t, []string{"job-0", "job-1", "job-2", ""}, ids(t, o.Output))

	device := o
	device.Output = "/dev/null"
	send(t, c, device)

	for name, change := range map[string]func(*Options){
		"input is output":  func(o *Options) { o.Output = filepath.Join(filepath.Dir(o.File), ".", "prompts.jsonl") },
		"input is errors":  func(o *Options) { o.Errors = o.File },
		"a directory":      func(o *Options) { o.Output = filepath.Dir(o.File) },
		"below a file":     func(o *Options) { o.Output = o.File + "/results.jsonl" },
		"errors directory": func(o *Options) { o.Errors = filepath.Dir(o.File) },
	} {
		wrong := o
		change(&wrong)
		_, err := read(t, wrong).Run(t.Context(), c)
		var file *FileError
		require.ErrorAs(t, err, &file, name)
		require.Equal(t, "write", file.Op)
		require.NotEmpty(t, file.Hint())
	}
	require.Equal(t, 1, read(t, o).content.good, "the input is lost")
}

func TestProgress(t *testing.T) {
	t.Parallel()
	c := newQueue(t)
	turns := make(chan struct{})
	answerer(t, c, "w", turns)
	o := options(write(t, prompts(2)...))
	lines := make(chan string, 1000)
	o.Status = func(line string) { lines <- line }
	b := read(t, o)
	ended := make(chan error, 1)
	go func() {
		_, err := b.Run(t.Context(), c)
		ended <- err
	}()
	turns <- struct{}{}
	require.Eventually(t, func() bool {
		return strings.HasPrefix(<-lines, "1 of 2 done, 0 failed, ")
	}, 10*time.Second, time.Millisecond)
	turns <- struct{}{}
	require.NoError(t, <-ended)
	last := "nothing"
	for len(lines) > 0 {
		last = <-lines
	}
	require.Empty(t, last, "the status line stays")
}
