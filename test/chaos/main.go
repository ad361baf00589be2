// Chaos kills, stops and cuts off the parts of a running Tempo while it answers a file of jobs,
// and checks then that nothing was lost and nothing was answered twice. All processes are real
// ones: nats-server, submit, workers and their engines; only the engines sleep instead of
// generating.
//
//	go run ./test/chaos --jobs 20000 --seed 7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"
)

// options are what is asked for.
type options struct {
	jobs    int
	workers int
	seed    uint64
	faults  time.Duration // how long things go wrong
	limit   time.Duration // of the whole run
	keep    bool          // the directory stays
}

func main() {
	if part(os.Args) {
		return
	}
	var o options
	flag.IntVar(&o.jobs, "jobs", 20_000, "jobs to send")
	flag.IntVar(&o.workers, "workers", 3, "worker processes")
	flag.Uint64Var(&o.seed, "seed", 0, "what goes wrong and when; 0 = another each time")
	flag.DurationVar(&o.faults, "faults", time.Minute, "how long things go wrong")
	flag.DurationVar(&o.limit, "limit", 5*time.Minute, "after which the run has failed")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory with all logs and files")
	flag.Parse()
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exit(run(ctx, o, os.Stdout))
}

// part runs what this program starts of itself, and reports whether it was asked to.
func part(args []string) bool {
	if len(args) < 2 {
		return false
	}
	switch args[1] {
	case "worker":
		exit(runWorker(args[2:]))
	case "engine":
		exit(runEngine())
	}
	return false
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run is one run: send, break, wait, check.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	fmt.Fprintf(out, "seed %d: %d jobs, %d workers, faults for %v\n", o.seed, o.jobs, o.workers, o.faults)
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	w, err := newWorld(ctx, o, out)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, w.close())
		if err != nil || o.keep {
			fmt.Fprintln(out, "logs and files are in", w.dir)
			return
		}
		err = os.RemoveAll(w.dir)
	}()
	if err := w.start(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- w.sendUntilDone(ctx) }()
	w.breakThings(ctx, rand.New(rand.NewPCG(o.seed, 1)), done)
	if err := <-done; err != nil {
		return fmt.Errorf("the batch did not end: %w", err)
	}
	return w.check(ctx)
}
