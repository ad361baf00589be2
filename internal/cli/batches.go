package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/config"
	"tempo/internal/queue"
	"tempo/internal/submit"
)

// sendCommand is submit send.
func sendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send FILE|-",
		Short: "Queue a batch file and return",
		Long: `Queues a batch file as submit run does, prints the batch's ID and returns when every job
is stored. submit wait has the results. Lines that cannot be sent are written to --errors.

Exit codes: 0 all lines are queued, 3 some are refused, 1 failed, 2 wrong usage.`,
		Example: `  id=$(submit send prompts.jsonl)
  submit wait "$id" -o results.jsonl`,
		Args: takes(1, 1, `a batch file, or "-"`),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, screen, log, err := begin(cmd)
			if err != nil {
				return err
			}
			opts, err := submitOptions(c, args, screen)
			if err != nil {
				return err
			}
			opts.Output = cmp.Or(opts.Errors, os.DevNull)
			return sendBatch(cmd, c, opts, log)
		},
	}
	config.SubmitFlags(cmd.Flags())
	hide(cmd.Flags(), "output", "prompt", "local", "listen", "store-dir")
	return cmd
}

// hide leaves flags out of the help that a command does not use.
func hide(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		fs.Lookup(name).Hidden = true
	}
}

func sendBatch(cmd *cobra.Command, c *config.Config, opts submit.Options, log *zap.Logger) error {
	ctx := cmd.Context()
	batch, err := submit.Read(ctx, opts, log)
	if err != nil {
		return err
	}
	defer batch.Close()
	client, err := connect(ctx, c, log)
	if err != nil {
		return err
	}
	defer client.Close()
	summary, err := batch.Send(ctx, client)
	if err != nil {
		return interrupted(ctx, err)
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), batch.ID); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	if summary.BadLines > 0 {
		return ErrSomeFailed
	}
	return nil
}

// waitCommand is submit wait.
func waitCommand() *cobra.Command {
	return readCommand(&cobra.Command{
		Use:     "wait BATCH",
		Short:   "Wait for a batch and write its results",
		Example: `  submit wait batch_0123456789abcdef -o results.jsonl --errors errors.jsonl`,
	}, false)
}

// resultsCommand is submit results.
func resultsCommand() *cobra.Command {
	return readCommand(&cobra.Command{
		Use:     "results BATCH",
		Short:   "Write the results of a batch that are there now",
		Example: `  submit results batch_0123456789abcdef -o so-far.jsonl`,
	}, true)
}

func readCommand(cmd *cobra.Command, now bool) *cobra.Command {
	cmd.Args = takes(1, 1, "a batch")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var summary *submit.Summary
		err := withQueue(cmd, func(ctx context.Context, c session) (err error) {
			opts := submit.Options{Stdout: cmd.OutOrStdout(), Output: c.conf.Submit.Output, Errors: c.conf.Submit.Errors, Quiet: c.conf.Submit.Quiet}
			if c.screen.Terminal() {
				opts.Status = c.screen.Status
			}
			summary, err = submit.Wait(ctx, c.Client, args[0], now, opts, c.log)
			if summary != nil && !c.conf.Submit.Quiet {
				err = errors.Join(err, printSummary(c.screen, summary, nil))
			}
			return interrupted(ctx, err)
		})
		if err == nil && summary.Failed > 0 {
			return ErrSomeFailed
		}
		return err
	}
	config.ManageFlags(cmd.Flags())
	config.ResultFlags(cmd.Flags())
	return cmd
}

// statusCommand is submit status.
func statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [BATCH...]",
		Short: "Show how far batches are",
		Long: `Lists the batches, the newest last, or those that are named. With --json each is OpenAI's
batch object.`,
		Example: `  submit status
  submit status batch_0123456789abcdef --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withQueue(cmd, func(ctx context.Context, c session) error {
				rows, err := statuses(ctx, c.Client, args)
				if err != nil {
					return err
				}
				return printStatuses(cmd.OutOrStdout(), rows, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print batch objects, one in a line")
	config.ManageFlags(cmd.Flags())
	return cmd
}

// standing is a batch, and how many of its jobs have no result yet.
type standing struct {
	api.Batch
	pending int
}

func statuses(ctx context.Context, c *queue.Client, ids []string) (rows []standing, err error) {
	if len(ids) == 0 {
		batches, err := c.Batches(ctx)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(batches, func(a, b api.Batch) int {
			return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		for _, b := range batches {
			ids = append(ids, b.ID)
		}
	}
	for _, id := range ids {
		row := standing{}
		if row.Batch, err = c.Counts(ctx, id); err != nil {
			return nil, err
		}
		if row.pending, err = c.Pending(ctx, id); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func printStatuses(w io.Writer, rows []standing, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		for _, row := range rows {
			if err := e.Encode(row.Batch); err != nil {
				return fmt.Errorf("write to standard output: %w", err)
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, err := fmt.Fprintln(t, "BATCH\tSTATUS\tPRIORITY\tTOTAL\tDONE\tFAILED\tQUEUED\tCREATED\tFILE")
	for _, row := range rows {
		status := string(row.Status)
		if row.Tempo.Paused && row.Status.Runs() {
			status = "paused"
		}
		_, e := fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", row.ID, status, row.Tempo.Priority,
			row.RequestCounts.Total, row.RequestCounts.Completed, row.RequestCounts.Failed, row.pending,
			time.Unix(row.CreatedAt, 0).Format(time.DateTime), row.InputFileID)
		err = errors.Join(err, e)
	}
	return errors.Join(err, t.Flush())
}

// pauseCommand is submit pause.
func pauseCommand() *cobra.Command {
	return change("pause", "Take no more jobs of batches for the time being; those that run go on", "paused", func(b *api.Batch) error {
		if !b.Status.Runs() {
			return fmt.Errorf("it is %s", b.Status)
		}
		b.Tempo.Paused = true
		return nil
	})
}

// resumeCommand is submit resume.
func resumeCommand() *cobra.Command {
	return change("resume", "Take jobs again of batches that were paused", "goes on", func(b *api.Batch) error {
		b.Tempo.Paused = false
		return nil
	})
}

// change is a command that changes the objects of batches.
func change(name, short, done string, how func(*api.Batch) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " BATCH...", Short: short, Args: takes(1, -1, "one batch or more"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withQueue(cmd, func(ctx context.Context, c session) error {
				for _, id := range ids {
					if _, err := c.UpdateBatch(ctx, id, how); err != nil {
						return fmt.Errorf("%s %s: %w", name, id, err)
					}
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", id, done); err != nil {
						return fmt.Errorf("write to standard output: %w", err)
					}
				}
				return nil
			})
		},
	}
	config.ManageFlags(cmd.Flags())
	return cmd
}
