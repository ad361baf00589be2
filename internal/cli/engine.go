package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"tempo/internal/config"
	"tempo/internal/infer"
	"tempo/internal/infer/local"
)

// EngineName is the name of the hidden command that makes a process an engine.
const EngineName = "engine"

// EngineCommand is that command. A worker starts its own program with it; level
// and format of the log are handed on as arguments.
func EngineCommand() *cobra.Command {
	c := config.Log{}
	cmd := &cobra.Command{
		Use: EngineName, Hidden: true, Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			// The worker decides when an engine ends.
			signal.Ignore(os.Interrupt, syscall.SIGTERM)
			log, err := Logger(c, NewScreen(os.Stderr))
			if err != nil {
				return err
			}
			engine := local.New(log)
			return infer.ServeParent(context.Background(), engine, engine.Broken())
		},
	}
	cmd.Flags().StringVar(&c.Level, "log-level", "info", "")
	cmd.Flags().StringVar(&c.Format, "log-format", "json", "")
	return cmd
}

// EngineArgs are the arguments that make this program an engine which logs like
// c on s.
func EngineArgs(c config.Log, s *Screen) []string {
	format := c.Format
	if format == "auto" {
		format = "json"
		if s.Terminal() {
			format = "console"
		}
	}
	return []string{EngineName, "--log-level", c.Level, "--log-format", format}
}
