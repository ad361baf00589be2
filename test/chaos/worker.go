package main

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/infer"
	"tempo/internal/queue"
	"tempo/internal/worker"
)

const (
	model   = "sleeper"
	ackWait = 3 * time.Second // short, so that many jobs are given out again
	atOnce  = 32              // jobs that a worker has at the same time
	longest = 40 * time.Millisecond
)

// runEngine is an engine process: each job sleeps for a time that follows from its text.
func runEngine() error {
	e := &infer.Sleeper{Delay: func(r infer.Request) time.Duration {
		h := fnv.New64a()
		_, _ = h.Write([]byte(r.ID)) // a hash takes everything
		return time.Duration(h.Sum64() % uint64(longest))
	}}
	return infer.ServeParent(context.Background(), e, nil)
}

// runWorker is a worker process with such an engine.
func runWorker(args []string) error {
	flags := flag.NewFlagSet("worker", flag.ExitOnError)
	url := flags.String("server", "", "of the queue")
	name := flags.String("name", "", "of the worker")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the flags: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log, err := zap.NewDevelopment()
	if err != nil {
		return fmt.Errorf("make a log: %w", err)
	}
	client, err := connect(ctx, *url, log)
	if err != nil {
		return err
	}
	defer client.Close()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	monitor := budget.NewMonitor(budget.ProportionalSetSize, time.Second, log)
	monitor.Add(os.Getpid())
	host := infer.NewHost(infer.HostOptions{
		Command: []string{self, "engine"}, Stderr: os.Stderr,
		OnProcess: func(pid int, alive bool) {
			if alive {
				monitor.Add(pid)
			} else {
				monitor.Remove(pid)
			}
		},
	}, log)
	defer host.Close()
	taker := client.NewTaker(queue.TakerOptions{Worker: *name, Models: []string{model}, AckWait: ackWait}, log)
	w := worker.New(worker.Options{
		Name: *name, Model: model, Device: budget.Device{ID: budget.CPUID, Kind: budget.CPU}, Limit: budget.GiBs(1),
		Spec: infer.Spec{GPU: -1, Threads: 1, Batch: atOnce}, MaxParallelTokens: atOnce, Measure: budget.ProportionalSetSize,
		StatsInterval: time.Second,
	}, client, taker, host, monitor, log)
	if err := w.Start(ctx); err != nil {
		return err
	}
	return w.Run(ctx)
}

// connect connects to a queue that may not be there for a while.
func connect(ctx context.Context, url string, log *zap.Logger) (*queue.Client, error) {
	for {
		client, err := queue.Connect(ctx, queue.Options{URL: url, Name: "chaos"}, log)
		if err == nil {
			if err = client.EnsureTopology(ctx, queue.Topology{}); err == nil {
				return client, nil
			}
			client.Close()
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
