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
	client, end, err := openLocal(ctx, c, "", log)
	if err != nil {
		return err
	}
	defer end()
	return f(ctx, session{client, c, screen, log})
}

// openLocal starts the queue of --local in this process, and connects to it; end ends both.
// listen is where others reach it, "" = nowhere.
func openLocal(ctx context.Context, c *config.Config, listen string, log *zap.Logger) (_ *queue.Client, end func(), err error) {
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: c.Submit.StoreDir, Listen: listen, SyncAlways: true}, log)
	if err != nil {
		return nil, nil, err
	}
	client, err := queue.ConnectEmbedded(ctx, server, log)
	if err != nil {
		server.Stop()
		return nil, nil, err
	}
	end = func() {
		client.Close()
		server.Stop()
	}
	if err := client.EnsureTopology(ctx, topology(c)); err != nil {
		end()
		return nil, nil, fmt.Errorf("prepare the queue: %w", err)
	}
	return client, end, nil
}
