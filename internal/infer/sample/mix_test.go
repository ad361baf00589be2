package sample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// mixed is the mixture by its definition, in double precision: a probability for each token,
// nil if there is a row in which no token may come.
func mixed(rows [][]float32, weights []float64, o MixOptions, ban []int32) []float64 {
	n := newNaive(Options{Bias: o.Bias, Ban: ban})
	mix := make([]float64, len(rows[0]))
	var total float64
	for _, w := range weights {
		total += w
	}
	for i, row := range rows {
		row = n.change(row)
		top := float64(slices.Max(row))
		if math.IsInf(top, -1) {
			return nil
		}
		inverse := math.Ln2 * exponents(o.Temperature)
		var mass float64
		for _, l := range row {
			mass += math.Exp((float64(l) - top) * inverse)
		}
		for t, l := range row {
			mix[t] += weights[i] / total * math.Exp((float64(l)-top)*inverse) / mass
		}
	}
	return mix
}

// mixer is what a mixture is asked for.
type mixer struct {
	rows      [][]float32
	weights   []float64
	threshold float64
	most      int
	ban       []int32
}

func mixerOf(r *rand.Rand, vocab, rows int) mixer {
	q := mixer{threshold: choice(r, 1e-4, 0.001, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 1, max(r.Float64(), 1e-4))}
	q.most = choice(r, 1, 2, 5, 16, vocab, vocab+5)
	same := logitsOf(r, vocab)
	alike := r.IntN(2) == 0
	for range rows {
		row := logitsOf(r, vocab)
		if alike { // as the rows of one job are
			row = slices.Clone(same)
			for range 5 {
				row[r.IntN(vocab)] += float32(r.NormFloat64())
			}
		}
		q.rows = append(q.rows, row)
		q.weights = append(q.weights, choice(r, 1, 0.5, 0.5, 1e-6, 30, 1-r.Float64()))
	}
	if r.IntN(2) == 0 { // the likeliest of some row, and others
		q.ban = []int32{int32(slices.Index(same, slices.Max(same))), int32(r.IntN(vocab)), -1, int32(vocab)}
		q.ban = append(q.ban, q.ban[1])
	}
	return q
}

func mixOptionsOf(r *rand.Rand, vocab int) MixOptions {
	o := MixOptions{Temperature: choice(r, 1, 1, 1, 0.7, 1e-30, 0.1, 2, 100)}
	if r.IntN(2) == 0 {
		o.Bias = map[int32]float64{}
		for range r.IntN(10) {
			o.Bias[int32(r.IntN(vocab+2)-1)] = choice(r, -100, -101, 100, 5, r.Float64())
		}
	}
	return o
}

// near is by how much what is calculated may be off, relatively.
const near = 1e-6

// checkMixture has mixtures of all levels choose some sets, and compares each with the definition.
func checkMixture(t *testing.T, r *rand.Rand, vocab, most int) {
	t.Helper()
	o := mixOptionsOf(r, vocab)
	var mixtures []*Mixture
	for _, l := range levels() {
		m := NewMixture(o, vocab)
		m.level = l
		mixtures = append(mixtures, m)
	}
	for range 3 {
		q := mixerOf(r, vocab, 1+r.IntN(most))
		want := mixed(q.rows, q.weights, o, q.ban)
		before := make([][]uint32, len(q.rows))
		for i, row := range q.rows {
			before[i] = bitsOf(row)
		}
		var first []Candidate
		for _, m := range mixtures {
			set, all, err := m.Next(q.rows, q.weights, q.threshold, q.most, q.ban)
			for i, row := range q.rows {
				require.True(t, slices.Equal(before[i], bitsOf(row)), "the logits are as before")
			}
			if want == nil {
				require.ErrorIs(t, err, ErrNoToken)
				continue
			}
			require.NoError(t, err)
			isSet(t, want, q, set, all)
			if first != nil {
				require.Equal(t, first, set, "the levels agree")
			}
			first = slices.Clone(set)
		}
	}
}

// isSet checks a set against the probabilities of all tokens.
func isSet(t *testing.T, want []float64, q mixer, set []Candidate, all int) {
	t.Helper()
	sure, perhaps := 0, 0
	for _, p := range want {
		if p >= q.threshold*(1+near) {
			sure++
		}
		if p >= q.threshold*(1-near) {
			perhaps++
		}
	}
	require.GreaterOrEqual(t, all, max(sure, 1))
	require.LessOrEqual(t, all, max(perhaps, 1))
	require.Len(t, set, min(all, q.most))
	require.True(t, slices.IsSortedFunc(set, likelier), "%v", set)
	in := map[int32]bool{}
	for _, c := range set {
		require.InEpsilon(t, want[c.Token], c.Probability, near, "token %d", c.Token)
		require.LessOrEqual(t, c.Probability, 1.0)
		in[c.Token] = true
	}
	require.Len(t, in, len(set), "each token once")
	last := set[len(set)-1]
	for token, p := range want {
		if in[int32(token)] || len(set) == all && p < q.threshold {
			continue
		}
		if int32(token) < last.Token && sameInAll(q.rows, int32(token), last.Token) {
			require.NotEqual(t, want[last.Token], p, "token %d is left out for its equal %d", token, last.Token)
		}
		require.LessOrEqual(t, p, last.Probability*(1+2*near), "token %d is left out", token)
	}
}

// sameInAll reports whether two tokens have the same logit in each row.
func sameInAll(rows [][]float32, a, b int32) bool {
	for _, row := range rows {
		if row[a] != row[b] {
			return false
		}
	}
	return true
}

func TestMixtureAgainstDefinition(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vocab, rows int
		cases       uint64
	}{
		{1, 50, 50},
		{2, 50, 200},
		{100, 50, 150},
		{256, 20, 100},
		{4097, 50, 8},
		{49_152, 3, 8},
		{49_152, 50, 1},
	} {
		t.Run(fmt.Sprintf("%d tokens, %d rows", c.vocab, c.rows), func(t *testing.T) {
			t.Parallel()
			for i := range c.cases {
				checkMixture(t, rand.New(rand.NewPCG(uint64(c.vocab), i)), c.vocab, c.rows)
			}
		})
	}
}

func FuzzMixture(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, uint16(i*97), uint8(i))
	}
	f.Fuzz(func(t *testing.T, seed uint64, vocab uint16, rows uint8) {
		checkMixture(t, rand.New(rand.NewPCG(seed, 1)), int(vocab%5000)+1, int(rows%20)+1)
	})
}

// logs are logits that give these probabilities.
func logs(probabilities ...float64) []float32 {
	var l []float32
	for _, p := range probabilities {
		l = append(l, float32(math.Log(p)))
	}
	return l
}

func TestMixtureSets(t *testing.T) {
	t.Parallel()
	tokens := func(all ...int32) []int32 { return all }
	row := logs(0.1, 0.4, 0.2, 0.3)
	for _, c := range []struct {
		name    string
		o       MixOptions
		rows    [][]float32
		weights []float64
		t       float64
		most    int
		ban     []int32
		want    []int32
		all     int
	}{
		{"over the threshold", MixOptions{}, [][]float32{row}, []float64{1}, 0.19, 9, nil, tokens(1, 3, 2), 3},
		{"all", MixOptions{}, [][]float32{row}, []float64{1}, 1e-4, 9, nil, tokens(1, 3, 2, 0), 4},
		{"cut", MixOptions{}, [][]float32{row}, []float64{1}, 0.19, 2, nil, tokens(1, 3), 3},
		{"none", MixOptions{}, [][]float32{row}, []float64{1}, 0.5, 9, nil, tokens(1), 1},
		{"greedy", MixOptions{}, [][]float32{row, logs(0, 0, 1, 0)}, []float64{1, 9}, 1, 9, nil, tokens(2), 1},
		{"certain", MixOptions{}, [][]float32{logs(0, 1), logs(0, 1)}, []float64{0.1, 0.2}, 1, 9, nil, tokens(1), 1},
		{"exactly the threshold", MixOptions{}, [][]float32{{2, 2, 2, 2}}, []float64{3}, 0.25, 9, nil, tokens(0, 1, 2, 3), 4},
		{"equals, cut", MixOptions{}, [][]float32{{1, 2, 2, 2}}, []float64{3}, 0.01, 2, nil, tokens(1, 2), 4},
		{"equals below", MixOptions{}, [][]float32{{2, 2, 2, 2}}, []float64{3}, 0.26, 9, nil, tokens(0), 1},
		{"weights", MixOptions{}, [][]float32{logs(0.9, 0.1), logs(0.2, 0.8)}, []float64{6, 2}, 0.2, 9, nil, tokens(0, 1), 2},
		{"likeliest of no row", MixOptions{}, [][]float32{logs(0.6, 0, 0.4), logs(0, 0.6, 0.4)}, []float64{1, 1}, 0.9, 9, nil, tokens(2), 1},
		{"temperature", MixOptions{Temperature: 0.1}, [][]float32{row}, []float64{1}, 0.1, 9, nil, tokens(1), 1},
		{"bias", MixOptions{Bias: map[int32]float64{0: 3}}, [][]float32{row, row}, []float64{1, 2}, 0.5, 9, nil, tokens(0), 1},
		{"bias bans", MixOptions{Bias: map[int32]float64{1: -100}}, [][]float32{row, row}, []float64{1, 2}, 0.3, 9, nil, tokens(3, 2), 2},
		{"bans", MixOptions{Bias: map[int32]float64{1: 9}}, [][]float32{row}, []float64{1}, 0.5, 9, tokens(1, 7, 1, -1), tokens(3), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.o.Temperature == 0 {
				c.o.Temperature = 1
			}
			var rows [][]float32
			for _, r := range c.rows {
				rows = append(rows, slices.Clone(r)) // they are changed in place
			}
			set, all, err := NewMixture(c.o, len(rows[0])).Next(rows, c.weights, c.t, c.most, c.ban)
			require.NoError(t, err)
			var got []int32
			for _, s := range set {
				got = append(got, s.Token)
			}
			require.Equal(t, c.want, got)
			require.Equal(t, c.all, all)
		})
	}
}

// Tokens that end are left out of sets and of their number, unless the most probable one is one.
func TestMixtureEnds(t *testing.T) {
	t.Parallel()
	left, alone := 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		vocab := 1 + r.IntN(40)
		o := mixOptionsOf(r, vocab)
		plain := NewMixture(o, vocab)
		for range 4 {
			o.Ends = append(o.Ends, int32(r.IntN(vocab)))
		}
		ending := NewMixture(o, vocab)
		q := mixerOf(r, vocab, 1+r.IntN(4))
		all, _, err := plain.Next(q.rows, q.weights, q.threshold, vocab, q.ban)
		got, n, gotErr := ending.Next(q.rows, q.weights, q.threshold, q.most, q.ban)
		require.Equal(t, err, gotErr)
		if err != nil {
			continue
		}
		ends := func(c Candidate) bool { return slices.Contains(o.Ends, c.Token) }
		want := slices.Clone(all)
		if ends(all[0]) {
			want = want[:1]
			alone++
		} else if want = slices.DeleteFunc(want, ends); len(want) < len(all) {
			left++
		}
		require.Len(t, want, n)
		require.Equal(t, want[:min(n, q.most)], got)
	}
	require.Greater(t, left, 20)
	require.Greater(t, alone, 20)
}

// A token that is just as probable as the threshold is found, however the logit that this takes is
// rounded.
func TestMixtureAtTheThreshold(t *testing.T) {
	t.Parallel()
	third := float32(1) / 3
	for name, q := range map[string]mixer{
		"nearly equal logits": {rows: [][]float32{{0, -1e-20, -5}}, weights: []float64{1}},
		"equal rows":          {rows: [][]float32{{third, -2, 0}, {third, -2, 0}, {third, -2, 0}}, weights: []float64{0.1, 0.7, 0.3}},
		"a small logit":       {rows: [][]float32{{1e-3, 1e-12, 1e-3 - 1e-8}}, weights: []float64{0.3}},
	} {
		for _, l := range levels() {
			m := NewMixture(MixOptions{Temperature: 1}, 3)
			m.level = l
			set, _, err := m.Next(q.rows, q.weights, 1e-4, 3, nil)
			require.NoError(t, err)
			found := slices.Clone(set)
			for _, c := range found {
				_, all, err := m.Next(q.rows, q.weights, c.Probability, 3, nil)
				require.NoError(t, err)
				want := 0
				for _, o := range found {
					if o.Probability >= c.Probability {
						want++
					}
				}
				require.Equal(t, want, all, "%s: token %d of %v", name, c.Token, found)
			}
		}
	}
}

// A ban and a bias that stays hold for their call and for all of them.
func TestMixtureForgetsBans(t *testing.T) {
	t.Parallel()
	m := NewMixture(MixOptions{Temperature: 1, Bias: map[int32]float64{0: -100}}, 3)
	for _, c := range []struct{ ban, want []int32 }{{[]int32{2}, []int32{1}}, {nil, []int32{2}}} {
		set, _, err := m.Next([][]float32{{5, 1, 3}}, []float64{1}, 1, 1, c.ban)
		require.NoError(t, err)
		require.Equal(t, c.want[0], set[0].Token)
	}
}

func TestMixtureErrors(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	fine := []float32{1, 2, 3}
	m := NewMixture(MixOptions{Temperature: 1, Bias: map[int32]float64{0: 1.7}}, 3)
	for _, c := range []struct {
		name    string
		rows    [][]float32
		weights []float64
		most    int
		ban     []int32
		want    string
	}{
		{"no rows", nil, nil, 1, nil, "0 weights for 0 rows"},
		{"a weight too few", [][]float32{fine, fine}, []float64{1}, 1, nil, "1 weights for 2 rows"},
		{"another vocabulary", [][]float32{fine, {1}}, []float64{1, 1}, 1, nil, "1 logits for a vocabulary of 3 tokens"},
		{"no weight", [][]float32{fine}, []float64{0}, 1, nil, "the weight of row 0 is 0"},
		{"a weight that is no number", [][]float32{fine}, []float64{nan}, 1, nil, "the weight of row 0 is NaN"},
		{"an endless weight", [][]float32{fine}, []float64{inf}, 1, nil, "the weights are more"},
		{"no room", [][]float32{fine}, []float64{1}, 0, nil, "at most 0 tokens"},
		{"not a number", [][]float32{fine, {1, float32(nan), 1}}, []float64{1, 1}, 1, nil, ErrNotNumbers.Error()},
		{"endless", [][]float32{fine, {1, 2, float32(inf)}}, []float64{1, 1}, 1, nil, ErrNotNumbers.Error()},
		{"banned and endless", [][]float32{fine, {1, 2, float32(inf)}}, []float64{1, 1}, 1, []int32{2}, ErrNotNumbers.Error()},
		{"no token in a row", [][]float32{fine, {negInf, negInf, negInf}}, []float64{1, 1}, 1, nil, ErrNoToken.Error()},
		{"all banned", [][]float32{fine}, []float64{1}, 1, []int32{2, 0, 1, 0}, ErrNoToken.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before [][]uint32
			for _, row := range c.rows {
				before = append(before, bitsOf(row))
			}
			_, _, err := m.Next(c.rows, c.weights, 0.5, c.most, c.ban)
			require.ErrorContains(t, err, c.want)
			for i, row := range c.rows {
				require.Equal(t, before[i], bitsOf(row))
			}
		})
	}
}

// What a softmax divides by is right within half a millionth whatever the row, and the same
// bits at all levels.
func TestMass(t *testing.T) {
	t.Parallel()
	check := func(logits []float32, temperature, within float64) {
		t.Helper()
		scale, tops := exponents(temperature), make([]float32, (len(logits)+blockSize-1)/blockSize)
		top, want := float64(slices.Max(logits)), 0.0
		for _, l := range logits {
			want += math.Exp((float64(l) - top) * scale * math.Ln2)
		}
		var first float64
		for _, l := range levels() {
			got, numbers := l.scanMass(logits, scale, tops)
			require.True(t, numbers)
			require.Equal(t, topsOf(logits), tops)
			require.InEpsilon(t, want, got, within, "%d logits", len(logits))
			if l == 0 {
				first = got
			}
			require.Equal(t, math.Float64bits(first), math.Float64bits(got))
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		logits := logitsOf(r, 1+r.IntN(3000))
		check(logits, choice(r, 1, 0.7, 1e-30, 100, 2, 0.1+r.Float64()), 4e-7)
	}
	// All but one are equal, so that no rounding evens another out, and the scale lies between
	// two numbers of single precision. Differences from 0 are exact.
	logits := make([]float32, 1<<16)
	for i := range 100 {
		from, below, within := 30*r.NormFloat64(), 14*r.Float64(), 4e-7
		if i%2 == 0 {
			from, within = 0, 2e-7
		}
		for i := range logits {
			logits[i] = float32(from - below)
		}
		logits[r.IntN(len(logits))] = float32(from)
		check(logits, choice(r, 1, math.Log2E/(1+0x1p-24)), within)
	}
}

// Not parallel: all allocations of the process count.
func TestMixtureAllocatesNothing(t *testing.T) {
	const vocab = 40_000
	rows, weights := make([][]float32, 8), make([]float64, 8)
	for i := range rows {
		rows[i], weights[i] = modelLogits(uint64(i), vocab), 1/float64(1+i)
	}
	m := NewMixture(MixOptions{Temperature: 1, Bias: map[int32]float64{5: 2}}, vocab)
	ban := []int32{3, 4}
	for _, threshold := range []float64{1e-4, 0.05, 1} {
		require.Zero(t, testing.AllocsPerRun(20, func() {
			if _, _, err := m.Next(rows, weights, threshold, 16, ban); err != nil {
				panic(err)
			}
		}))
	}
}
