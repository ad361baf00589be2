package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// modelLogits is a row as a model might give it.
func modelLogits(seed uint64, vocab int) []float32 {
	r := rand.New(rand.NewPCG(seed, 7))
	l := make([]float32, vocab)
	for i := range l {
		l[i] = float32(r.NormFloat64())*2 - 3
	}
	for range min(60, vocab) {
		l[r.IntN(vocab)] += float32(r.ExpFloat64()) * 3
	}
	return l
}

// draws returns the next n tokens, all from the same logits.
func draws(t *testing.T, s *Sampler, logits []float32, n int) []int32 {
	t.Helper()
	var all []int32
	for range n {
		p, err := s.Next(logits, nil)
		require.NoError(t, err)
		all = append(all, p.Token)
	}
	return all
}

func TestGreedy(t *testing.T) {
	t.Parallel()
	inf := negInf
	for _, c := range []struct {
		name   string
		o      Options
		logits []float32
		want   int32
	}{
		{"the largest", Options{}, []float32{1, 3, 2}, 1},
		{"of equals the first", Options{}, []float32{1, 3, 3}, 1},
		{"0 and -0 are equal", Options{}, []float32{float32(math.Copysign(0, -1)), 0}, 0},
		{"the only one that may", Options{}, []float32{inf, inf, -1e30}, 2},
		{"bias", Options{Bias: map[int32]float64{2: 1.5}}, []float32{1, 3, 2}, 2},
		{"bias bans", Options{Bias: map[int32]float64{1: -100}}, []float32{-500, 3, -600}, 0},
		{"banned", Options{Ban: []int32{1}}, []float32{1, 3, 2}, 2},
		{"banned whatever the bias", Options{Ban: []int32{1}, Bias: map[int32]float64{1: 50}}, []float32{1, 3, 2}, 2},
		{"filters do not matter", Options{TopK: 1, TopP: 0.1, MinP: 0.9}, []float32{1, 3, 2}, 1},
		{"penalties of nothing", Options{FrequencyPenalty: 2, PresencePenalty: 2, RepeatPenalty: 2}, []float32{1, 3, 2}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, []int32{c.want}, draws(t, New(c.o, len(c.logits)), c.logits, 1))
		})
	}
}

func TestPenalties(t *testing.T) {
	t.Parallel()
	logits := []float32{10, 9, 8.5, -1}
	for _, c := range []struct {
		name string
		o    Options
		want []int32
	}{
		{"off", Options{RepeatPenalty: 1}, []int32{0, 0, 0, 0}},
		{"repeat, once only", Options{RepeatPenalty: 1.15}, []int32{0, 1, 0, 0}},      // 8.70, 7.83
		{"presence, once only", Options{PresencePenalty: 1.2}, []int32{0, 1, 0, 0}},   // 8.8, 7.8
		{"frequency, each time", Options{FrequencyPenalty: 0.7}, []int32{0, 0, 1, 0}}, // 9.3, 8.6; 8.3
		{"negative ones favour", Options{PresencePenalty: -2, Bias: map[int32]float64{0: -0.5}}, []int32{0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, draws(t, New(c.o, 4), logits, 4))
		})
	}
	t.Run("negative logits are multiplied", func(t *testing.T) {
		t.Parallel()
		s := New(Options{RepeatPenalty: 2}, 2)
		require.Equal(t, []int32{0, 1, 0}, draws(t, s, []float32{-1, -1.5}, 3)) // then -2 and -3
	})
}

func TestSameSeedSameTokens(t *testing.T) {
	t.Parallel()
	logits := modelLogits(1, 5000)
	o := Options{Temperature: 1, Seed: 42}
	first := draws(t, New(o, 5000), logits, 50)
	require.Equal(t, first, draws(t, New(o, 5000), logits, 50))
	o.Seed = 43
	require.NotEqual(t, first, draws(t, New(o, 5000), logits, 50))
}

// The draw takes the same random number, and goes the same way, whether or not a filter
// that keeps everything is on.
func TestFiltersThatKeepAll(t *testing.T) {
	t.Parallel()
	logits := modelLogits(2, 20_000)
	want := draws(t, New(Options{Temperature: 1, Seed: 1}, 20_000), logits, 50)
	for _, o := range []Options{{TopK: 20_000}, {TopK: 19_999}, {TopP: 0.9999999999}, {MinP: 1e-30}, {TopP: 1, TopK: 1 << 40}} {
		o.Temperature, o.Seed = 1, 1
		require.Equal(t, want, draws(t, New(o, 20_000), logits, 50), "%+v", o)
	}
}

// The frequencies of many draws are softmax's.
func TestDistribution(t *testing.T) {
	t.Parallel()
	const vocab, n = 600, 200_000
	logits := modelLogits(3, vocab)
	for _, temperature := range []float64{0.5, 1, 3} {
		s := New(Options{Temperature: temperature, Seed: 5}, vocab)
		counts := make([]float64, vocab)
		for _, tok := range draws(t, s, logits, n) {
			counts[tok]++
		}
		var sum float64
		for _, l := range logits {
			sum += math.Exp(float64(l) / temperature)
		}
		// Rare tokens are one class, so that each has enough draws for the test.
		var chi, rare, rareCount float64
		classes := 0
		for tok, l := range logits {
			want := n * math.Exp(float64(l)/temperature) / sum
			if want < 10 {
				rare, rareCount = rare+want, rareCount+counts[tok]
				continue
			}
			chi += (counts[tok] - want) * (counts[tok] - want) / want
			classes++
		}
		if rare > 0 {
			chi += (rareCount - rare) * (rareCount - rare) / rare
			classes++
		}
		// Chi square has mean k and variance 2k: five deviations.
		k := float64(classes - 1)
		require.Less(t, chi, k+5*math.Sqrt(2*k), "temperature %v", temperature)
	}
}

func TestBadLogits(t *testing.T) {
	t.Parallel()
	nan, posInf := float32(math.NaN()), float32(math.Inf(1))
	o := Options{Temperature: 1, TopK: 5, Bias: map[int32]float64{3: 1}}
	for _, vocab := range []int{1, 5, 256, 300, 5000} {
		for _, bad := range []float32{nan, -nan, posInf} {
			for _, at := range []int{0, vocab / 2, vocab - 1} {
				for _, o := range []Options{{}, {Temperature: 1}, {Logprobs: true}, o} {
					logits := modelLogits(4, vocab)
					logits[at] = bad
					before := bitsOf(logits)
					_, err := New(o, vocab).Next(logits, nil)
					require.ErrorIs(t, err, ErrNotNumbers, "%v at %d of %d", bad, at, vocab)
					require.Equal(t, before, bitsOf(logits))
				}
			}
		}
	}
}

func TestNoToken(t *testing.T) {
	t.Parallel()
	_, err := New(Options{}, 2).Next([]float32{negInf, negInf}, nil)
	require.ErrorIs(t, err, ErrNoToken)
	_, err = New(Options{Temperature: 1, Logprobs: true}, 2).Next([]float32{negInf, negInf}, nil)
	require.ErrorIs(t, err, ErrNoToken)
	logits := []float32{1, 2}
	s := New(Options{Ban: []int32{1}, Bias: map[int32]float64{0: -100}}, 2)
	_, err = s.Next(logits, nil)
	require.ErrorIs(t, err, ErrNoToken)
	require.Equal(t, []float32{1, 2}, logits)
	_, err = s.Next([]float32{1}, nil)
	require.EqualError(t, err, "choose a token: 1 logits for a vocabulary of 2 tokens")
}

// evenGrammar allows even tokens, up to a limit.
type evenGrammar struct {
	limit int32
	masks int
}

func (g *evenGrammar) Allows(t int32) bool { return t%2 == 0 && t < g.limit }

func (g *evenGrammar) Filter(tokens []int32) []int32 {
	return slices.DeleteFunc(tokens, func(t int32) bool { return !g.Allows(t) })
}

func (g *evenGrammar) Mask(logits []float32) {
	g.masks++
	for t := range logits {
		if !g.Allows(int32(t)) {
			logits[t] = negInf
		}
	}
}

func TestGrammar(t *testing.T) {
	t.Parallel()
	logits := []float32{1, 5, 2, 4, 3, 0, 9, -1}
	before := slices.Clone(logits)
	s, g := New(Options{}, 8), &evenGrammar{limit: 100}
	p, err := s.Next(logits, g)
	require.NoError(t, err)
	require.Equal(t, int32(6), p.Token)
	require.Zero(t, g.masks, "what it would choose anyway may come")
	g.limit = 6
	p, err = s.Next(logits, g)
	require.NoError(t, err)
	require.Equal(t, int32(4), p.Token)
	require.Zero(t, g.masks, "one of the likeliest may come")
	require.Equal(t, before, logits)
	g.limit = 0
	_, err = s.Next(logits, g)
	require.ErrorIs(t, err, ErrNoToken)
	require.Equal(t, before, logits)
}

// A greedy choice is the likeliest that may come, also where that is far from the likeliest of
// all.
func TestGrammarGreedy(t *testing.T) {
	t.Parallel()
	for _, vocab := range []int{300, 5000, 40_000} {
		for limit := int32(vocab); limit > 0; limit /= 3 {
			logits := modelLogits(uint64(limit), vocab)
			g := &evenGrammar{limit: limit}
			p, err := New(Options{}, vocab).Next(slices.Clone(logits), g)
			require.NoError(t, err)
			g.Mask(logits)
			require.Equal(t, byLikelihood(logits)[0], p.Token, "up to %d of %d", limit, vocab)
		}
	}
}

// Without filters it is drawn again before all is masked, and the distribution is that of what
// may come.
func TestGrammarRedraws(t *testing.T) {
	t.Parallel()
	logits := []float32{1, 3, 0, 1, 2, 2}
	g := &evenGrammar{limit: 6}
	s := New(Options{Temperature: 1, Seed: 1}, len(logits))
	var mass float64
	for i := range logits {
		if g.Allows(int32(i)) {
			mass += math.Exp(float64(logits[i]))
		}
	}
	const draws = 20_000
	count := map[int32]float64{}
	for range draws {
		p, err := s.Next(logits, g)
		require.NoError(t, err)
		count[p.Token]++
	}
	require.Len(t, count, 3)
	for token, n := range count {
		require.InDelta(t, math.Exp(float64(logits[token]))/mass, n/draws, 0.015)
	}
	require.Positive(t, g.masks)
	require.Less(t, g.masks, draws/2)
}

// Drawing again takes the next random number, from what bias, penalties and grammar leave.
func TestGrammarDrawsAgain(t *testing.T) {
	t.Parallel()
	const vocab = 3000
	o := Options{Temperature: 1, TopK: 50, Seed: 3, PresencePenalty: 1, Ban: []int32{2}, Logprobs: true}
	s, n, g := New(o, vocab), newNaive(o), &evenGrammar{limit: vocab}
	again := 0
	for i := range uint64(60) {
		logits := modelLogits(i, vocab)
		p, err := s.Next(logits, g)
		require.NoError(t, err)
		want := n.next(logits)
		if !g.Allows(want.token) {
			again++
			n.seen[want.token]--
			if n.seen[want.token] == 0 {
				delete(n.seen, want.token)
			}
			masked := slices.Clone(logits)
			g.Mask(masked)
			want = n.next(masked)
		}
		require.Equal(t, want.token, p.Token)
		checkLogprobs(t, logits, p, 0)
	}
	require.Greater(t, again, 10, "both ways were taken")
	require.Less(t, again, 50)
	require.Equal(t, 2*again, g.masks, "by the sampler and by the test")
}

func TestLogprobsOfBanned(t *testing.T) {
	t.Parallel()
	logits := []float32{0, float32(math.Log(3)), negInf}
	p, err := New(Options{Logprobs: true, Top: 5, Ban: []int32{1}}, 3).Next(logits, nil)
	require.NoError(t, err)
	require.Equal(t, int32(0), p.Token)
	require.InDelta(t, math.Log(0.25), p.Logprob, 1e-6)
	require.Len(t, p.Top, 2, "what cannot come has no log probability")
	require.Equal(t, int32(1), p.Top[0].Token)
	require.InDelta(t, math.Log(0.75), p.Top[0].Logprob, 1e-6)
}

// Not parallel: all allocations of the process count.
func TestNoAllocations(t *testing.T) {
	for _, vocab := range []int{300, 40_000} {
		logits := modelLogits(6, vocab)
		for _, o := range []Options{
			{},
			{Temperature: 1},
			{Temperature: 0.7, TopK: 40, TopP: 0.9, MinP: 0.05},
			{Temperature: 1, TopP: 0.9},
			{Temperature: 5, TopP: 0.9999},
			{Temperature: 1, TopK: 2000},
			{Temperature: 1, Bias: map[int32]float64{5: 2}, Ban: []int32{6}, Logprobs: true},
		} {
			require.Zero(t, allocations(New(o, vocab), logits), "%+v", o)
		}
		require.InDelta(t, 1, allocations(New(Options{Logprobs: true, Top: 20}, vocab), logits), 0, "the answer's own")
	}
}

func allocations(s *Sampler, logits []float32) float64 {
	return testing.AllocsPerRun(20, func() {
		if _, err := s.Next(logits, nil); err != nil {
			panic(err)
		}
	})
}
