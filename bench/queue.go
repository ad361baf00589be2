package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
	"tempo/internal/worker"
)

const (
	jobBytes   = 512 // of a message
	atOnce     = 256 // jobs that the worker has at the same time
	benchModel = "sleeper"
)

// queueBench measures how many jobs a second a worker answers that need no time
// to be answered, against a loop over bare JetStream.
func queueBench(ctx context.Context, o options) (rows []row, err error) {
	if o.jobs == 0 {
		o.jobs = 20_000
	}
	dir, err := os.MkdirTemp("", "tempo-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	// Both sides reach the server in the same way, through its port.
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: dir, Listen: "127.0.0.1:0"}, o.log)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	t, err := startTempo(ctx, server.URL(), o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	b, err := startBare(ctx, server.URL(), o.jobs)
	if err != nil {
		return nil, err
	}
	defer b.close()
	r, err := compare(ctx, row{
		Work: fmt.Sprintf("%d jobs of %d bytes, from publishing to the last result read, one worker whose engine takes no time, default fsync",
			o.jobs, jobBytes),
		Against: "bare JetStream on the same server: the same publishing, a loop of fetch, publish result and double ack, reading the results",
		Unit:    "jobs/s",
	}, o.runs, t.run, b.run)
	return []row{r}, err
}

// tempo is a worker over a Sleeper.
type tempo struct {
	client *queue.Client
	jobs   int
	runs   int // so far
	stop   context.CancelFunc
	ended  chan error // receives what the worker returned
}

func startTempo(ctx context.Context, url string, o options) (*tempo, error) {
	client, err := queue.Connect(ctx, queue.Options{URL: url, Name: "bench"}, o.log)
	if err != nil {
		return nil, err
	}
	if err := client.EnsureTopology(ctx, queue.Topology{}); err != nil {
		client.Close()
		return nil, err
	}
	w, err := startWorker(ctx, client, o.log)
	if err != nil {
		client.Close()
		return nil, err
	}
	t := &tempo{client: client, jobs: o.jobs, ended: make(chan error, 1)}
	work, stop := context.WithCancel(ctx)
	t.stop = stop
	go func() { t.ended <- w.Run(work) }()
	return t, nil
}

func startWorker(ctx context.Context, client *queue.Client, log *zap.Logger) (*worker.Worker, error) {
	monitor := budget.NewMonitor(budget.ProportionalSetSize, time.Second, log)
	monitor.Add(os.Getpid())
	w := worker.New(worker.Options{
		Name: "bench", Model: benchModel, Device: budget.Device{ID: budget.CPUID, Kind: budget.CPU}, Limit: budget.GiBs(4),
		Spec:              infer.Spec{GPU: -1, Threads: 1, Batch: atOnce},
		MaxParallelTokens: atOnce, Measure: budget.ProportionalSetSize,
	}, client, client.NewTaker(queue.TakerOptions{Worker: "bench", Models: []string{benchModel}}, log), &infer.Sleeper{}, monitor, log)
	return w, w.Start(ctx)
}

func (t *tempo) close() error {
	t.stop()
	err := <-t.ended
	t.client.Close()
	return err
}

// run sends a batch and reads its results.
func (t *tempo) run(ctx context.Context) (float64, error) {
	t.runs++
	id := fmt.Sprintf("bench-%d", t.runs)
	started := time.Now()
	if _, _, err := t.client.CreateBatch(ctx, api.Batch{
		ID: id, Object: "batch", Status: api.InProgress, Tempo: api.BatchTempo{Priority: api.Normal, Models: []string{benchModel}},
	}); err != nil {
		return 0, err
	}
	published, err := t.client.PublishJobs(ctx, func(yield func(api.Job, error) bool) {
		for i := range t.jobs {
			if !yield(makeJob(id, i)) {
				return
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if published.New != t.jobs {
		return 0, fmt.Errorf("%d of %d jobs were queued", published.New, t.jobs)
	}
	left := t.jobs
	if err := t.client.Results(ctx, id, func(r api.Result) error {
		if !r.OK() {
			return fmt.Errorf("job %s failed", r.CustomID)
		}
		if left--; left == 0 {
			return queue.Stop
		}
		return nil
	}); err != nil {
		return 0, err
	}
	took := time.Since(started)
	if _, err := t.client.UpdateBatch(ctx, id, func(b *api.Batch) error {
		b.Status = api.Completed
		return nil
	}); err != nil {
		return 0, err
	}
	return float64(t.jobs) / took.Seconds(), t.client.RemoveBatch(ctx, id)
}

// makeJob makes a job whose message has jobBytes.
func makeJob(batch string, i int) (api.Job, error) {
	j := api.Job{
		ID: fmt.Sprintf("%08d", i), Batch: batch, CustomID: fmt.Sprint(i), Model: benchModel,
		Priority: api.Normal, URL: api.Completions, Line: i + 1,
	}
	var message []byte
	for fill := jobBytes / 2; ; fill += jobBytes - len(message) { // twice: the second time it fits
		body, err := json.Marshal(map[string]any{"prompt": strings.Repeat("a", fill), "max_tokens": 1})
		if err != nil {
			return j, fmt.Errorf("encode a job: %w", err)
		}
		j.Body = body
		if message, err = json.Marshal(j); err != nil {
			return j, fmt.Errorf("encode a job: %w", err)
		}
		if len(message) == jobBytes {
			return j, nil
		}
	}
}
