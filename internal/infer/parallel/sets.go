package parallel

import (
	"iter"
	"slices"

	"tempo/api"
)

// Sets are those of one job, in the order of their positions. Its tokens in the KV cache are
// the prompt's and the members that are left, set by set.
type Sets struct {
	o         *api.Parallel
	positions int // most there may be
	bounded   bool
	cells     int // most tokens that the job may have
	tokens    int // most that all sets may have, whatever is left of them; 0 = no bound
	prompt    int // of cells

	sets       []Set
	thresholds []float64
	left       int // members of all sets that were not removed
	made       int // all of them
	cut        int
	short      int // of them, for want of memory
	judged     int // sets before this one stay as they are
}

// Set is the tokens at one position.
type Set struct {
	Members []Member // the most probable first
	Left    int      // that were not removed
}

// Member is a token of a set.
type Member struct {
	Token       int32
	Removed     bool
	Probability float64
	// Cell is where its keys and values are in the pool, Tag the sequence that has nothing
	// else at its position; -1 = not known, and the set stays as it is.
	Cell, Tag int
	attended  float64 // by the positions after it
}

// Limits are what bounds a job's sets beside its own wishes.
type Limits struct {
	Prompt    int  // tokens
	Positions int  // most that there may be after the prompt
	Bounded   bool // because the job asks for so many: each is to have a cell
	Cells     int  // most tokens in the KV cache; see Sets.SetCells
	Tokens    int  // most that all sets may have, whether they are removed later or not; 0 = no bound
}

// New returns sets for a job.
func New(o *api.Parallel, l Limits) *Sets {
	return &Sets{o: o, positions: l.Positions, bounded: l.Bounded, prompt: l.Prompt, cells: l.Cells, tokens: l.Tokens}
}

// MostCells is how many cells a job could come to that has at most so many positions of
// at most width tokens after the prompt.
func MostCells(o *api.Parallel, prompt, positions, width int) int {
	most := prompt + positions*Widest(o, width)
	if o.MaxCacheTokens > 0 {
		most = min(most, o.MaxCacheTokens)
	}
	return most
}

// SetCells changes how many cells the job may have.
func (s *Sets) SetCells(n int) { s.cells = n }

// Positions is how many sets there are.
func (s *Sets) Positions() int { return len(s.sets) }

// Tokens is how many tokens were generated, whether they are left or not.
func (s *Sets) Tokens() int { return s.made }

// Last is the newest set; there must be one.
func (s *Sets) Last() *Set { return &s.sets[len(s.sets)-1] }

// Cells is how many tokens the job has, the prompt's and those that are left, in the KV cache or
// about to be.
func (s *Sets) Cells() int { return s.prompt + s.left }

// Cut takes the least probable members from the newest set, which is not in the cache yet, until
// at most width are left, for which there is memory.
func (s *Sets) Cut(width int) {
	e := s.Last()
	if over := len(e.Members) - width; over > 0 {
		e.Members, e.Left = e.Members[:width], width
		s.left -= over
		s.made -= over
		s.cut += over
		s.short += over
	}
}

// Widest is how many tokens the largest set has.
func (s *Sets) Widest() int {
	widest := 0
	for _, e := range s.sets {
		widest = max(widest, len(e.Members))
	}
	return widest
}

// WidestLeft is how many tokens are left of the set that has most left.
func (s *Sets) WidestLeft() int {
	widest := 0
	for _, e := range s.sets {
		widest = max(widest, e.Left)
	}
	return widest
}

// Threshold is how probable a token must be for the next set.
func (s *Sets) Threshold() float64 { return threshold(s.o, len(s.sets), s.positions) }

// MayEnd reports whether the answer may end at the next position.
func (s *Sets) MayEnd() bool { return len(s.sets) >= s.o.MinSteps }

// Width is how many tokens the next set may have, where the engine lets it have so many: at
// least one.
func (s *Sets) Width(most int) int {
	if s.tokens > 0 {
		most = min(most, s.beside(s.tokens-s.made))
	}
	return s.WidthIn(s.cells, most)
}

// WidthIn is Width where the job may have so many cells, and as many tokens as it likes.
func (s *Sets) WidthIn(cells, most int) int {
	return max(1, min(Widest(s.o, most), s.beside(cells-s.prompt-s.left)))
}

// beside is what the next set may have of so much room: if the job asks for a number of
// positions, each of those after it is to have a token.
func (s *Sets) beside(room int) int {
	if s.bounded {
		room -= s.positions - len(s.sets) - 1
	}
	return room
}

// Add adds a set, of tokens that are left of so many that were probable enough.
func (s *Sets) Add(members []Member, over int) {
	s.thresholds = append(s.thresholds, s.Threshold())
	s.sets = append(s.sets, Set{Members: members, Left: len(members)})
	s.left += len(members)
	s.made += len(members)
	s.cut += max(0, over-len(members))
}

// Short notes that so many tokens of those that the newest set was cut by had a place, had there
// been more memory.
func (s *Sets) Short(n int) { s.short += max(0, n) }

// Full reports whether there can be no other set.
func (s *Sets) Full() bool {
	return len(s.sets) >= s.positions || s.prompt+s.left >= s.cells || s.tokens > 0 && s.made >= s.tokens
}

// Remaining are the tokens of all sets that were not removed, in their order.
func (s *Sets) Remaining() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for _, e := range s.sets {
			for _, m := range e.Members {
				if !m.Removed && !yield(m.Token) {
					return
				}
			}
		}
	}
}

// At returns the set that has the i-th of the job's tokens behind the prompt, its number,
// and which of the members that are left it is.
func (s *Sets) At(i int) (set *Set, number, member int) {
	first := s.left
	for n, e := range slices.Backward(s.sets) {
		if first -= e.Left; i >= first {
			return &s.sets[n], n, i - first
		}
	}
	return nil, 0, 0
}

// Settle has all sets stay as they are, since what is known of them is not so any more.
func (s *Sets) Settle() { s.judged = len(s.sets) }

// Open are the numbers of the sets that the newest one, which is in the cache, may take tokens
// from: those of the window with several tokens left of which the cells are known.
func (s *Sets) Open() []int {
	if s.o.Removal == nil {
		return nil
	}
	last := len(s.sets) - 1
	var open []int
	for n := max(s.judged, last-s.o.Removal.Window); n < last; n++ {
		e := s.sets[n]
		known := !slices.ContainsFunc(e.Members, func(m Member) bool { return !m.Removed && m.Tag < 0 })
		if e.Left > 1 && known {
			open = append(open, n)
		}
	}
	return open
}

// Doubted are the members of the open sets that were not removed.
func (s *Sets) Doubted() iter.Seq[*Member] {
	return func(yield func(*Member) bool) {
		for _, n := range s.Open() {
			for i := range s.sets[n].Members {
				if m := &s.sets[n].Members[i]; !m.Removed && !yield(m) {
					return
				}
			}
		}
	}
}

// Set is the n-th set.
func (s *Sets) Set(n int) *Set { return &s.sets[n] }

// Attend notes how much the newest set attends to a member.
func (m *Member) Attend(weight float64) { m.attended += weight }

// Judge returns the members of the n-th set that hardly anything attends to, which are removed
// now. The one that is attended to most stays.
func (s *Sets) Judge(n int) (removed []int) {
	e := &s.sets[n]
	total, most := 0.0, -1
	for i, m := range e.Members {
		if m.Removed {
			continue
		}
		total += m.attended
		if most < 0 || m.attended > e.Members[most].attended {
			most = i
		}
	}
	for i := range e.Members {
		m := &e.Members[i]
		if !m.Removed && i != most && m.attended < s.o.Removal.AttentionThreshold*total {
			m.Removed = true
			e.Left--
			s.left--
			removed = append(removed, i)
		}
	}
	return removed
}

// First is the most probable member that is left.
func (e *Set) First() *Member {
	i := slices.IndexFunc(e.Members, func(m Member) bool { return !m.Removed })
	return &e.Members[i]
}
