package submit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/queue"
)

const model = "tiny"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newQueue starts a server of its own for a test, with the streams.
func newQueue(t *testing.T) *queue.Client {
	t.Helper()
	e, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir(), MaxPayload: 1 << 20}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	c, err := queue.ConnectEmbedded(t.Context(), e, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.EnsureTopology(t.Context(), queue.Topology{}))
	return c
}

// answerer answers jobs until the test ends; a job is answered when it has
// received from turns.
func answerer(t *testing.T, c *queue.Client, name string, turns <-chan struct{}) {
	t.Helper()
	answererOf(t, c, name, model, turns)
}

// answererOf answers the jobs for a model until the test ends, or until it is stopped.
func answererOf(t *testing.T, c *queue.Client, name, model string, turns <-chan struct{}) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	taker := c.NewTaker(queue.TakerOptions{Worker: name, Models: []string{model}}, nil)
	took, ran := make(chan struct{}), make(chan error, 1)
	go func() { ran <- taker.Run(ctx) }()
	go func() {
		defer close(took)
		for {
			jobs, err := taker.Fetch(ctx, 1)
			if err != nil {
				return
			}
			select {
			case <-turns:
			case <-ctx.Done():
				for _, d := range jobs {
					_ = d.GiveBack(context.WithoutCancel(ctx), 0) // another one need not wait for AckWait
				}
				return
			}
			for _, d := range jobs {
				if err := d.Complete(ctx, answer(d.Job, name)); err != nil {
					return
				}
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-took
		require.NoError(t, <-ran)
	})
	t.Cleanup(stop)
	return stop
}

// always lets an answerer answer at once.
func always() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// once lets an answerer answer one job.
func once() <-chan struct{} {
	c := make(chan struct{}, 1)
	c <- struct{}{}
	return c
}

// answer is 200, or 400 for prompts that say "fail". Embeddings have read 8 tokens.
func answer(j api.Job, worker string) *api.Result {
	r := &api.Result{
		ID: api.ResultID(j.Batch, j.ID), CustomID: j.CustomID, Tempo: &api.Tempo{Worker: worker, Timing: &api.Timing{DecodeSeconds: 0.5}},
		Response: &api.Response{StatusCode: 200, RequestID: "r", Body: json.RawMessage(`{"usage":{"completion_tokens":10}}`)},
	}
	if j.URL == api.Embeddings {
		r.Response.Body = json.RawMessage(`{"object":"list","data":[],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}`)
	}
	if strings.Contains(string(j.Body), "fail") {
		r.Response.StatusCode, r.Response.Body = 400, json.RawMessage(`{"error":{"message":"no"}}`)
	}
	return r
}

// write writes a file of prompts and returns its path.
func write(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prompts.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
	return path
}

// prompts are n lines.
func prompts(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"custom_id":"job-%d","prompt":"hello %d"}`, i, i)
	}
	return lines
}

// options are those of a file with results beside it.
func options(file string) Options {
	return Options{
		File: file, Output: filepath.Join(filepath.Dir(file), "out", "results.jsonl"),
		Lines: batchfile.Options{DefaultModel: model},
	}
}

// read prepares a batch.
func read(t *testing.T, o Options) *Batch {
	t.Helper()
	b, err := Read(t.Context(), o, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// send runs a batch to its end.
func send(t *testing.T, c *queue.Client, o Options) *Summary {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := read(t, o).Run(ctx, c)
	require.NoError(t, err)
	return s
}

// ids are the custom ids in an output file, in its order.
func ids(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	list := []string{}
	for l := range strings.Lines(string(text)) {
		var r api.Result
		require.NoError(t, json.Unmarshal([]byte(l), &r))
		list = append(list, r.CustomID)
	}
	return list
}
