package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// All levels compute the same bits, those of the definition, at every length of a row's
// end.
func TestLevelsAgree(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 4, 5, 8, 31, 255, 256, 257, 511, 700} {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			logits := logitsOf(r, n)
			tops := topsOf(logits)
			top := slices.Max(tops)
			if top == negInf {
				continue
			}
			scale := scaleOf(choice(r, 1, 0.3, 1e-30, 50))
			order := byLikelihood(logits)
			kept := order[:1+r.IntN(len(order))]
			last := kept[len(kept)-1]
			sums, weights, total := blocksOf(logits, kept, scale)
			for _, l := range levels() {
				gotTops, gotSums, gotWeights := make([]float32, len(tops)), make([]uint64, len(tops)), make([]uint64, len(tops))
				require.True(t, l.scan(logits, gotTops))
				require.Equal(t, tops, gotTops)
				p := prefix{logits[last], last}
				l.sums(logits, gotTops, top, scale, p, gotSums)
				require.Equal(t, total, l.weigh(gotTops, gotSums, top, scale, gotWeights))
				require.Equal(t, weights, gotWeights)
				for b, w := range weights {
					if w > 0 {
						require.Equal(t, sums[b], gotSums[b])
					}
				}
				tokens, values := listOf(logits, kept)
				l.listSums(tokens, values, n, gotTops, scale, p, gotSums)
				require.Equal(t, sums, gotSums)
			}
		}
	}
}

// listOf has the kept tokens in the order of the vocabulary.
func listOf(logits []float32, kept []int32) ([]int32, []float32) {
	tokens := slices.Sorted(slices.Values(kept))
	var values []float32
	for _, t := range tokens {
		values = append(values, logits[t])
	}
	return tokens, values
}

// The weights are e^x, closely.
func TestWeighIsExponential(t *testing.T) {
	t.Parallel()
	var x []float32
	for v := float32(0); v > -11; v -= 1.0 / 4096 {
		x = append(x, v)
	}
	for _, l := range levels() {
		w := make([]uint64, len(x))
		l.weigh(x, nil, 0, scaleOf(1), w)
		for i, v := range x {
			require.InEpsilon(t, math.Exp(float64(v)), float64(w[i])/(1<<40), 1e-6, "%v", v)
		}
		require.Equal(t, uint64(1)<<40, w[0])
	}
}

// What has the logit is marked, whatever the row's end, beside what was.
func TestMark(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 8, 63, 64, 65, 255, 256, 257, 511, 700} {
		for seed := range uint64(10) {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			logits := logitsOf(r, n)
			tops := topsOf(logits)
			least := choice(r, logits[r.IntN(n)], -math.MaxFloat32, negInf, slices.Max(tops))
			want := make([]uint64, len(tops)*blockSize/64)
			want[0] = 1
			for token, l := range logits {
				if l >= least && l > negInf {
					want[token/64] |= 1 << (token % 64)
				}
			}
			for _, l := range levels() {
				got := make([]uint64, len(want))
				got[0] = 1
				l.mark(logits, tops, least, got)
				require.Equal(t, want, got, "%d logits from %v", n, least)
			}
		}
	}
}

// What a row adds to a mixture is right within a third of a millionth, also where single precision
// cannot hold a difference of logits, and the same bits at all levels.
func TestMix(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 2))
	for range 500 {
		logits := make([]float32, 1+r.IntN(700))
		about := choice(r, 0, 0.1, 30, 1e4, 1e30) * r.NormFloat64()
		for i := range logits {
			logits[i] = float32(about + choice(r, 0, 1e-3, 5, 50)*r.NormFloat64())
		}
		logits[r.IntN(len(logits))] = choice(r, float32(about), negInf, -math.MaxFloat32)
		top := slices.Max(logits)
		if top == negInf {
			continue
		}
		var tokens []int32
		for token := range logits {
			if r.IntN(3) > 0 {
				tokens = append(tokens, int32(token))
			}
		}
		scale, share := exponents(choice(r, 1, 0.7, 1e-30, 100, 1e30, 0.1+r.Float64())), 1-r.Float64()
		var first []float64
		for _, l := range levels() {
			got := make([]float64, len(tokens))
			for i := range got {
				got[i] = 0.5
			}
			l.mix(logits, tokens, top, scale, share, got)
			clean := make([]float64, len(tokens))
			l.mix(logits, tokens, top, scale, share, clean)
			for i, token := range tokens {
				require.InDelta(t, 0.5+clean[i], got[i], 1e-15)
				want := math.Exp2((float64(logits[token]) - float64(top)) * scale)
				if want > 0x1p-99 {
					require.InEpsilon(t, share*want, clean[i], 3.3e-7, "%v below %v, scale %v", logits[token], top, scale)
				} else {
					require.InDelta(t, 0, clean[i], 0x1.1p-99)
				}
				if want < 0x1p-101 {
					require.Zero(t, clean[i])
				}
			}
			if first != nil {
				require.Equal(t, first, clean)
			}
			first = clean
		}
	}
}

func TestFront(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		a := make([]uint64, 1+r.IntN(200))
		for i := range a {
			a[i] = r.Uint64N(choice[uint64](r, 1, 5, 1000))
		}
		switch r.IntN(3) {
		case 0:
			slices.Sort(a)
		case 1:
			slices.Sort(a)
			slices.Reverse(a)
		}
		want := slices.Sorted(slices.Values(a))
		n := r.IntN(len(a) + 1)
		front(a, n)
		slices.Sort(a[:n])
		slices.Sort(a[n:])
		require.Equal(t, want, a)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	negZero := float32(math.Copysign(0, -1))
	for i, likelier := range []struct {
		a float32
		t int32
		b float32
		u int32
	}{
		{1, 5, 0.5, 1},
		{1, 1, 1, 2},
		{0, 9, -1e-45, 1},
		{-1, 9, -2, 1},
		{1e-45, 9, 0, 1},
		{math.MaxFloat32, 9, 1, 0},
		{-1, 3, -math.MaxFloat32, 0},
		{0, 1, negZero, 2},
		{negZero, 1, 0, 2},
	} {
		a, b := key(likelier.a, likelier.t), key(likelier.b, likelier.u)
		require.Less(t, a, b, "%d", i)
		require.InDelta(t, likelier.a, keyLogit(a), 0)
		require.Equal(t, likelier.u, keyToken(b))
	}
}
