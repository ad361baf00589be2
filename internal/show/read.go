package show

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

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
	File string
	// Results are in the order of the input, at most MaxResults; those that do not say which
	// line of it they answer come last, in the file's order.
	Results []Result
	Left    int // how many more there are
}

// Result is a result and where it stands.
type Result struct {
	api.Result
	Line int // from 1
}

// input is the line of the input that the result answers, to order by.
func (r *Result) input() int {
	if r.Tempo.Line > 0 {
		return r.Tempo.Line
	}
	return math.MaxInt
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
		if result.Result, err = parse(line); err != nil {
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
	all      int      // results
	ids      []string // of the first of them
	looked   int      // of them: those of the choice
	parallel int      // of these: from parallel generation
	empty    int      // of these: nothing was generated
	failed   int      // of those of the choice: errors
	reason   string   // of the first of them, and its hint, "" = it has none
	advice   string
}

// mostIDs is how many custom_ids are kept, to say which there are.
const mostIDs = 1000

func (s *search) take(r Result) {
	s.all++
	if s.choice.CustomID != "" && s.choice.CustomID != r.CustomID {
		if len(s.ids) < mostIDs && r.CustomID != "" {
			s.ids = append(s.ids, r.CustomID)
		}
		return
	}
	s.looked++
	if r.Error != nil || r.Response != nil && !r.OK() {
		s.failed++
		if s.failed == 1 {
			s.reason, s.advice = reasonOf(&r.Result)
		}
		return
	}
	if r.Tempo == nil || r.Tempo.Parallel == nil {
		return
	}
	s.parallel++
	switch {
	case r.Tempo.Parallel.Positions == 0 && len(r.Tempo.Parallel.Sets) == 0:
		s.empty++
	case len(r.Tempo.Parallel.Sets) > 0:
		s.add(r)
	}
}

// add puts a result where it belongs among the others.
func (s *search) add(r Result) {
	at, _ := slices.BinarySearchFunc(s.Results, r, func(have, r Result) int {
		if have.input() <= r.input() {
			return -1
		}
		return 1
	})
	s.Results = slices.Insert(s.Results, at, r)
	if len(s.Results) > MaxResults {
		s.Results = s.Results[:MaxResults]
		s.Left++
	}
}

func (s *search) outcome() (*Found, error) {
	switch {
	case len(s.Results) > 0:
		return &s.Found, nil
	case s.looked == 0 && s.all > 0:
		return nil, &NoSuchIDError{File: s.File, CustomID: s.choice.CustomID, Results: s.all, IDs: s.ids}
	}
	return nil, &NoSetsError{
		File: s.File, Choice: s.choice, Results: s.looked, Parallel: s.parallel, Empty: s.empty,
		Failed: s.failed, Reason: s.reason, Advice: s.advice,
	}
}

// reasonOf is why a job failed, and what to change, as far as the result says.
func reasonOf(r *api.Result) (reason, advice string) {
	var body struct {
		Error api.ErrorDetail `json:"error"`
	}
	switch {
	case r.Error != nil:
		return r.Error.Message, ""
	case json.Unmarshal(r.Response.Body, &body) == nil && body.Error.Message != "":
		return body.Error.Message, body.Error.Hint
	}
	return fmt.Sprintf("status %d", r.Response.StatusCode), ""
}
