package show

import (
	"fmt"
	"strings"

	"tempo/api"
)

// LineError says that a line of the file is no result.
type LineError struct {
	File string
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s:%d: not a result: %v", e.File, e.Line, e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// Hint says what the file must be.
func (e *LineError) Hint() string {
	return "name a file of results, as submit run -o writes it; FILE:LINE reads one line only"
}

// NoSuchLineError says that the file ends before the line that was named.
type NoSuchLineError struct {
	File        string
	Line, Lines int
}

func (e *NoSuchLineError) Error() string {
	return fmt.Sprintf("there is no line %d in %s: it has %d", e.Line, e.File, e.Lines)
}

// NoSuchIDError says that no result of the file has the custom_id that was named.
type NoSuchIDError struct {
	File, CustomID string
	Results        int      // that the file has
	IDs            []string // of the first of them
}

func (e *NoSuchIDError) Error() string {
	return fmt.Sprintf("%s: none of its %d results has the custom_id %q", e.File, e.Results, e.CustomID)
}

// saidIDs is how many custom_ids are said.
const saidIDs = 5

// Hint says which there are.
func (e *NoSuchIDError) Hint() string {
	if len(e.IDs) == 0 {
		return "none of them has a custom_id: choose by the line, FILE:LINE"
	}
	if near := api.Nearest(e.CustomID, e.IDs); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	quoted := make([]string, 0, saidIDs)
	for _, id := range e.IDs[:min(saidIDs, len(e.IDs))] {
		quoted = append(quoted, fmt.Sprintf("%q", id))
	}
	text := "there are " + strings.Join(quoted, ", ")
	if more := e.Results - len(quoted); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// NoSetsError says that there is nothing to draw.
type NoSetsError struct {
	File     string
	Choice   Choice
	Results  int // that were looked at
	Parallel int // of them come from parallel generation
	Empty    int // of these have no position: nothing was generated
	Failed   int // of Results are errors
	// Reason is that of the first error, Advice what it says is to be changed, "" = nothing.
	Reason, Advice string
}

// failed reports whether there are no sets because there are only errors.
func (e *NoSetsError) failed() bool { return e.Failed > 0 && e.Failed == e.Results }

// empty reports whether there are no sets because nothing was generated.
func (e *NoSetsError) empty() bool { return e.Empty > 0 && e.Empty == e.Parallel }

func (e *NoSetsError) Error() string {
	if e.Results == 0 {
		return e.File + ": there is no result in it"
	}
	why := "lists no sets"
	switch {
	case e.failed():
		why = "is an error: " + e.Reason
	case e.empty():
		why = "has no sets: nothing was generated, the answer has 0 positions"
	}
	switch {
	case e.Choice.Line > 0:
		return fmt.Sprintf("%s:%d: the result %s", e.File, e.Choice.Line, why)
	case e.Choice.CustomID != "":
		return fmt.Sprintf("%s: the result %q %s", e.File, e.Choice.CustomID, why)
	case e.failed():
		return fmt.Sprintf("%s: none of its %d results has sets, all are errors; the first: %s", e.File, e.Results, e.Reason)
	case e.empty():
		return fmt.Sprintf("%s: none of its %d results has sets: nothing was generated, the answers have 0 positions", e.File, e.Results)
	}
	return fmt.Sprintf("%s: none of its %d results lists sets", e.File, e.Results)
}

// Hint says how to get sets.
func (e *NoSetsError) Hint() string {
	switch {
	case e.Results == 0:
		return ""
	case e.failed() && e.Advice != "":
		return e.Advice
	case e.failed():
		return "a job that failed has no sets: mend what the error says, and run it again"
	case e.empty():
		return "the model ended the answer at once: ask for min_steps, or --min-steps, or change the prompt"
	case e.Parallel > 0:
		return "ask for return_parallel_sets, or --return-parallel-sets"
	}
	return "only parallel generation has sets: give a selection_threshold, and ask for return_parallel_sets, or --return-parallel-sets"
}
