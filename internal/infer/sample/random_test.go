package sample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var negInf = float32(math.Inf(-1))

// choice returns one of some values.
func choice[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// logitsOf makes a row of one kind or another.
func logitsOf(r *rand.Rand, vocab int) []float32 {
	l := make([]float32, vocab)
	kind := r.IntN(9)
	for i := range l {
		switch g := float32(r.NormFloat64()); kind {
		case 0: // flat
			l[i] = g
		case 1: // as a model's
			l[i] = 3*g - 5
		case 2: // ties everywhere
			l[i] = float32(r.IntN(5))
		case 3: // all the same
			l[i] = 1.5
		case 4: // most banned
			l[i] = g
			if r.IntN(10) > 0 {
				l[i] = negInf
			}
		case 5: // enormous
			l[i] = g * 1e37
		case 6: // as good as nothing
			l[i] = g * 1e-40
		case 7: // zeros of both signs
			l[i] = choice(r, 0, float32(math.Copysign(0, -1)), -1)
		case 8: // sorted
			l[i] = float32(i) / float32(vocab) * 20
		}
	}
	if r.IntN(2) == 0 { // peaks
		for range 1 + r.IntN(50) {
			l[r.IntN(vocab)] += 10 * r.Float32()
		}
	}
	if kind == 4 {
		l[r.IntN(vocab)] = 1
	}
	return l
}

func optionsOf(r *rand.Rand, vocab int) Options {
	o := Options{Seed: r.Uint64(), Temperature: choice(r, 0, 1, 1, 0.7, 0.1, 1.5, 2, 1e-30, 100)}
	if r.IntN(2) == 0 {
		o.TopK = 1 + r.IntN(choice(r, 5, 50, 300, vocab+10))
	}
	if r.IntN(2) == 0 {
		o.TopP = choice(r, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.99999, 0.9999999999, 1, r.Float64())
	}
	if r.IntN(3) == 0 {
		o.MinP = choice(r, 1, 0.5, 0.05, 1e-4, 1e-12, r.Float64())
	}
	if r.IntN(3) == 0 {
		o.RepeatPenalty = choice(r, 1, 1.1, 2, 0.5)
		o.FrequencyPenalty = choice(r, 0, 0.5, 2, -2)
		o.PresencePenalty = choice(r, 0, 0.5, 2, -2)
	}
	if r.IntN(3) == 0 {
		o.Bias = map[int32]float64{}
		for range r.IntN(10) {
			o.Bias[int32(r.IntN(vocab+2)-1)] = choice(r, -100, -101, 100, 5, r.Float64())
		}
	}
	if r.IntN(4) == 0 {
		o.Ban = []int32{int32(r.IntN(vocab)), -1, int32(vocab), int32(r.IntN(vocab))}
	}
	if r.IntN(3) == 0 {
		o.Logprobs, o.Top = true, r.IntN(21)
	}
	return o
}

// check draws a few tokens at all levels and compares each with the definition and with
// what double precision would draw.
func check(t *testing.T, r *rand.Rand, vocab int) {
	t.Helper()
	o := optionsOf(r, vocab)
	n := newNaive(o)
	var samplers []*Sampler
	for _, l := range levels() {
		s := New(o, vocab)
		s.row.level = l
		samplers = append(samplers, s)
	}
	row := logitsOf(r, vocab)
	for range 3 {
		if r.IntN(2) == 0 {
			row = logitsOf(r, vocab)
		}
		before, want := bitsOf(row), n.next(row)
		require.True(t, want.ideal(o), "vocabulary %d, %+v: token %d", vocab, o, want.token)
		for _, s := range samplers {
			got, err := s.Next(row, nil)
			require.True(t, slices.Equal(before, bitsOf(row)), "the logits are as before")
			if want.token < 0 {
				require.ErrorIs(t, err, ErrNoToken)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, want.token, got.Token, "vocabulary %d, %+v, level %d", vocab, o, s.row.level)
			if o.Logprobs {
				checkLogprobs(t, row, got, o.Top)
			}
		}
	}
}

func checkLogprobs(t *testing.T, row []float32, got Picked, top int) {
	t.Helper()
	order := byLikelihood(row)
	var sum float64
	for _, tok := range order {
		sum += math.Exp(float64(row[tok]) - float64(row[order[0]]))
	}
	want := func(tok int32) float64 {
		return max(float64(row[tok])-float64(row[order[0]])-math.Log(sum), -math.MaxFloat32)
	}
	near := func(tok int32, p float32) {
		require.InDelta(t, want(tok), float64(p), 2e-6+1e-7*math.Abs(want(tok)))
	}
	near(got.Token, got.Logprob)
	require.Len(t, got.Top, min(top, len(order)))
	for i, l := range got.Top {
		require.Equal(t, order[i], l.Token)
		near(l.Token, l.Logprob)
	}
}

func bitsOf(l []float32) []uint32 {
	b := make([]uint32, len(l))
	for i, v := range l {
		b[i] = math.Float32bits(v)
	}
	return b
}

// levels are those that this CPU can compute at.
func levels() []level {
	var all []level
	for l := range bestLevel() + 1 {
		all = append(all, l)
	}
	return all
}

func TestAgainstDefinition(t *testing.T) {
	t.Parallel()
	for vocab, cases := range map[int]uint64{
		1: 200, 2: 200, 7: 400, 255: 400, 256: 400, 257: 400, 1000: 300, 4096: 50, 4097: 50, 5000: 50,
		32_000: 10, 49_152: 8, 151_936: 3, 262_144: 3,
	} {
		t.Run(fmt.Sprint(vocab), func(t *testing.T) {
			t.Parallel()
			for i := range cases {
				check(t, rand.New(rand.NewPCG(uint64(vocab), i)), vocab)
			}
		})
	}
}

func FuzzNext(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, uint16(i*997))
	}
	f.Fuzz(func(t *testing.T, seed uint64, vocab uint16) {
		check(t, rand.New(rand.NewPCG(seed, 1)), int(vocab)+1)
	})
}
