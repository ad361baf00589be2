package parallel

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// add adds a set of so many members.
func add(s *Sets, n, over int) {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{Token: int32(100*s.Positions() + i), Probability: 0.5 / float64(i+1), Cell: i, Tag: i}
	}
	s.Add(members, over)
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	at := func(d *api.DynamicThreshold, positions int, position int) float64 {
		return threshold(&api.Parallel{Threshold: 0.2, Dynamic: d}, position, positions)
	}
	require.InDelta(t, 0.2, at(nil, 11, 10), 1e-12)
	linear := &api.DynamicThreshold{Final: 1, Curve: api.CurveLinear}
	for position, want := range map[int]float64{0: 0.2, 5: 0.6, 10: 1, 20: 1} {
		require.InDelta(t, want, at(linear, 11, position), 1e-12)
	}
	require.InDelta(t, 0.2, at(linear, 1, 0), 1e-12, "there is no way to go")
	bezier := &api.DynamicThreshold{Final: 1, Curve: api.CurveBezier, P1: 0.2, P2: 0.8}
	for position, want := range map[int]float64{0: 0.2, 5: 0.6, 10: 1} {
		require.InDelta(t, want, at(bezier, 11, position), 1e-12)
	}
	straight := &api.DynamicThreshold{Final: 1, Curve: api.CurveBezier, P1: 1.0 / 3, P2: 2.0 / 3}
	require.InDelta(t, at(linear, 11, 3), at(straight, 11, 3), 1e-12)
	relu := &api.DynamicThreshold{Final: 0.1, Curve: api.CurveReLU, ActivationPoint: 0.5}
	for position, want := range map[int]float64{0: 0.2, 5: 0.2, 6: 0.18, 10: 0.1} {
		require.InDelta(t, want, at(relu, 11, position), 1e-12)
	}
}

func TestWidest(t *testing.T) {
	t.Parallel()
	down := &api.DynamicThreshold{Final: 0.05, Curve: api.CurveLinear}
	up := &api.DynamicThreshold{Final: 0.9, Curve: api.CurveBezier}
	for _, c := range []struct {
		name string
		o    api.Parallel
		most int
		want int
	}{
		{"what is allowed", api.Parallel{Threshold: 0.01}, 8, 8},
		{"what is asked for", api.Parallel{Threshold: 0.01, MaxTokens: 3}, 8, 3},
		{"no more than is allowed", api.Parallel{Threshold: 0.01, MaxTokens: 30}, 8, 8},
		{"greedy", api.Parallel{Threshold: 1}, 8, 1},
		{"no two are so probable", api.Parallel{Threshold: 0.51, MaxTokens: 4}, 8, 1},
		{"two halves", api.Parallel{Threshold: 0.5}, 8, 2},
		{"thirds", api.Parallel{Threshold: 1.0 / 3}, 8, 3},
		{"thirds, rounded up", api.Parallel{Threshold: 0.33333334}, 8, 3},
		{"not quite thirds", api.Parallel{Threshold: 0.3334}, 8, 2},
		{"tenths", api.Parallel{Threshold: 0.1}, 256, 10},
		{"forty-ninths", api.Parallel{Threshold: 1.0 / 49}, 256, 49},
		{"the lowest there is", api.Parallel{Threshold: api.MinThreshold}, 1 << 20, 10000},
		{"apart while they are decoded", api.Parallel{Threshold: 0.001, Isolate: true}, 256, 64},
		{"apart afterwards", api.Parallel{Threshold: 0.001, Removal: &api.RetroactiveRemoval{}}, 256, 64},
		{"apart in both", api.Parallel{Threshold: 0.001, Isolate: true, Removal: &api.RetroactiveRemoval{}}, 256, 64},
		{"few are apart", api.Parallel{Threshold: 0.001, Removal: &api.RetroactiveRemoval{}}, 8, 8},
		{"it falls", api.Parallel{Threshold: 0.6, Dynamic: down}, 256, 20},
		{"it rises", api.Parallel{Threshold: 0.3, Dynamic: up}, 256, 3},
	} {
		require.Equal(t, c.want, Widest(&c.o, c.most), c.name)
	}
}

func TestWidth(t *testing.T) {
	t.Parallel()
	s := New(&api.Parallel{Threshold: 0.01, MaxTokens: 6}, Limits{Prompt: 10, Positions: 5, Bounded: true, Cells: 30})
	require.Equal(t, 6, s.Width(50))
	require.Equal(t, 3, s.Width(3))
	add(s, 6, 9)
	add(s, 6, 6)
	require.Equal(t, 6, s.Width(50), "8 are left, and two positions to come")
	add(s, 5, 5)
	require.Equal(t, 2, s.Width(50))
	require.False(t, s.Full())
	add(s, 2, 4)
	require.Equal(t, 1, s.Width(50))
	add(s, 1, 4)
	require.True(t, s.Full())
	require.Equal(t, 30, s.Cells())
	r := s.Result(func(int32) []byte { return []byte("x") })
	require.Equal(t, api.ParallelResult{
		Text: "[x/x/x/x/x/x][x/x/x/x/x/x][x/x/x/x/x][x/x]x", Positions: 5, Tokens: 20, MeanWidth: 4, Widest: 6, Cut: 8,
	}, *r)

	s = New(&api.Parallel{Threshold: 0.01}, Limits{Prompt: 10, Positions: 100, Cells: 12})
	require.Equal(t, 2, s.Width(50), "nobody has asked for a number of positions")
	add(s, 1, 1)
	require.False(t, s.Full())
	s.SetCells(11)
	require.True(t, s.Full())
	require.Equal(t, 1, s.Width(50), "never less")
}

// All sets together have no more tokens than there is memory for in the result, be they removed
// or not.
func TestTokens(t *testing.T) {
	t.Parallel()
	s := New(&api.Parallel{Threshold: 0.01}, Limits{Prompt: 10, Positions: 100, Cells: 1000, Tokens: 12})
	require.Equal(t, 6, s.Width(6))
	add(s, 6, 6)
	s.Set(0).Members[0].Removed = true
	s.left--
	require.Equal(t, []int{6, 8}, []int{s.Width(8), s.WidthIn(1000, 8)}, "what was removed counts")
	add(s, 5, 5)
	require.Equal(t, 1, s.Width(8))
	require.False(t, s.Full())
	add(s, 1, 1)
	require.True(t, s.Full())
	require.Equal(t, 1, s.Width(8), "never less")

	s = New(&api.Parallel{Threshold: 0.01}, Limits{Prompt: 10, Positions: 5, Bounded: true, Cells: 1000, Tokens: 9})
	require.Equal(t, 5, s.Width(8), "each position is to have one")
	add(s, 5, 8)
	for range 4 {
		require.False(t, s.Full())
		require.Equal(t, 1, s.Width(8))
		add(s, 1, 1)
	}
	require.True(t, s.Full())

	s = New(&api.Parallel{Threshold: 0.01}, Limits{Prompt: 10, Positions: 5, Bounded: true, Cells: 1000, Tokens: 3})
	for range 3 {
		require.False(t, s.Full())
		require.Equal(t, 1, s.Width(8), "there are fewer than positions")
		add(s, 1, 1)
	}
	require.True(t, s.Full())
}

func TestMostCells(t *testing.T) {
	t.Parallel()
	require.Equal(t, 10+5*8, MostCells(&api.Parallel{Threshold: 0.01}, 10, 5, 8))
	require.Equal(t, 10+5*3, MostCells(&api.Parallel{Threshold: 0.01, MaxTokens: 3}, 10, 5, 8))
	require.Equal(t, 10+5*2, MostCells(&api.Parallel{Threshold: 0.4}, 10, 5, 8))
	require.Equal(t, 12, MostCells(&api.Parallel{Threshold: 0.01, MaxCacheTokens: 12}, 10, 5, 8))
}

func TestAt(t *testing.T) {
	t.Parallel()
	s := New(&api.Parallel{Threshold: 0.01}, Limits{Prompt: 10, Positions: 9, Cells: 100})
	for _, n := range []int{2, 1, 3} {
		add(s, n, n)
	}
	for i, want := range [][2]int{{0, 0}, {0, 1}, {1, 0}, {2, 0}, {2, 1}, {2, 2}} {
		set, number, member := s.At(i)
		require.Same(t, s.Set(want[0]), set)
		require.Equal(t, want, [2]int{number, member})
	}
	require.Equal(t, []int32{0, 1, 100, 200, 201, 202}, slices.Collect(s.Remaining()))
	s.Cut(2)
	require.Equal(t, []int32{0, 1, 100, 200, 201}, slices.Collect(s.Remaining()))
	require.Equal(t, []int{5, 15, 2}, []int{s.Tokens(), s.Cells(), s.Widest()})
	s.Cut(2)
	require.Equal(t, 5, s.Tokens())
	none := func(int32) []byte { return nil }
	require.Equal(t, []int{1, 1}, []int{s.Result(none).Cut, s.Result(none).CutByMemory})
}

// Where there are few cells a set has less than where there are many; what is cut for that is
// told from what the job itself does not want.
func TestShort(t *testing.T) {
	t.Parallel()
	s := New(&api.Parallel{MaxTokens: 6}, Limits{Prompt: 10, Positions: 5, Bounded: true, Cells: 17})
	require.Equal(t, []int{3, 6, 4}, []int{s.Width(50), s.WidthIn(1000, 50), s.WidthIn(1000, 4)})
	add(s, 3, 9)
	s.Short(6 - 3)
	s.Short(-1)
	r := s.Result(func(int32) []byte { return nil })
	require.Equal(t, []int{6, 3}, []int{r.Cut, r.CutByMemory})
}

// What is attended to less than its part goes, by the sums of all later positions; the one
// that is attended to most stays in any case.
func TestJudge(t *testing.T) {
	t.Parallel()
	s := New(&api.Parallel{Removal: &api.RetroactiveRemoval{AttentionThreshold: 0.3, Window: 2}, ReturnSets: true},
		Limits{Prompt: 10, Positions: 9, Cells: 100})
	add(s, 3, 3)
	require.Empty(t, s.Open(), "nobody has come after it")
	add(s, 1, 1)
	require.Equal(t, []int{0}, s.Open())
	attend := func(n int, weights ...float64) {
		for i, w := range weights {
			s.Set(n).Members[i].Attend(w)
		}
	}
	attend(0, 0.3, 0.29, 0.41)
	require.Equal(t, []int{1}, s.Judge(0))
	require.Equal(t, 2, s.Set(0).Left)
	add(s, 2, 2)
	require.Equal(t, []int{0}, s.Open(), "a single token is never removed")
	attend(0, 0, 0, 0.3)
	require.Equal(t, []int{0}, s.Judge(0), "0.3 of 1.01 in all")
	require.Equal(t, int32(2), s.Set(0).First().Token)
	require.Empty(t, s.Open(), "one is left of the first, and nobody has come after the last")
	add(s, 2, 2)
	require.Equal(t, []int{2}, s.Open())
	attend(2, 0, 0)
	require.Empty(t, s.Judge(2), "nothing is known of them")
	add(s, 4, 4)
	s.Set(3).Members[1].Tag = -1
	require.Equal(t, []int{2}, s.Open(), "where one is, is not known")
	add(s, 1, 1)
	require.Equal(t, []int{4}, s.Open(), "the window is over for the third")
	s.Settle()
	require.Empty(t, s.Open())
	r := s.Result(func(int32) []byte { return []byte(" x") })
	require.Equal(t, 2, r.Removed)
	require.Equal(t, " x x [x/x] [x/x] [x/x/x/x] x", r.Text)
	require.Equal(t, []bool{true, true, false}, []bool{r.Sets[0][0].Removed, r.Sets[0][1].Removed, r.Sets[0][2].Removed})
	require.Len(t, r.Thresholds, 6)

	equal := New(&api.Parallel{Removal: &api.RetroactiveRemoval{AttentionThreshold: 1, Window: 2}}, Limits{Prompt: 1, Positions: 9, Cells: 100})
	add(equal, 2, 2)
	add(equal, 1, 1)
	for i := range 2 {
		equal.Set(0).Members[i].Attend(0.5)
	}
	require.Equal(t, []int{1}, equal.Judge(0), "of equal ones the more probable stays")
}
