// Bench measures what Tempo costs beside doing without it, in the same run and
// on the same machine, and how well it knows its memory beforehand. It writes the
// ratios to bench/out/NAME.json.
//
//	go run ./bench          all benchmarks
//	go run ./bench path     one
//
// Other work on the machine moves the numbers far: run it on an idle one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"tempo/internal/cli"
)

func main() {
	o := options{out: os.Stdout, log: zap.NewNop()}
	root := &cobra.Command{
		Use:   "bench [NAME…]",
		Short: "Measure Tempo against doing without it",
		RunE:  func(cmd *cobra.Command, names []string) error { return o.run(cmd.Context(), names) },
		// The only commands are hidden, so that names are not taken for misspelt ones.
		Args: cobra.ArbitraryArgs,
	}
	o.flags(root.Flags())
	root.AddCommand(cli.EngineCommand()) // this program is its own engine process too
	os.Exit(cli.Main(root))
}

// options are the flags, and where the tables go.
type options struct {
	out  io.Writer
	log  *zap.Logger
	dir  string // of the files
	runs int    // of each side
	jobs int    // in each run; 0 = as many as the benchmark is defined with
	// layers of a model with random weights that path is run on; 0 = the example model.
	layers int
}

func (o *options) flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.dir, "out", "bench/out", "`directory` of the files")
	fs.IntVar(&o.runs, "runs", 5, "runs of each side, of which the median counts")
	fs.IntVar(&o.layers, "layers", 0, "run path on a generated model of so many layers, 512 wide; 0 = the example model")
	fs.IntVar(&o.jobs, "jobs", 0, "jobs in each run; 0 = as many as the benchmark is defined with")
}

// benchmark is one benchmark under its name.
type benchmark struct {
	name string
	run  func(context.Context, options) ([]row, error)
	show func(io.Writer, string, []row) error
}

func benchmarks() []benchmark {
	return []benchmark{{"path", pathBench, table}, {"queue", queueBench, table}, {"estimate", estimateBench, worst}}
}

// run runs the named benchmarks, all if there are no names.
func (o *options) run(ctx context.Context, names []string) error {
	if o.runs < 1 || o.jobs < 0 {
		return &cli.UsageError{Err: fmt.Errorf("got --runs %d --jobs %d, allowed: 1 or more, and 0 or more", o.runs, o.jobs)}
	}
	all := benchmarks()
	known := make([]string, len(all))
	for i, b := range all {
		known[i] = b.name
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return &cli.UsageError{Err: fmt.Errorf("there is no benchmark %q, there are: %s", name, strings.Join(known, ", "))}
		}
	}
	for _, b := range all {
		if len(names) > 0 && !slices.Contains(names, b.name) {
			continue
		}
		rows, err := b.run(ctx, *o)
		if err != nil {
			return fmt.Errorf("benchmark %s: %w", b.name, err)
		}
		if err := errors.Join(b.show(o.out, b.name, rows), save(o.dir, b.name, rows)); err != nil {
			return err
		}
	}
	return nil
}
