// Bench measures what Tempo costs beside doing without it, in the same run and
// on the same machine, how well it knows its memory beforehand, and how fast its
// engine is beside llama.cpp's own programs. It writes the ratios to
// bench/out/NAME.json.
//
//	go run ./bench          all benchmarks
//	go run ./bench path     one
//	go run ./bench engine --row 'prefix|mixed'
//	go run ./bench peers    only build what engine is measured against
//
// Other work on the machine moves the numbers far: run it on an idle one.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"tempo/internal/cli"
	"tempo/internal/config"
)

func main() { os.Exit(cli.Main(command())) }

func command() *cobra.Command {
	o := options{out: os.Stdout, log: zap.NewNop()}
	root := &cobra.Command{
		Use:   "bench [NAME…]",
		Short: "Measure Tempo against doing without it",
		RunE:  func(cmd *cobra.Command, names []string) error { return o.run(cmd.Context(), names) },
		// The only commands are hidden, so that names are not taken for misspelt ones.
		Args: cobra.ArbitraryArgs,
	}
	o.flags(root.Flags())
	root.AddCommand(engineProcess(), peersCommand())
	return root
}

// engineProcess is the command that makes this program its own engine process, too.
// It has another name than in the others: here engine is a benchmark.
func engineProcess() *cobra.Command {
	c := cli.EngineCommand()
	c.Use = engineProcessName
	return c
}

const engineProcessName = "engine-process"

// engineArgs are the arguments of such a process.
func engineArgs(log config.Log, s *cli.Screen) []string {
	return append([]string{engineProcessName}, cli.EngineArgs(log, s)[1:]...)
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
	model  string // that engine is run on; "" = one with random weights
	rows   string // regular expression of the rows of engine that are measured; "" = all
}

func (o *options) flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.dir, "out", "bench/out", "`directory` of the files")
	fs.IntVar(&o.runs, "runs", 5, "runs of each side, of which the median counts")
	fs.IntVar(&o.layers, "layers", 0, "run path on a generated model of so many layers, 512 wide; 0 = the example model")
	fs.StringVar(&o.model, "model", "", "`file` that engine is run on; empty = a generated model of 143M parameters")
	fs.StringVar(&o.rows, "row", "", "regular `expression`: measure and print these rows of engine only, and write no file")
	fs.IntVar(&o.jobs, "jobs", 0, "jobs in each run; 0 = as many as the benchmark is defined with")
}

// benchmark is one benchmark under its name.
type benchmark struct {
	name string
	run  func(context.Context, options) ([]row, error)
	show func(io.Writer, string, []row) error
}

func benchmarks() []benchmark {
	return []benchmark{{"path", pathBench, table}, {"queue", queueBench, table}, {"estimate", estimateBench, worst}, {"engine", engineBench, engineTable}, {"same", sameBench, engineTable}, {"parallel", parallelBench, engineTable}}
}

// run runs the named benchmarks, all if there are no names.
func (o *options) run(ctx context.Context, names []string) error {
	if o.runs < 1 || o.jobs < 0 {
		return &cli.UsageError{Err: fmt.Errorf("got --runs %d --jobs %d, allowed: 1 or more, and 0 or more", o.runs, o.jobs)}
	}
	if o.rows != "" && !slices.Equal(names, []string{"engine"}) {
		return &cli.UsageError{Err: fmt.Errorf("got --row %q without engine: only that has rows to choose from", o.rows)}
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
		rows, failed := b.run(ctx, *o)
		if len(rows) > 0 { // also if others failed: what is measured is seen
			if err := b.show(o.out, b.name, rows); err != nil {
				return err
			}
		}
		if failed != nil {
			return fmt.Errorf("benchmark %s: %w", b.name, failed)
		}
		if o.rows != "" {
			continue
		}
		if err := save(o.dir, b.name, rows); err != nil {
			return err
		}
	}
	return nil
}
