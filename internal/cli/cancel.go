package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"tempo/internal/config"
)

// cancelCommand is submit cancel.
func cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel BATCH...",
		Short: "End batches: what is queued is not run, what runs stops",
		Long: `Jobs that are queued end with a result whose error is batch_cancelled; those that run
stop at their next step and end alike. Results that are there stay.`,
		Example: `  submit cancel batch_0123456789abcdef`,
		Args:    usage(cobra.MinimumNArgs(1)),
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
