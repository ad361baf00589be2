package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"text/tabwriter"

	"tempo/internal/budget"
	"tempo/internal/cli"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/setup"
)

// estimateBench compares what an engine says that a model and its cache will take,
// before anything is allocated, with what llama.cpp allocates then and with what
// the system says of the engine's process after the warm-up. Each shape has an
// engine process of its own.
func estimateBench(ctx context.Context, o options) ([]row, error) {
	dir, err := os.MkdirTemp("", "tempo-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	found, err := setup.Locate("")
	if found == nil || found.LlamaLib == "" { // the model may be missing
		return nil, fmt.Errorf("find libraries: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	screen := cli.NewScreen(os.Stderr)
	command := append([]string{program}, engineArgs(config.Log{Level: "error", Format: "auto"}, screen)...)
	var rows []row
	t := newEstimateTable(o.out)
	for _, c := range trials(found.Model) {
		var pid atomic.Int64
		host := infer.NewHost(infer.HostOptions{
			Command: command, Stderr: screen,
			OnProcess: func(p int, alive bool) {
				if alive {
					pid.Store(int64(p))
				}
			},
		}, o.log)
		got, err := c.try(ctx, host, dir, found.LlamaLib, func() (budget.Bytes, error) {
			return budget.ProportionalSetSize(int(pid.Load()))
		})
		if err = errors.Join(err, host.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		t.add(c, got)
		rows = append(rows, got.rows(c)...)
	}
	return rows, t.flush()
}

// outcome is a trial's estimate and what became of it.
type outcome struct {
	estimate  budget.Footprint // of the dry run; Overhead is the process before anything is loaded
	allocated budget.Footprint // llama.cpp's buffers
	layers    budget.Bytes     // the cache, summed up over the layers that the file describes
	process   budget.Bytes     // the engine's process after the warm-up
}

// try writes the trial's model if it needs one, asks engine for an estimate,
// loads, and measures the engine's process.
func (c trial) try(ctx context.Context, engine infer.Engine, dir, lib string, measure func() (budget.Bytes, error)) (outcome, error) {
	var out outcome
	path := c.file
	if path == "" {
		path = filepath.Join(dir, "model.gguf")
		if err := gguf.WriteFile(path, c.model); err != nil {
			return out, err
		}
		defer os.Remove(path)
	}
	var err error
	if out.layers, err = c.byLayers(path); err != nil {
		return out, err
	}
	// One thread: it changes nothing in what is allocated, and does not wait for
	// others where the machine has other work.
	facts, err := engine.Open(ctx, infer.Spec{
		Layout: "unified", // what takes most, with most models
		Model:  path, LibDir: lib, GPU: -1, Threads: 1, Batch: c.batch, CacheTypeK: c.typeK, CacheTypeV: c.typeV,
	})
	if err != nil {
		return out, err
	}
	shape := infer.Shape{Sequences: c.sequences, Cells: c.cells}
	if out.estimate, err = engine.DryRun(ctx, shape); err != nil {
		return out, err
	}
	out.estimate.Overhead = facts.Process
	if out.allocated, err = engine.Load(ctx, shape); err != nil {
		return out, err
	}
	out.process, err = measure()
	return out, err
}

// byLayers is the size of the cache as the file's keys have it.
func (c trial) byLayers(path string) (budget.Bytes, error) {
	h, err := gguf.ReadHeader(path)
	if err != nil {
		return 0, err
	}
	k, okK := gguf.CacheType(c.typeK)
	v, okV := gguf.CacheType(c.typeV)
	if !okK || !okV {
		return 0, fmt.Errorf("a cache of %s and %s is not known", c.typeK, c.typeV)
	}
	var sum budget.Bytes
	for _, l := range h.LayerMemory(k, v) {
		if !l.KVKnown() {
			return 0, fmt.Errorf("what the layers of %s keep is not known", h.Architecture)
		}
		sum = sum.Add(budget.Bytes(l.CacheBytes(gguf.CacheShape{Cells: c.cells, Sequences: c.sequences, Batch: c.batch, FullWindow: true})))
	}
	return sum, nil
}

// part is one line of an outcome: estimated, real, and the error that is allowed in
// percent.
type part struct {
	name            string
	estimated, real budget.Bytes
	bound           float64
}

// parts are what is compared. The overhead that a worker books beyond these is an
// allowance for what comes later, so it is no part of the estimate here.
func (o outcome) parts() []part {
	return []part{
		{"weights", o.estimate.Weights, o.allocated.Weights, 2},
		{"KV", o.estimate.KVCache, o.allocated.KVCache, 2},
		{"KV by layers", o.layers, o.allocated.KVCache, 2},
		{"compute", o.estimate.ParallelBatch, o.allocated.ParallelBatch, 10},
		{"total", o.estimate.Total(), o.process, 10},
	}
}

// percent is how far the estimate is from what is real; below 0 it is too small.
func (p part) percent() float64 {
	return 100 * (float64(p.estimated)/float64(p.real) - 1)
}

// leastError is the smallest error that counts, in percent: llama.cpp tells sizes
// with two decimals of a MiB, and a row divides by it.
const leastError = 0.01

// rows are the errors without their signs beside their bounds.
func (o outcome) rows(c trial) []row {
	var rows []row
	for _, p := range o.parts() {
		ours := max(math.Abs(p.percent()), leastError)
		rows = append(rows, row{
			Work: p.name + " of " + c.String(), Against: "bound", Unit: "% error",
			Ours: ours, Theirs: p.bound, Ratio: p.bound / ours, AtLeast: 1, Runs: 1,
		})
	}
	return rows
}

// estimateTable shows estimates beside what became of them, in MiB.
type estimateTable struct{ w *tabwriter.Writer }

func newEstimateTable(w io.Writer) estimateTable {
	t := estimateTable{tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
	fmt.Fprint(t.w, "\nestimate: MiB estimated from the file, MiB allocated, error in %\n")
	fmt.Fprint(t.w, "shape\t")
	for _, p := range (outcome{}).parts() {
		if p.name == "total" {
			fmt.Fprint(t.w, "total\tprocess\t%\t")
			continue
		}
		fmt.Fprintf(t.w, "%s\treal\t%%\t", p.name)
	}
	fmt.Fprintln(t.w)
	return t
}

func (t estimateTable) add(c trial, o outcome) {
	fmt.Fprintf(t.w, "%s\t", c)
	for _, p := range o.parts() {
		fmt.Fprintf(t.w, "%.1f\t%.1f\t%+.2f\t", float64(p.estimated)/float64(budget.MiB), float64(p.real)/float64(budget.MiB), p.percent())
	}
	fmt.Fprintln(t.w)
}

func (t estimateTable) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("print estimate: %w", err)
	}
	return nil
}

// worst prints the rows with the largest error of each part, and those that are
// out of bounds.
func worst(w io.Writer, name string, rows []row) error {
	missed := 0
	largest := map[float64]row{} // by bound
	for _, r := range rows {
		if r.Ratio < r.AtLeast {
			missed++
			fmt.Fprintf(w, "%s: %s: %.2f %% error, allowed are %.0f %%\n", name, r.Work, r.Ours, r.Theirs)
		}
		if r.Ours > largest[r.Theirs].Ours {
			largest[r.Theirs] = r
		}
	}
	for _, bound := range []float64{2, 10} {
		if r, ok := largest[bound]; ok {
			fmt.Fprintf(w, "%s: largest error where %.0f %% are allowed: %.2f %%, %s\n", name, bound, r.Ours, r.Work)
		}
	}
	_, err := fmt.Fprintf(w, "%s: %d of %d out of bounds\n", name, missed, len(rows))
	if err != nil {
		return fmt.Errorf("print %s: %w", name, err)
	}
	return nil
}
