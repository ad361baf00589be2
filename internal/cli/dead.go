package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tempo/api"
	"tempo/internal/config"
	"tempo/internal/queue"
)

// deadCommand is submit dead.
func deadCommand() *cobra.Command {
	var asJSON bool
	list := func(cmd *cobra.Command, args []string) error {
		return withQueue(cmd, func(ctx context.Context, c session) error {
			letters, err := deadLetters(ctx, c.Client, append(args, "")[0], nil)
			if err != nil {
				return err
			}
			return printDead(cmd.OutOrStdout(), letters, asJSON)
		})
	}
	root := &cobra.Command{
		Use:   "dead",
		Short: "List, show, send again or drop jobs that were given up",
		Long: `A job that took an engine or a worker with it twice, or was tried too often, is given up:
it becomes a dead letter, and its result is an error that says why. Dead letters are kept
for 90 days.

Jobs are named by their custom_id, or by their ID in the list.`,
		Example: `  submit dead list
  submit dead show batch_0123456789abcdef row-17
  submit dead retry batch_0123456789abcdef
  submit dead drop batch_0123456789abcdef row-17`,
		Args: noArgs,
		RunE: list,
	}
	ls := &cobra.Command{Use: "list [BATCH]", Short: "List dead letters, the oldest first", Args: takes(0, 1, "one batch or none"), RunE: list}
	show := &cobra.Command{
		Use: "show BATCH JOB", Short: "Print a dead letter with every attempt", Args: takes(2, 2, "a batch and a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withQueue(cmd, func(ctx context.Context, c session) error {
				letters, err := deadLetters(ctx, c.Client, args[0], args[1:])
				if err != nil {
					return err
				}
				return printLetter(cmd.OutOrStdout(), letters[0], asJSON)
			})
		},
	}
	for _, sub := range []*cobra.Command{root, ls, show} {
		sub.Flags().BoolVar(&asJSON, "json", false, "print the letters as JSON, one in a line")
	}
	root.AddCommand(ls, show,
		forEach("retry", "Put dead letters into the queue again, as if they had never been tried", "in the queue again", (*queue.Client).Revive),
		forEach("drop", "Remove dead letters for good; their error results stay", "dropped", func(c *queue.Client, ctx context.Context, l api.DeadLetter) error {
			return c.DropDeadLetters(ctx, l.Job.Batch, l.Job.ID)
		}))
	for _, sub := range append(root.Commands(), root) {
		config.ManageFlags(sub.Flags())
	}
	return root
}

// forEach is a command that does something with dead letters of a batch, with all if no job is named.
func forEach(name, short, done string, do func(*queue.Client, context.Context, api.DeadLetter) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " BATCH [JOB...]", Short: short, Args: takes(1, -1, "a batch, and the jobs if not all are meant"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withQueue(cmd, func(ctx context.Context, c session) error {
				letters, err := deadLetters(ctx, c.Client, args[0], args[1:])
				if err != nil {
					return err
				}
				if len(letters) == 0 {
					return printDead(cmd.OutOrStdout(), nil, false)
				}
				for _, l := range letters {
					if err := do(c.Client, ctx, l); err != nil {
						return fmt.Errorf("%s %s: %w", name, l.Job.CustomID, err)
					}
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s/%s %s\n", l.Job.Batch, l.Job.CustomID, done); err != nil {
						return fmt.Errorf("write to standard output: %w", err)
					}
				}
				return nil
			})
		},
	}
}

// takes checks how many arguments a command is given; most < 0: as many as one likes. what names them.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return &UsageError{Command: cmd.CommandPath(), Err: fmt.Errorf("%s takes %s, got %d: %q", cmd.Name(), what, len(args), args)}
		}
		return nil
	}
}

// deadLetters are those of a batch ("" = of all) of the named jobs, or of all if none is named. A
// name that is of none is an error.
func deadLetters(ctx context.Context, c *queue.Client, batch string, names []string) ([]api.DeadLetter, error) {
	var all []api.DeadLetter
	found := map[string]api.DeadLetter{}
	if err := c.DeadLetters(ctx, batch, func(l api.DeadLetter) error {
		all = append(all, l)
		found[l.Job.ID], found[l.Job.CustomID] = l, l
		return nil
	}); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return all, nil
	}
	var named []api.DeadLetter
	for _, name := range names {
		l, ok := found[name]
		if !ok {
			return nil, fmt.Errorf("batch %s has no dead letter of a job %q: submit dead list %s lists them", batch, name, batch)
		}
		named = append(named, l)
	}
	return named, nil
}

func printDead(w io.Writer, letters []api.DeadLetter, asJSON bool) error {
	if asJSON {
		return printLetters(w, letters)
	}
	if len(letters) == 0 {
		_, err := fmt.Fprintln(w, "no dead letters")
		return err //nolint:wrapcheck // of standard output
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, err := fmt.Fprintln(t, "BATCH\tJOB\tCUSTOM ID\tBURIED\tATTEMPTS\tREASON")
	for _, l := range letters {
		_, e := fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n",
			l.Job.Batch, l.Job.ID, l.Job.CustomID, l.Buried.Local().Format(time.DateTime), len(l.Attempts), l.Reason.Code)
		err = errors.Join(err, e)
	}
	return errors.Join(err, t.Flush())
}

func printLetter(w io.Writer, l api.DeadLetter, asJSON bool) error {
	if asJSON {
		return printLetters(w, []api.DeadLetter{l})
	}
	_, err := fmt.Fprintf(w, "Batch:   %s\nJob:     %s\nCustom:  %s\nModel:   %s\nBuried:  %s\nReason:  %s: %s\nRequest: %s %s\nAttempts:\n",
		l.Job.Batch, l.Job.ID, l.Job.CustomID, l.Job.Model, l.Buried.Local().Format(time.DateTime), l.Reason.Code, l.Reason.Message, l.Job.URL, l.Job.Body)
	for i, a := range l.Attempts {
		at, worker := "", a.Worker
		if !a.Time.IsZero() {
			at = a.Time.Local().Format(time.DateTime) + "  "
		}
		if worker == "" {
			worker = "a worker that is not known"
		}
		_, e := fmt.Fprintf(w, "  %d.  %s%s: %s\n", i+1, at, worker, a.Error)
		err = errors.Join(err, e)
	}
	return err
}

func printLetters(w io.Writer, letters []api.DeadLetter) error {
	e := json.NewEncoder(w)
	for _, l := range letters {
		if err := e.Encode(l); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
	}
	return nil
}
