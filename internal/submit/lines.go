package submit

import (
	"fmt"
	"strconv"
	"strings"

	"tempo/api"
)

// jobID is the id of a line's job.
func jobID(line int) string { return fmt.Sprintf("%08d", line) }

// lineOf returns the line whose job a result of the batch belongs to; -1 if it is
// none that was made here.
func lineOf(batch string, r api.Result) int {
	job, ok := strings.CutPrefix(r.ID, api.ResultID(batch, ""))
	line, err := strconv.Atoi(job)
	if !ok || err != nil {
		return -1
	}
	return line
}

// lines is a set of line numbers, a bit for each, so that a file of any length can
// be followed.
type lines []uint64

func (l *lines) add(line int) {
	for len(*l) <= line/64 {
		*l = append(*l, 0)
	}
	(*l)[line/64] |= 1 << (line % 64)
}

// remove reports whether the line was in the set.
func (l lines) remove(line int) bool {
	if line < 0 || line/64 >= len(l) || l[line/64]&(1<<(line%64)) == 0 {
		return false
	}
	l[line/64] &^= 1 << (line % 64)
	return true
}
