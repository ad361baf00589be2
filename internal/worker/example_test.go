package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
	"tempo/internal/worker"
)

// A worker over a queue in this process, with an engine that repeats the prompt.
func Example() {
	dir, err := os.MkdirTemp("", "worker")
	check(err)
	defer os.RemoveAll(dir)
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: dir}, nil)
	check(err)
	defer server.Stop()
	ctx, stop := context.WithCancel(context.Background())
	c, err := queue.ConnectEmbedded(ctx, server, nil)
	check(err)
	defer c.Close()
	check(c.EnsureTopology(ctx, queue.Topology{}))

	engine := &infer.Sleeper{}
	defer engine.Close()
	monitor := budget.NewMonitor(budget.ProportionalSetSize, time.Second, nil)
	monitor.Add(os.Getpid())
	taker := c.NewTaker(queue.TakerOptions{Worker: "w", Models: []string{"m"}}, nil)
	w := worker.New(worker.Options{
		Name: "w", Model: "m", Device: budget.Device{ID: budget.CPUID}, Spec: infer.Spec{GPU: -1, Threads: 1, Batch: 512},
		Limit: 4 * budget.GiB, Measure: budget.ProportionalSetSize,
	}, c, taker, engine, monitor, nil)
	check(w.Start(ctx))
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()

	_, _, err = c.CreateBatch(ctx, api.Batch{ID: "b", Status: api.InProgress, Tempo: api.BatchTempo{Models: []string{"m"}}})
	check(err)
	_, err = c.PublishJobs(ctx, func(yield func(api.Job, error) bool) {
		yield(api.Job{
			ID: "1", Batch: "b", CustomID: "greeting", Model: "m", URL: api.ChatCompletions,
			Body: json.RawMessage(`{"messages":[{"role":"user","content":"Good morning"}]}`),
		}, nil)
	})
	check(err)
	check(c.Results(ctx, "b", func(r api.Result) error {
		var answer api.Completion
		check(json.Unmarshal(r.Response.Body, &answer))
		fmt.Printf("%s: %s, by %s\n", r.CustomID, answer.Choices[0].Message.Content, r.Tempo.Worker)
		fmt.Println("within the limit:", r.Tempo.Memory.Total() <= r.Tempo.Memory.Limit)
		return queue.Stop
	}))
	stop() // it drains
	check(<-ended)
	// Output:
	// greeting: Good morning, by w
	// within the limit: true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
