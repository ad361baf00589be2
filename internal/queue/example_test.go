package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"tempo/api"
	"tempo/internal/queue"
)

// The way of one job: queued, taken, answered, read.
func Example() {
	dir, err := os.MkdirTemp("", "queue")
	check(err)
	defer os.RemoveAll(dir)
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: dir}, nil)
	check(err)
	defer server.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	c, err := queue.ConnectEmbedded(ctx, server, nil)
	check(err)
	defer c.Close()
	check(c.EnsureTopology(ctx, queue.Topology{}))

	// submit
	job := api.Job{ID: "1", Batch: "b", CustomID: "greeting", Model: "m", URL: api.ChatCompletions, Body: json.RawMessage(`{}`)}
	_, _, err = c.CreateBatch(ctx, api.Batch{ID: "b", Status: api.InProgress, Tempo: api.BatchTempo{Models: []string{"m"}}})
	check(err)
	published, err := c.PublishJobs(ctx, func(yield func(api.Job, error) bool) { yield(job, nil) })
	check(err)
	fmt.Println("queued:", published.New)

	// worker
	taker := c.NewTaker(queue.TakerOptions{Models: []string{"m"}}, nil)
	stopped := make(chan error)
	go func() { stopped <- taker.Run(ctx) }()
	taken, err := taker.Fetch(ctx, 1)
	check(err)
	fmt.Println("taken:", taken[0].Job.CustomID, "attempt", taken[0].Attempt)
	check(taken[0].Complete(ctx, &api.Result{CustomID: "greeting", Response: &api.Response{StatusCode: 200, Body: json.RawMessage(`{}`)}}))

	// submit again
	check(c.Results(ctx, "b", func(r api.Result) error {
		fmt.Println("result:", r.CustomID, r.OK())
		return queue.Stop
	}))
	cancel()
	check(<-stopped)
	// Output:
	// queued: 1
	// taken: greeting attempt 1
	// result: greeting true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
