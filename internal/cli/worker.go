package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tempo/internal/config"
	"tempo/internal/node"
	"tempo/internal/queue"
	"tempo/internal/submit"
)

// Worker is the worker command.
func Worker() *cobra.Command {
	root := &cobra.Command{
		Use:   "worker",
		Short: "Take jobs from the queue and answer them",
		Long: `Takes jobs from the queue and answers them with llama.cpp, within a memory limit.
The first Ctrl-C drains: no more jobs are taken, running ones end or go back to the
queue. A second one ends at once; then jobs go to other workers after 30 s.`,
		Args: noArgs,
		RunE: runWorker,
	}
	config.WorkerFlags(root.Flags())
	run := &cobra.Command{Use: "run", Short: root.Short, Long: root.Long, Args: noArgs, RunE: runWorker}
	config.WorkerFlags(run.Flags())
	root.AddCommand(run, doctorCommand(), memoryTestCommand(), setupCommand(), EngineCommand())
	return root
}

func runWorker(cmd *cobra.Command, _ []string) error {
	ctx := cmd.Context()
	c, screen, log, err := begin(cmd)
	if err != nil {
		return err
	}
	client, err := connect(ctx, c, log)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := fetchModels(ctx, c, screen, log); err != nil {
		return stopped(ctx, err)
	}
	n, err := node.Start(ctx, c, client, node.Options{Args: EngineArgs(c.Log, screen), Stderr: screen}, log)
	if err != nil {
		return stopped(ctx, err)
	}
	log.Info("ready for jobs", zap.String("worker", c.Engine.WorkerName))
	return stopped(ctx, errors.Join(n.Worker.Run(ctx), n.Close()))
}

// begin reads the configuration and starts the log.
func begin(cmd *cobra.Command) (*config.Config, *Screen, *zap.Logger, error) {
	c, err := load(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	return startLog(c)
}

// load reads the configuration.
func load(cmd *cobra.Command) (*config.Config, error) {
	c, err := config.Load(cmd.Flags(), os.Environ())
	if err != nil {
		return nil, &UsageError{Command: cmd.CommandPath(), Err: err}
	}
	return c, nil
}

// startLog starts the log on standard error.
func startLog(c *config.Config) (*config.Config, *Screen, *zap.Logger, error) {
	screen := NewScreen(os.Stderr)
	log, err := Logger(c.Log, screen)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(c.Unused) > 0 {
		log.Warn("keys of TEMPO's that have no effect here", zap.Strings("keys", c.Unused))
	}
	return c, screen, log, nil
}

// connect connects to the queue of the configuration.
func connect(ctx context.Context, c *config.Config, log *zap.Logger) (*queue.Client, error) {
	client, err := queue.Connect(ctx, queueOptions(c), log)
	if err != nil {
		return nil, err
	}
	if err := client.EnsureTopology(ctx, topology(c)); err != nil {
		client.Close()
		return nil, fmt.Errorf("prepare the queue: %w", err)
	}
	return client, nil
}

func queueOptions(c *config.Config) queue.Options {
	return queue.Options{
		URL: c.NATS.Server, Creds: c.NATS.Creds, User: c.NATS.User, Password: c.NATS.Password, NKey: c.NATS.NKey,
		TLSCert: c.NATS.TLSCert, TLSKey: c.NATS.TLSKey, TLSCA: c.NATS.TLSCA, Name: c.Engine.WorkerName,
	}
}

// errInterrupted says that the user stopped the command before it had done its work.
var errInterrupted = errors.New("interrupted")

// interrupted replaces errors that only say that the user stopped the command.
func interrupted(ctx context.Context, err error) error {
	var known *submit.InterruptedError
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.As(err, &known) {
		return errInterrupted
	}
	return err
}

// stopped drops the errors that only say that the user stopped the command.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// topology is what the configuration says of the streams.
func topology(c *config.Config) queue.Topology {
	kept, _ := c.NATS.Kept() // it was checked
	return queue.Topology{ResultsMaxAge: kept}
}
