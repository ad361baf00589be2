package plain

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// end is the token that ends a text.
const end = 0

func ends(token int32) bool { return token == end }

// logits are those of probabilities.
func logits(probabilities ...float64) []float32 {
	l := make([]float32, len(probabilities))
	for i, p := range probabilities {
		l[i] = float32(math.Log(p))
	}
	return l
}

func newJob(p api.Parallel, maxTokens int) *api.Request {
	return &api.Request{MaxTokens: maxTokens, Sampling: api.DefaultSampling(), Parallel: &p}
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	linear := &api.DynamicThreshold{Final: 0.9, Curve: api.CurveLinear}
	bezier := &api.DynamicThreshold{Final: 0.9, Curve: api.CurveBezier, P1: 0.2, P2: 0.8}
	bent := &api.DynamicThreshold{Final: 0.9, Curve: api.CurveBezier, P1: 1, P2: 0}
	relu := &api.DynamicThreshold{Final: 0.9, Curve: api.CurveReLU, ActivationPoint: 0.5}
	falling := &api.DynamicThreshold{Final: 0.01, Curve: api.CurveLinear}
	for _, c := range []struct {
		name      string
		dynamic   *api.DynamicThreshold
		maxTokens int
		want      map[int]float64 // by step; of 5 they are at 0, ¼, ½, ¾ and 1
	}{
		{"fixed", nil, 5, map[int]float64{0: 0.1, 2: 0.1, 4: 0.1}},
		{"fixed, no end", nil, 0, map[int]float64{0: 0.1, 100: 0.1}},
		{"linear", linear, 5, map[int]float64{0: 0.1, 1: 0.3, 2: 0.5, 3: 0.7, 4: 0.9}},
		{"linear, one token", linear, 1, map[int]float64{0: 0.1}},
		{"linear, two tokens", linear, 2, map[int]float64{0: 0.1, 1: 0.9}},
		{"falling", falling, 3, map[int]float64{0: 0.1, 1: 0.055, 2: 0.01}},
		// At ¼ 3·(9/16)·¼·0.2 + 3·¾·(1/16)·0.8 + 1/64 = 0.2125, at ¾ it is 1 less that.
		{"bezier", bezier, 5, map[int]float64{0: 0.1, 1: 0.1 + 0.8*0.2125, 2: 0.5, 3: 0.1 + 0.8*0.7875, 4: 0.9}},
		// At ¼ 27/64 + 1/64, at ½ 3/8 + 1/8, at ¾ 9/64 + 27/64.
		{"bezier with extremes", bent, 5, map[int]float64{0: 0.1, 1: 0.45, 2: 0.5, 3: 0.55, 4: 0.9}},
		{"relu", relu, 5, map[int]float64{0: 0.1, 1: 0.1, 2: 0.1, 3: 0.5, 4: 0.9}},
	} {
		for s, want := range c.want {
			got := threshold(newJob(api.Parallel{Threshold: 0.1, Dynamic: c.dynamic}, c.maxTokens), s)
			require.InDelta(t, want, got, 1e-12, "%s, step %d", c.name, s)
		}
	}
}

func TestDistribution(t *testing.T) {
	t.Parallel()
	plain := logits(0.5, 0.25, 0.15, 0.1)
	for _, c := range []struct {
		name   string
		change func(j *api.Request)
		step   int
		want   []float64
	}{
		{"as it is", func(*api.Request) {}, 0, []float64{0.5, 0.25, 0.15, 0.1}},
		{"no end before the second step", func(j *api.Request) { j.Parallel.MinSteps = 1 }, 0, []float64{0, 0.5, 0.3, 0.2}},
		{"and one from there on", func(j *api.Request) { j.Parallel.MinSteps = 1 }, 1, []float64{0.5, 0.25, 0.15, 0.1}},
		{"no end at all", func(j *api.Request) { j.IgnoreEOS = true }, 9, []float64{0, 0.5, 0.3, 0.2}},
		{"a ban", func(j *api.Request) { j.Sampling.LogitBias = map[int32]float64{0: -100, 7: 5} }, 0, []float64{0, 0.5, 0.3, 0.2}},
		{"a bias", func(j *api.Request) { j.Sampling.LogitBias = map[int32]float64{3: math.Log(11)} }, 0, []float64{0.25, 0.125, 0.075, 0.55}},
		{"bias before temperature", func(j *api.Request) {
			j.Sampling.Temperature = 0.5
			j.Sampling.LogitBias = map[int32]float64{0: -100, 1: math.Log(2), 2: -100}
		}, 0, []float64{0, 25. / 26, 0, 1. / 26}},
	} {
		j := newJob(api.Parallel{}, 0)
		c.change(j)
		require.InDeltaSlice(t, c.want, distribution(plain, ends, j, c.step), 1e-6, c.name)
	}
}

// A ban is more than a bias.
func TestBan(t *testing.T) {
	t.Parallel()
	j := newJob(api.Parallel{}, 0)
	for bias, want := range map[float64][]float64{-100: {0, 1}, -99.5: {1, 0}} {
		j.Sampling.LogitBias = map[int32]float64{0: bias}
		require.InDeltaSlice(t, want, distribution([]float32{300, 0}, ends, j, 0), 1e-12, "%v", bias)
	}
}

func TestMix(t *testing.T) {
	t.Parallel()
	behind := [][]float32{logits(0.2, 0.8), logits(0.6, 0.4)}
	members := []Member{{Candidate: Candidate{5, 0.6}}, {Candidate: Candidate{6, 0.2}, Removed: 3}}
	for want, mixing := range map[float64]string{0.3: api.MixWeighted, 0.2: api.MixTop} {
		d := mix(behind, members, ends, newJob(api.Parallel{Mix: mixing}, 0), 1)
		require.InDeltaSlice(t, []float64{want, 1 - want}, d, 1e-6, mixing)
	}
}

func TestWidth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                      string
		inSet, inCache, maxTokens int
		limits                    Limits
		step, used, want          int
	}{
		{"the worker", 0, 0, 0, Limits{8, 100, 100}, 0, 10, 8},
		{"the job", 3, 0, 0, Limits{8, 100, 100}, 0, 10, 3},
		{"the job wants more than the worker has", 30, 0, 0, Limits{8, 100, 100}, 0, 10, 8},
		{"the pool", 0, 0, 0, Limits{8, 14, 100}, 0, 10, 4},
		{"the context", 0, 0, 0, Limits{8, 100, 15}, 0, 10, 5},
		{"the job's bound of cells", 0, 16, 0, Limits{8, 100, 100}, 0, 10, 6},
		{"a bound over the pool", 0, 16, 0, Limits{8, 13, 100}, 0, 10, 3},
		{"a cell for each position to come", 0, 16, 4, Limits{8, 100, 100}, 0, 10, 3},
		{"fewer to come", 0, 16, 4, Limits{8, 100, 100}, 2, 10, 5},
		{"no room at all", 0, 16, 40, Limits{8, 100, 100}, 0, 10, 1},
	} {
		j := newJob(api.Parallel{MaxTokens: c.inSet, MaxCacheTokens: c.inCache}, c.maxTokens)
		require.Equal(t, c.want, width(j, c.limits, c.step, c.used), c.name)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		threshold    float64
		distribution []float64
		width        int
		want         []int32
		cut          int
	}{
		{"over the threshold, by probability", 0.2, []float64{0.1, 0.2, 0.4, 0.3}, 9, []int32{2, 3, 1}, 0},
		{"equal ones by id", 0.1, []float64{0, 0.2, 0.3, 0.2, 0.3}, 9, []int32{2, 4, 1, 3}, 0},
		{"equal ones at the cut", 0.1, []float64{0, 0.25, 0.25, 0.25, 0.25}, 2, []int32{1, 2}, 2},
		{"none", 1, []float64{0, 0.4, 0.2, 0.4}, 9, []int32{1}, 0},
		{"cut", 0.1, []float64{0, 0.1, 0.2, 0.3, 0.4}, 3, []int32{4, 3, 2}, 1},
		{"the end is the first", 0.1, []float64{0.5, 0.3, 0.2}, 9, nil, 0},
		{"the end is the first of none", 1, []float64{0.5, 0.3, 0.2}, 9, nil, 0},
		{"the end is the first of equal ones", 0.1, []float64{0.5, 0.5}, 9, nil, 0},
		{"the end leaves", 0.2, []float64{0.3, 0.4, 0.2, 0.1}, 9, []int32{1, 2}, 0},
		{"the end is not counted as cut", 0.2, []float64{0.3, 0.4, 0.2, 0.1}, 1, []int32{1}, 1},
		{"the end is the only other one", 0.2, []float64{0.3, 0.6, 0.1}, 1, []int32{1}, 0},
	} {
		step, cut := choose(c.distribution, ends, newJob(api.Parallel{Threshold: c.threshold}, 0), Limits{c.width, 100, 100}, 0, 10)
		var got []int32
		for _, m := range step.Members {
			got = append(got, m.Token)
			require.InDelta(t, c.distribution[m.Token], m.Probability, 0, c.name)
		}
		require.Equal(t, c.want, got, c.name)
		require.Equal(t, c.cut, cut, c.name)
	}
}

// The order of equal ones is that of their ids, also where there are many.
func TestEqualCandidates(t *testing.T) {
	t.Parallel()
	distribution := make([]float64, 300)
	for token := range distribution {
		distribution[token] = 0.01 * float64(1+token*7919%11%3)
	}
	all := candidates(distribution, 0.01)
	require.Len(t, all, 300)
	require.True(t, slices.IsSortedFunc(all, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(b.Probability, a.Probability), cmp.Compare(a.Token, b.Token))
	}))
}

func TestBorderline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		threshold float64
		of        []float64
		want      bool
	}{
		{"clear", 0.25, []float64{0.1, 0.4, 0.3, 0.2}, false},
		{"just over", 0.295, []float64{0.1, 0.4, 0.3, 0.2}, true},
		{"just under", 0.305, []float64{0.1, 0.4, 0.3, 0.2}, true},
		{"two of the set are alike", 0.2, []float64{0.35, 0.355, 0.295}, true},
		{"two under the threshold are", 0.5, []float64{0.7, 0.15, 0.15}, false},
		{"two are of which none is over", 0.9, []float64{0.45, 0.46, 0.09}, true},
	} {
		require.Equal(t, c.want, Step{Threshold: c.threshold, Distribution: c.of}.Borderline(0.01), c.name)
	}
}

// set makes a step with a set of so many members.
func set(n int) Step {
	s := Step{Members: make([]Member, n)}
	for m := range s.Members {
		s.Members[m].Token = int32(1 + m)
	}
	return s
}

func TestRemovals(t *testing.T) {
	t.Parallel()
	rule := &api.RetroactiveRemoval{AttentionThreshold: 0.25, Window: 2}
	steps := []Step{set(3), set(1), set(2)}
	// after has another set decoded, which gives that much attention to the members of each.
	after := func(given ...[]float64) []Removal {
		gone := removals(steps[:len(given)+1], rule, func(u, m int) float64 { return given[u][m] })
		for _, g := range gone {
			steps[g.Step].Members[g.Member].Removed = g.After
		}
		return gone
	}
	// 2 of 10, 5 of 10, 3 of 10.
	require.Equal(t, []Removal{{After: 1, Step: 0, Member: 0}}, after([]float64{0.02, 0.05, 0.03}))
	require.InDeltaSlice(t, []float64{0.2}, steps[0].Members[0].Shares, 1e-12)
	// The sums are 6 and 18 of 24: 3 at first and 3 more. What is removed gets nothing.
	require.Empty(t, after([]float64{0.09, 0.13, 0.03}, []float64{0.5}))
	require.InDelta(t, 0.06, steps[0].Members[2].Attention, 1e-12)
	require.InDeltaSlice(t, []float64{0.3, 0.25}, steps[0].Members[2].Shares, 1e-12)
	require.InDelta(t, 0.02, steps[0].Members[0].Attention, 1e-12)
	require.Empty(t, steps[1].Members[0].Shares, "one alone is not looked at")
	// The first set is out of the window.
	steps = append(steps, set(1))
	require.Equal(t, []Removal{{After: 3, Step: 2, Member: 1}}, after([]float64{0, 1, 0}, []float64{1}, []float64{0.08, 0.02}))
	require.Len(t, steps[0].Members[2].Shares, 2)
	// Nothing more happens to a set of which one is left.
	steps = append(steps, set(1))
	require.Empty(t, after(nil, []float64{1}, []float64{0.5, 0}, []float64{1}))
	require.InDelta(t, 0.08, steps[2].Members[0].Attention, 1e-12)
}

func TestRemovalsKeepOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		given []float64
		part  float64
		want  []Removal
	}{
		{"all are below", []float64{0.1, 0.3, 0.2}, 0.9, []Removal{{1, 0, 0}, {1, 0, 2}}},
		{"equal ones: the more probable stays", []float64{0.1, 0.3, 0.3}, 1, []Removal{{1, 0, 0}, {1, 0, 2}}},
		{"just the part stays", []float64{0.25, 0.25, 0.5}, 0.25, nil},
		{"no attention at all", []float64{0, 0, 0}, 0.5, nil},
		{"a part of 0", []float64{0, 0, 1}, 0, nil},
	} {
		got := removals([]Step{set(3), set(1)}, &api.RetroactiveRemoval{AttentionThreshold: c.part, Window: 1},
			func(_, m int) float64 { return c.given[m] })
		require.Equal(t, c.want, got, c.name)
	}
}
