package show

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"tempo/api"
)

// MaxResults is how many results a page has at most.
const MaxResults = 200

// Choice says which results of a file are wanted; without any, all that list sets.
type Choice struct {
	Line     int    // of the file, from 1; 0 = not by line
	CustomID string // "" = not by custom_id
}

// Found are results that list sets.
type Found struct {
	File    string
	Results []Result // at most MaxResults, in the file's order
	Left    int      // how many more there are
}

// Result is a result and where it stands.
type Result struct {
	api.Result
	Line int // from 1
}

// Read finds results with sets in a file of results, one in JSON on a line. name is what
// errors call the file. It returns *[LineError], *[NoSuchLineError], *[NoSuchIDError] or
// *[NoSetsError]. With Choice.Line no other line is looked at.
func Read(r io.Reader, name string, c Choice) (*Found, error) {
	s := search{Found: Found{File: name}, choice: c}
	lines, number := bufio.NewReaderSize(r, 64<<10), 0
	for ended := false; !ended && (c.Line == 0 || number < c.Line); {
		line, err := lines.ReadBytes('\n')
		if ended = errors.Is(err, io.EOF); err != nil && !ended {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if len(line) == 0 { // behind the last one
			break
		}
		number++
		if line = bytes.TrimSpace(line); c.Line > 0 && number < c.Line || c.Line == 0 && len(line) == 0 {
			continue
		}
		result := Result{Line: number}
		if err := json.Unmarshal(line, &result.Result); err != nil {
			return nil, &LineError{File: name, Line: number, Err: err}
		}
		s.take(result)
	}
	if number < c.Line {
		return nil, &NoSuchLineError{File: name, Line: c.Line, Lines: number}
	}
	return s.outcome()
}

// search is what Read has seen so far.
type search struct {
	Found
	choice   Choice
	all      int // results
	looked   int // of them: those of the choice
	parallel bool
}

func (s *search) take(r Result) {
	s.all++
	if s.choice.CustomID != "" && s.choice.CustomID != r.CustomID {
		return
	}
	s.looked++
	if r.Tempo == nil || r.Tempo.Parallel == nil {
		return
	}
	s.parallel = true
	switch {
	case len(r.Tempo.Parallel.Sets) == 0:
	case len(s.Results) == MaxResults:
		s.Left++
	default:
		s.Results = append(s.Results, r)
	}
}

func (s *search) outcome() (*Found, error) {
	switch {
	case len(s.Results) > 0:
		return &s.Found, nil
	case s.looked == 0 && s.all > 0:
		return nil, &NoSuchIDError{File: s.File, CustomID: s.choice.CustomID, Results: s.all}
	}
	return nil, &NoSetsError{File: s.File, Choice: s.choice, Results: s.looked, Parallel: s.parallel}
}
