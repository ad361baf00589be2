package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/hub"
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
  submit run --prompt "Name a colour." --max-tokens 40 --local
  submit run prompts.jsonl --local --max-tokens 60 --selection-threshold 0.1`,
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
	root.AddCommand(run, sendCommand(), waitCommand(), resultsCommand(), statusCommand(), pauseCommand(), resumeCommand(),
		cancelCommand(), deadCommand(), purgeCommand(), showCommand(), EngineCommand())
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
	if len(args) == 1 && cmd.Flags().Changed("prompt") {
		return &UsageError{Command: cmd.CommandPath(), Err: errors.New("--prompt and a file are given: send one of them")}
	}
	batch, err := submit.Read(ctx, opts, log)
	if err != nil {
		return badPrompt(cmd, c, err)
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

// badPrompt is the error of an input that cannot be sent. What is wrong with --prompt are flags,
// unless it is the local model that is missing.
func badPrompt(cmd *cobra.Command, c *config.Config, err error) error {
	bad, ok := errors.AsType[*batchfile.LineError](err)
	if !ok {
		return err
	}
	if c.Submit.Local && bad.Field == "--model" {
		if _, err := node.FindModel(config.Model{}); err != nil {
			return err
		}
	}
	return &UsageError{Command: cmd.CommandPath(), Err: bad}
}

func submitOptions(c *config.Config, args []string, screen *Screen) (submit.Options, error) {
	opts := submit.Options{
		Prompt: c.Submit.Prompt, Stdin: os.Stdin, Stdout: os.Stdout, Output: c.Submit.Output, Errors: c.Submit.Errors,
		Lines: batchfile.Options{
			MaxTokens: c.Submit.MaxTokens, Seed: c.Submit.Seed, Temperature: c.Submit.Temperature, Reproducible: c.Submit.Reproducible,
			Parallel: c.ForLines(), ThresholdOff: c.Parallel.SelectionThreshold != nil && c.Parallel.DefaultMode,
		},
		Priority: api.Priority(c.Submit.Priority), Weight: c.Submit.Weight, MaxInFlight: c.Submit.MaxInFlight,
		New: c.Submit.New, Quiet: c.Submit.Quiet,
	}
	opts.Deadline, _ = c.Submit.Limit() // it was checked
	opts.Lines.DefaultModel = defaultModel(c)
	if c.Submit.Local && len(c.Engine.Model) < 2 {
		opts.Route = opts.Lines.DefaultModel // one model answers all
	}
	if len(args) == 1 {
		opts.File = args[0] // a file on the command line wins over a prompt in a configuration file
	}
	if opts.File == "" && opts.Prompt == "" {
		return opts, &UsageError{Command: "submit run", Err: errors.New(`nothing to send: name a batch file, "-" for standard input, or give --prompt TEXT`)}
	}
	if opts.File == "" {
		renderPrompt(&opts, screen, colours(os.Stdout))
	}
	if screen.Terminal() {
		opts.Status = screen.Status
	}
	return opts, nil
}

// defaultModel is the model of lines that name none: the first of the configuration,
// with --local else that of the cache. It must be known before anything is fetched or
// found, as the batch's id follows from it. Without --local a name is enough.
func defaultModel(c *config.Config) string {
	if len(c.Engine.Model) > 0 {
		text := c.Engine.Model[0]
		if isFile := strings.Contains(text, "=") || strings.HasSuffix(text, ".gguf") || hub.Is(text); !isFile && !c.Submit.Local {
			return text
		}
		return config.ParseModel(text).Name
	}
	if !c.Submit.Local {
		return ""
	}
	found, _ := node.FindModel(config.Model{}) // what is missing is said when the worker starts
	return found.Name
}

// sendRemote runs the batch on the workers of a queue.
func sendRemote(ctx context.Context, c *config.Config, batch *submit.Batch, _ *Screen, log *zap.Logger) (*submit.Summary, []api.MemoryStats, error) {
	client, err := connect(ctx, c, log)
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	summary, err := batch.Run(ctx, client)
	if err != nil {
		return summary, nil, err
	}
	var stats []api.MemoryStats
	tidy(ctx, log, "read the memory statistics", func(ctx context.Context) (err error) {
		stats, err = client.LatestStats(ctx)
		return err
	})
	return summary, stats, nil
}

// sendLocal runs the batch in this process: a queue on disk, a worker, its engine.
func sendLocal(ctx context.Context, c *config.Config, batch *submit.Batch, screen *Screen, log *zap.Logger) (*submit.Summary, []api.MemoryStats, error) {
	if err := fetchModels(ctx, c, screen, log); err != nil {
		return nil, nil, err
	}
	client, end, err := openLocal(ctx, c, c.Submit.Listen, log)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	if c.Submit.Listen == "" { // nobody else is at work here
		if err := client.Reclaim(ctx, batch.ID); err != nil {
			return nil, nil, err
		}
		if err := nameUnfinished(ctx, client, batch.ID, c.Submit.StoreDir, log); err != nil {
			return nil, nil, err
		}
	}
	n, err := node.Start(ctx, c, client, node.Options{
		Args: EngineArgs(c.Log, screen), Stderr: screen, Batch: batch.ID, ExtraOverhead: jobOverhead.Mul(int64(batch.Len())),
	}, log)
	if err != nil {
		return nil, nil, err
	}
	nameForeign(batch.Models(), n.Worker.Models(), log)
	var summary *submit.Summary
	var stats []api.MemoryStats
	err, workErr := beside(ctx, n.Worker.Run, func(ctx context.Context) (err error) {
		summary, err = batch.Run(ctx, client)
		stats = n.Worker.EachStats()
		return err
	})
	workErr = errors.Join(workErr, n.Close())
	if err != nil {
		return summary, nil, errors.Join(err, workErr)
	}
	if workErr != nil {
		log.Warn("all results are written, but the worker did not end well", zap.Error(workErr))
	}
	tidy(ctx, log, "remove the batch from the queue", func(ctx context.Context) error { return client.RemoveBatch(ctx, batch.ID) })
	return summary, stats, nil
}

// nameForeign names the models of lines that the only local model answers. Where there
// are several, lines for others are refused.
func nameForeign(wanted, served []string, log *zap.Logger) {
	if len(served) != 1 {
		return
	}
	for _, m := range wanted {
		if m != served[0] {
			log.Warn("this model is not here; the local one answers its lines", zap.String("model", m), zap.String("answered_by", served[0]))
		}
	}
}

// jobOverhead is what a queued job takes in this process: its subject and id in the
// embedded server (about 260 bytes in a million jobs), and its marks in submit.
const jobOverhead budget.Bytes = 512

// nameUnfinished names the batches of other runs that wait in the queue's
// directory: this run leaves them alone.
func nameUnfinished(ctx context.Context, client *queue.Client, but, dir string, log *zap.Logger) error {
	batches, err := client.Batches(ctx)
	if err != nil {
		return err
	}
	for _, b := range batches {
		if b.ID != but && !b.Status.Ended() {
			log.Info("a batch of another run is not finished: run its file again with the same settings and model (one of --new cannot be gone on with), or remove the directory, which forgets it",
				zap.String("batch", b.ID), zap.String("file", b.InputFileID), zap.Strings("models", b.Tempo.Models), zap.String("store_dir", dir))
		}
	}
	return nil
}

// beside runs read while work goes on, and then ends work. If work ends first, it
// ends read with work's error as the cause. workErr is nil if err says it already.
func beside(ctx context.Context, work, read func(context.Context) error) (err, workErr error) {
	workCtx, stop := context.WithCancel(ctx)
	defer stop()
	readCtx, endRead := context.WithCancelCause(ctx)
	defer endRead(nil)
	ended := make(chan error, 1)
	go func() {
		err := work(workCtx)
		switch {
		case workCtx.Err() != nil: // it was to end
		case err != nil:
			endRead(fmt.Errorf("the worker ended: %w", err))
		default:
			endRead(errors.New("the worker ended"))
		}
		ended <- err
	}()
	err = read(readCtx)
	stop() // only now, so that the worker's last results are read
	if workErr = <-ended; errors.Is(err, workErr) {
		workErr = nil
	}
	return err, workErr
}

// tidyLimit bounds what is done behind the last result.
const tidyLimit = 10 * time.Second

// tidy does something behind the last result. The user has everything by then, so
// it goes on after Ctrl-C, and its failure is only a warning.
func tidy(ctx context.Context, log *zap.Logger, what string, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyLimit)
	defer cancel()
	if err := do(ctx); err != nil {
		log.Warn("all results are written, but this did not succeed", zap.String("what", what), zap.Error(err))
	}
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
