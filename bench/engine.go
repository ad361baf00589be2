package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"tempo/internal/cli"
	"tempo/internal/gguf"
)

const commonTokens, ownTokens = 512, 32

// engineBench measures the engine, most of it by the whole path from a batch file
// to a file of results, against what llama.cpp's own programs make of the same
// model and the same libraries.
func engineBench(ctx context.Context, o options) (rows []row, err error) {
	wanted, err := chooseRows(o.rows)
	if err != nil {
		return nil, err
	}
	a, err := openArena(o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if a.peers, err = ensurePeers(ctx, a.libDir, o.out); err != nil {
		return nil, err
	}
	if a.model == "" {
		if a.model, err = a.generated("llama-143m-q8_0", contestModel()); err != nil {
			return nil, err
		}
	}
	// What fails does not take the rest with it: all of it takes long.
	for _, c := range contests() {
		if rivals := c.rivalsOf(wanted); len(rivals) > 0 && ctx.Err() == nil {
			more, failed := a.contest(ctx, c, rivals)
			rows, err = append(rows, more...), errors.Join(err, failed)
		}
	}
	for _, s := range stepTimes() {
		if wanted(s.name) && ctx.Err() == nil {
			more, failed := a.stepTime(ctx, s)
			rows, err = append(rows, more...), errors.Join(err, failed)
		}
	}
	return rows, errors.Join(err, context.Cause(ctx))
}

// contestModel is a model of about 143 million parameters.
func contestModel() gguf.Spec {
	s := gguf.Tiny()
	s.Name = "random 143M"
	s.Layers, s.Heads, s.KVHeads, s.Embedding, s.FeedForward = 12, 12, 4, 768, 2560
	s.Vocab, s.Context, s.Type = 32000, 8192, gguf.Q8_0
	return s
}

// contests are the kinds of work, and the goals against each rival.
func contests() []contest {
	apart := distinct(promptTokens, outTokens, greedy())
	common := prefixed(commonTokens, ownTokens, outTokens)
	rivals := []rival{
		{"batched-bench", 0.97, (*arena).batchedBest},
		{"server-best", 1.08, (*arena).serverBest},
		{"server-default", 1.25, (*arena).serverDefault},
	}
	withPath := append(slices.Clone(rivals), rival{"server-newer", 0, (*arena).serverNewer}, rival{"in-process", 0, (*arena).inProcess})
	best := func(atLeast float64) []rival { return []rival{{"server-best", atLeast, (*arena).serverBest}} }
	const (
		apartText  = "128 tokens in, distinct, and 64 out, greedy"
		commonText = "512 tokens in common and 32 own in, 64 out, greedy"
		mixedText  = "16 to 1,000 tokens in and 8 to 256 out, greedy, a third in groups that begin alike (a sample of 1,000: --jobs 1000 has all)"
		apartSlot  = promptTokens + outTokens
		commonSlot = commonTokens + ownTokens + outTokens
	)
	return []contest{
		{"distinct-16", apartText, 16, 64, 16, apartSlot, apart, withPath},
		{"distinct-32", apartText, 32, 96, 32, apartSlot, apart, rivals},
		// What a slot of llama-server remembers of its last job counts here.
		{"prefix-16", commonText, 16, 64, 32, commonSlot, common, best(2)},
		{"prefix-32", commonText, 32, 64, 48, commonSlot, common, best(2.5)},
		{"mixed-16", mixedText, 16, 48, 16, longestPrompt + longestAnswer, mixed, best(1.5)},
	}
}

// chooseRows makes a predicate of a regular expression, which must match the name
// of a row.
func chooseRows(expression string) (func(string) bool, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, &cli.UsageError{Err: fmt.Errorf("got --row %q: %w", expression, err)}
	}
	if names := rowNames(); !slices.ContainsFunc(names, re.MatchString) {
		return nil, &cli.UsageError{Err: fmt.Errorf("got --row %q, there are: %s", expression, strings.Join(names, ", "))}
	}
	return re.MatchString, nil
}

// rowNames are the names of all rows.
func rowNames() (names []string) {
	for _, c := range contests() {
		for _, r := range c.rivals {
			names = append(names, c.name+"/"+r.name)
		}
	}
	for _, s := range stepTimes() {
		names = append(names, s.name)
	}
	return names
}

// engineTable prints a line for each row, and what its name stands for.
func engineTable(w io.Writer, name string, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\n%s\tunit\tours\ttheirs\tratio\tgoal\truns\n", name)
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f\t%.3f\t%s\t%d\n", r.name, r.Unit, r.Ours, r.Theirs, r.Ratio, r.goal(), r.Runs)
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print %s: %w", name, err)
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "%s: %s\n  against %s\n", r.name, r.Work, r.Against); err != nil {
			return fmt.Errorf("print %s: %w", name, err)
		}
	}
	return nil
}
