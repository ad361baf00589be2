package show

import "fmt"

// LineError says that a line of the file is no result.
type LineError struct {
	File string
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s:%d: the line is not a result in JSON: %v", e.File, e.Line, e.Err)
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
	Results        int // that the file has
}

func (e *NoSuchIDError) Error() string {
	return fmt.Sprintf("%s: none of its %d results has the custom_id %q", e.File, e.Results, e.CustomID)
}

// NoSetsError says that there is nothing to draw.
type NoSetsError struct {
	File     string
	Choice   Choice
	Results  int  // that were looked at
	Parallel bool // one of them comes from parallel generation, but lists no sets
}

func (e *NoSetsError) Error() string {
	switch {
	case e.Results == 0:
		return e.File + ": there is no result in it"
	case e.Choice.Line > 0:
		return fmt.Sprintf("%s:%d: the result lists no sets", e.File, e.Choice.Line)
	case e.Choice.CustomID != "":
		return fmt.Sprintf("%s: the result %q lists no sets", e.File, e.Choice.CustomID)
	}
	return fmt.Sprintf("%s: none of its %d results lists sets", e.File, e.Results)
}

// Hint says how to get sets.
func (e *NoSetsError) Hint() string {
	switch {
	case e.Results == 0:
		return ""
	case e.Parallel:
		return "ask for return_parallel_sets, or --return-parallel-sets"
	}
	return "only parallel generation has sets: give a selection_threshold, and ask for return_parallel_sets, or --return-parallel-sets"
}
