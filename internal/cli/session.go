package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tempo/internal/config"
	"tempo/internal/queue"
)

// session is a queue that was opened for a command, with what the command was told.
type session struct {
	*queue.Client
	conf   *config.Config
	screen *Screen
	log    *zap.Logger
}

// withQueue calls f with the queue that the flags name: that of --local is opened for it.
func withQueue(cmd *cobra.Command, f func(context.Context, session) error) error {
	c, screen, log, err := beginQuietly(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if !c.Submit.Local {
		client, err := connect(ctx, c, log)
		if err != nil {
			return err
		}
		defer client.Close()
		return f(ctx, session{client, c, screen, log})
	}
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: c.Submit.StoreDir, SyncAlways: true}, log)
	if err != nil {
		return err
	}
	defer server.Stop()
	client, err := queue.ConnectEmbedded(ctx, server, log)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EnsureTopology(ctx, topology(c)); err != nil {
		return fmt.Errorf("prepare the queue: %w", err)
	}
	return f(ctx, session{client, c, screen, log})
}
