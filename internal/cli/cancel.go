package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"tempo/internal/config"
	"tempo/internal/queue"
)

// cancelCommand is submit cancel.
func cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel BATCH...",
		Short: "End batches: what is queued is not run, what runs stops",
		Long: `Jobs that are queued end with a result whose error is batch_cancelled; those that run
stop at their next step and end alike. Results that are there stay.`,
		Example: `  submit cancel batch_0123456789abcdef`,
		Args:    takes(1, -1, "one batch or more"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withQueue(cmd, func(ctx context.Context, c session) error {
				for _, id := range args {
					b, err := c.Cancel(ctx, id)
					if err != nil {
						return fmt.Errorf("cancel %s: %w", id, err)
					}
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", id, b.Status); err != nil {
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

// purgeCommand is submit purge.
func purgeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "purge BATCH...",
		Short: "Remove batches that have ended, with their results and dead letters, for good",
		Long: `Gives back what batches take of the queue's storage. One that has not ended is left alone,
unless --force is given; its jobs are gone then without a result.`,
		Example: `  submit purge batch_0123456789abcdef`,
		Args:    takes(1, -1, "one batch or more"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withQueue(cmd, func(ctx context.Context, c session) error {
				for _, id := range args {
					if err := purgeBatch(ctx, c.Client, id, force); err != nil {
						return fmt.Errorf("purge %s: %w", id, err)
					}
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s purged\n", id); err != nil {
						return fmt.Errorf("write to standard output: %w", err)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also one that has not ended")
	config.ManageFlags(cmd.Flags())
	return cmd
}

func purgeBatch(ctx context.Context, c *queue.Client, id string, force bool) error {
	b, err := c.Counts(ctx, id)
	if err != nil {
		return err
	}
	if !b.Status.Ended() && !force {
		return fmt.Errorf("it is %s, with %d of %d results: wait for it or cancel it, or give --force",
			b.Status, b.RequestCounts.Completed+b.RequestCounts.Failed, b.RequestCounts.Total)
	}
	if err := c.DropDeadLetters(ctx, id, ""); err != nil {
		return err
	}
	return c.RemoveBatch(ctx, id)
}
