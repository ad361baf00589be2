package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"tempo/internal/budget"
)

// row is one comparison. Ratio is ours over theirs where more is better, theirs
// over ours where less is; the goal is a Ratio of AtLeast, 0 = none yet. Against
// "bound" theirs is the most that is allowed.
type row struct {
	Work    string  `json:"work"`
	Against string  `json:"against"`
	Unit    string  `json:"unit"`
	Ours    float64 `json:"ours"`
	Theirs  float64 `json:"theirs"`
	Ratio   float64 `json:"ratio"`
	AtLeast float64 `json:"at_least"`
	Runs    int     `json:"runs"`

	name string // short, for the table; "" = none
}

// file is bench/out/NAME.json.
type file struct {
	Machine machine   `json:"machine"`
	Date    time.Time `json:"date"`
	Rows    []row     `json:"rows"`
}

type machine struct {
	CPU         string       `json:"cpu"`
	MemoryBytes budget.Bytes `json:"memory_bytes"`
	System      string       `json:"system"`
	Go          string       `json:"go"`
}

// side does the work once and returns its rate.
type side func(ctx context.Context) (float64, error)

// compare runs both sides in turn and puts the medians into r.
func compare(ctx context.Context, r row, runs int, ours, theirs side) (row, error) {
	medians, err := takeTurns(ctx, runs, ours, theirs)
	if err != nil {
		return r, err
	}
	return r.with(medians[0], medians[1], runs), nil
}

// with is the row with the medians of so many runs.
func (r row) with(ours, theirs float64, runs int) row {
	r.Ours, r.Theirs, r.Runs = ours, theirs, runs
	r.Ratio = ours / theirs
	return r
}

// takeTurns runs all sides in turn and returns the medians of their rates, in the
// order of the sides. Each round begins with the side that came second in the one
// before, so that a machine that grows slower or faster meanwhile treats all
// alike. A first round is not counted.
func takeTurns(ctx context.Context, runs int, sides ...side) ([]float64, error) {
	rates := make([][]float64, len(sides))
	for round := range runs + 1 {
		for turn := range sides {
			which := (turn + round) % len(sides)
			rate, err := sides[which](ctx)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				rates[which] = append(rates[which], rate)
			}
		}
	}
	medians := make([]float64, len(sides))
	for i, list := range rates {
		medians[i] = median(list)
	}
	return medians, nil
}

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// table prints the rows for people.
func table(w io.Writer, name string, rows []row) error {
	for _, r := range rows {
		fmt.Fprintf(w, "\n%s: %s\n  against %s, medians of %d runs\n", name, r.Work, r.Against, r.Runs)
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "\tours\ttheirs\tratio\tgoal\t\n  %s\t%.1f\t%.1f\t%.3f\t%s\t\n", r.Unit, r.Ours, r.Theirs, r.Ratio, r.goal())
		if err := t.Flush(); err != nil {
			return fmt.Errorf("print %s: %w", name, err)
		}
	}
	return nil
}

func (r row) goal() string {
	switch {
	case r.AtLeast == 0:
		return "none yet"
	case r.Ratio >= r.AtLeast:
		return fmt.Sprintf("%.2f, reached", r.AtLeast)
	}
	return fmt.Sprintf("%.2f, missed", r.AtLeast)
}

// save writes dir/name.json.
func save(dir, name string, rows []row) error {
	dev, _, err := budget.Discover(budget.DiscoverOptions{WantGPU: budget.CPUID})
	if err != nil {
		return fmt.Errorf("describe the machine: %w", err)
	}
	content, err := json.MarshalIndent(file{
		Machine: machine{CPU: dev.Name, MemoryBytes: dev.Total, System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()},
		Date:    time.Now().UTC().Truncate(time.Second),
		Rows:    rows,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
