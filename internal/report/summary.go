// Package report shows people what happened.
package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/submit"
)

// Memory prints a worker's memory by line, the estimate beside the measurement.
func Memory(w io.Writer, s api.MemoryStats) error {
	fmt.Fprintf(w, "\nMemory of worker %s on %s, model %s\n", s.Worker, s.Device, s.Model)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\testimate\tmeasured\t")
	for _, line := range []struct {
		name               string
		estimate, measured int64
	}{
		{"weights", s.Estimate.Weights, s.Weights},
		{"KV cache", s.Estimate.KVCache, s.KVCache},
		{"parallel batch", s.Estimate.ParallelBatch, s.ParallelBatch},
		{"overhead", s.Estimate.Overhead, s.Overhead},
		{"total", s.Estimate.Total(), s.Total()},
		{"peak", s.Estimate.Total(), s.Peak},
		{"limit", s.Limit, s.Limit},
	} {
		fmt.Fprintf(t, "  %s\t%v\t%v\t\n", line.name, budget.Bytes(line.estimate), budget.Bytes(line.measured))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the memory breakdown: %w", err)
	}
	fmt.Fprintf(w, "  at most %d tokens in the KV cache, %d tokens a step\n", s.MaxCacheTokens, s.MaxParallelTokens)
	return nil
}

// Batch prints how many jobs went how, at what rate, and where the results are.
func Batch(w io.Writer, s submit.Summary) error {
	fmt.Fprintf(w, "\nBatch %s: %d succeeded, %d failed", s.Batch, s.Succeeded, s.Failed)
	if s.BadLines > 0 {
		fmt.Fprintf(w, " (%d of them never sent)", s.BadLines)
	}
	if s.Resumed > 0 {
		fmt.Fprintf(w, ", %d of an earlier run", s.Resumed)
	}
	if s.Tokens > 0 {
		fmt.Fprintf(w, "\n%d tokens generated at %.0f tokens/s, %.1f s in all\n", s.Tokens, s.TokensPerSecond, s.Seconds)
	} else {
		fmt.Fprint(w, "\nnothing was generated\n")
	}
	if s.Narrowed > 0 {
		fmt.Fprintf(w, "%s sets that memory made narrower: %s, or lower --max-parallel-tokens\n", answersHave(s.Narrowed), ampler(s))
	}
	if s.Output != "-" {
		fmt.Fprintf(w, "results: %s\n", s.Output)
	}
	if s.Failed > 0 && s.Errors != "" {
		fmt.Fprintf(w, "errors:  %s\n", s.Errors)
	}
	return nil
}

// ampler is what gives sets more room.
func ampler(s submit.Summary) string {
	if s.OfCache == s.Narrowed {
		return "raise the worker's --max-cache-tokens (it held less than half of its memory limit)"
	}
	return "raise the worker's --max-memory-gb (and --max-cache-tokens, if it is given)"
}

func answersHave(n int) string {
	if n == 1 {
		return "1 answer has"
	}
	return fmt.Sprintf("%d answers have", n)
}
