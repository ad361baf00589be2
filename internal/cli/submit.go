package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/config"
	"tempo/internal/node"
	"tempo/internal/queue"
	"tempo/internal/report"
	"tempo/internal/submit"
)

// Submit is the submit command.
func Submit() *cobra.Command {
	root := &cobra.Command{
		Use:   "submit",
		Short: "Put prompts on the queue and get the results",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	run := &cobra.Command{
		Use:   "run FILE|-",
		Short: "Send a batch file, wait, and write the results",
		Long: `Sends a batch file (OpenAI's format, or lines of {"prompt": "…"}), waits for the
results and writes them as they come. With --local everything runs in this command:
the queue, a worker and its engine; it takes the worker's flags too.

Exit codes: 0 all done, 3 some jobs failed (their errors are written), 1 failed,
2 wrong usage.`,
		Example: `  submit run prompts.jsonl -o results.jsonl --errors errors.jsonl
  submit run prompts.jsonl --local --max-memory-gb 8
  submit run --prompt "Name a colour." --local`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &UsageError{Command: cmd.CommandPath(), Err: fmt.Errorf("run takes one file, got %d: %q", len(args), args)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runSubmit(cmd, args) },
	}
	config.SubmitFlags(run.Flags())
	config.WorkerFlags(run.Flags())
	root.AddCommand(run, EngineCommand())
	return root
}

func runSubmit(cmd *cobra.Command, args []string) error {
	ctx := cmd.Context()
	c, screen, log, err := begin(cmd)
	if err != nil {
		return err
	}
	opts, err := submitOptions(c, args, screen)
	if err != nil {
		return err
	}
	batch, err := submit.Read(ctx, opts, log)
	if err != nil {
		return err
	}
	defer batch.Close()
	send := sendRemote
	if c.Submit.Local {
		send = sendLocal
	}
	summary, stats, err := send(ctx, c, batch, screen, log)
	if summary != nil && !c.Submit.Quiet {
		err = errors.Join(err, printSummary(screen, summary, stats))
	}
	switch {
	case err != nil:
		return interrupted(ctx, err)
	case summary.Failed > 0:
		return ErrSomeFailed
	}
	return nil
}

func submitOptions(c *config.Config, args []string, screen *Screen) (submit.Options, error) {
	opts := submit.Options{
		Prompt: c.Submit.Prompt, Stdin: os.Stdin, Stdout: os.Stdout, Output: c.Submit.Output, Errors: c.Submit.Errors,
		Lines:    batchfile.Options{MaxTokens: c.Submit.MaxTokens, Seed: c.Submit.Seed, Temperature: c.Submit.Temperature},
		Priority: api.Priority(c.Submit.Priority), New: c.Submit.New, Quiet: c.Submit.Quiet,
	}
	opts.Lines.DefaultModel, _ = c.Engine.NamePath()
	if c.Submit.Local && opts.Lines.DefaultModel == "" {
		opts.Lines.DefaultModel = "default" // one model answers all
	}
	if len(args) == 1 {
		opts.File = args[0] // a file on the command line wins over a prompt in a configuration file
	}
	if opts.File == "" && opts.Prompt == "" {
		return opts, &UsageError{Command: "submit run", Err: errors.New(`nothing to send: name a batch file, "-" for standard input, or give --prompt TEXT`)}
	}
	if screen.Terminal() {
		opts.Status = screen.Status
	}
	return opts, nil
}

// sendRemote runs the batch on the workers of a queue.
func sendRemote(ctx context.Context, c *config.Config, batch *submit.Batch, _ *Screen, log *zap.Logger) (*submit.Summary, []api.MemoryStats, error) {
	client, err := connect(ctx, c, log)
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	summary, err := batch.Run(ctx, client, "")
	if err != nil {
		return summary, nil, err
	}
	stats, err := client.LatestStats(ctx)
	return summary, stats, err
}

// sendLocal runs the batch in this process: a queue on disk, a worker, its engine.
func sendLocal(ctx context.Context, c *config.Config, batch *submit.Batch, screen *Screen, log *zap.Logger) (summary *submit.Summary, stats []api.MemoryStats, err error) {
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: c.Submit.StoreDir, Listen: c.Submit.Listen, SyncAlways: true}, log)
	if err != nil {
		return nil, nil, err
	}
	defer server.Stop()
	client, err := queue.ConnectEmbedded(ctx, server, log)
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	if err := client.EnsureTopology(ctx, queue.Topology{}); err != nil {
		return nil, nil, fmt.Errorf("prepare the queue: %w", err)
	}
	if c.Submit.Listen == "" { // nobody else can have jobs of an earlier run
		if err := client.Reclaim(ctx, batch.ID); err != nil {
			return nil, nil, err
		}
	}
	n, err := node.Start(ctx, c, client, node.Engine{Args: EngineArgs(c.Log, screen), Stderr: screen}, log)
	if err != nil {
		return nil, nil, err
	}
	// The worker stops after the reader, so that its last results are read; and the
	// reader stops when the worker cannot go on.
	workCtx, stop := context.WithCancel(ctx)
	readCtx, workerEnded := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		err := n.Worker.Run(workCtx)
		workerEnded(errors.Join(errors.New("the worker ended"), err))
		ended <- err
	}()
	defer func() {
		stop()
		err = errors.Join(<-ended, err, n.Close())
	}()
	route := n.Worker.Model()
	for _, m := range batch.Models() {
		if m != route && m != "default" {
			log.Warn("this model is not here; the local one answers its lines", zap.String("model", m), zap.String("answered_by", route))
		}
	}
	if summary, err = batch.Run(readCtx, client, route); err != nil {
		return summary, nil, err
	}
	stats = []api.MemoryStats{n.Worker.Stats()}
	return summary, stats, client.RemoveBatch(ctx, batch.ID)
}

func printSummary(w io.Writer, s *submit.Summary, stats []api.MemoryStats) error {
	for _, m := range stats {
		for _, worker := range s.Workers {
			if m.Worker != worker {
				continue
			}
			if err := report.Memory(w, m); err != nil {
				return err
			}
		}
	}
	return report.Batch(w, *s)
}
