package submit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/queue"
	"tempo/internal/submit"
)

// A file is sent, somebody answers, and the results are written.
func Example() {
	dir, err := os.MkdirTemp("", "submit")
	check(err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "prompts.jsonl")
	check(os.WriteFile(file, []byte(`{"custom_id":"river","prompt":"Name a river."}
{"custom_id":"typo","promt":"Name a lake."}
`), 0o600))
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: filepath.Join(dir, "queue")}, nil)
	check(err)
	defer server.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := queue.ConnectEmbedded(ctx, server, nil)
	check(err)
	defer client.Close()
	check(client.EnsureTopology(ctx, queue.Topology{}))
	ended := make(chan error)
	go func() { ended <- answer(ctx, client) }()

	batch, err := submit.Read(ctx, submit.Options{
		File: file, Output: filepath.Join(dir, "results.jsonl"), Errors: filepath.Join(dir, "errors.jsonl"),
		Lines: batchfile.Options{DefaultModel: "m"}, Quiet: true,
	}, nil)
	check(err)
	defer batch.Close()
	summary, err := batch.Run(ctx, client)
	check(err)
	fmt.Println("succeeded:", summary.Succeeded, "failed:", summary.Failed, "never sent:", summary.BadLines)
	for _, path := range []string{summary.Output, summary.Errors} {
		text, err := os.ReadFile(path)
		check(err)
		var line api.Result
		check(json.Unmarshal(text, &line))
		fmt.Println(filepath.Base(path), line.CustomID, line.OK())
	}
	cancel()
	check(<-ended)
	// Output:
	// succeeded: 1 failed: 1 never sent: 1
	// results.jsonl river true
	// errors.jsonl typo false
}

// answer stands in for a worker: it answers one job, and ends with ctx.
func answer(ctx context.Context, client *queue.Client) error {
	taker := client.NewTaker(queue.TakerOptions{Models: []string{"m"}}, nil)
	ended := make(chan error)
	go func() { ended <- taker.Run(ctx) }()
	jobs, err := taker.Fetch(ctx, 1)
	if err != nil {
		return err
	}
	err = jobs[0].Complete(context.WithoutCancel(ctx), &api.Result{
		CustomID: jobs[0].Job.CustomID, Response: &api.Response{StatusCode: 200, Body: json.RawMessage(`{}`)},
	})
	if err != nil {
		return err
	}
	return <-ended
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
