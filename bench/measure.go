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

// compare runs both sides in turn and puts the medians into r. Each round begins
// with the side that came second in the one before, so that a machine that grows
// slower or faster meanwhile treats both alike. A first round is not counted.
func compare(ctx context.Context, r row, runs int, ours, theirs side) (row, error) {
	var rates [2][]float64
	for round := range runs + 1 {
		sides := []side{ours, theirs}
		for turn := range sides {
			which := (turn + round) % 2
			rate, err := sides[which](ctx)
			if err != nil {
				return r, err
			}
			if round > 0 {
				rates[which] = append(rates[which], rate)
			}
		}
	}
	r.Ours, r.Theirs, r.Runs = median(rates[0]), median(rates[1]), runs
	r.Ratio = r.Ours / r.Theirs
	return r, nil
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
