// Package cli is what the commands have in common: signals, exit codes, how an
// error and its hint are printed, the log, and the hidden command that makes a
// process an engine.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of the commands.
const (
	ExitOK         = 0
	ExitFailed     = 1
	ExitUsage      = 2
	ExitSomeFailed = 3
)

// UsageError is an error in how a command was called.
type UsageError struct {
	Command string // whose --help to read, like "submit run"; "" = the program's
	Err     error
}

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

// ErrSomeFailed says that jobs failed whose errors are written; nothing more is
// to be printed.
var ErrSomeFailed = errors.New("some jobs failed")

// Main runs a command and returns its exit code. The command's context is done
// at the first SIGINT or SIGTERM; a second one ends the process at once.
func Main(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal has its usual effect
	return Report(os.Stderr, root.Name(), execute(ctx, root))
}

// execute runs a command and leaves its error to Report.
func execute(ctx context.Context, root *cobra.Command) error {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &UsageError{cmd.CommandPath(), err} })
	return root.ExecuteContext(ctx) //nolint:wrapcheck // cobra hands on the command's own
}

// noArgs refuses arguments, and commands that do not exist.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return &UsageError{cmd.CommandPath(), err}
	}
	return nil
}

// Report prints err with its hints, and returns the exit code for it.
func Report(w io.Writer, name string, err error) int {
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, ErrSomeFailed) {
		return ExitSomeFailed
	}
	if errors.Is(err, errReported) {
		return ExitFailed
	}
	said := map[string]bool{}
	for _, e := range parts(err) {
		fmt.Fprintf(w, "%s: %v\n", name, e)
		var hinted interface{ Hint() string }
		if errors.As(e, &hinted) && hinted.Hint() != "" && !said[hinted.Hint()] {
			said[hinted.Hint()] = true
			fmt.Fprintf(w, "hint: %s\n", hinted.Hint())
		}
	}
	if usage, ok := errors.AsType[*UsageError](err); ok {
		fmt.Fprintf(w, "hint: %s --help\n", cmp.Or(usage.Command, name))
		return ExitUsage
	}
	return ExitFailed
}

// parts takes a joined error apart, so that each fault has its line and hint.
func parts(err error) []error {
	if usage, ok := errors.AsType[*UsageError](err); ok {
		err = usage.Err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() { // one with a text of its own
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, parts(e)...)
	}
	return list
}
