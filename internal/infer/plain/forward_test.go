package plain

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/gguf"
	"tempo/internal/infer/llama"
)

// How far probabilities may be from those of llama.cpp: flash attention turns keys and
// values into half floats on its way, also those of a cache in F32, and products with
// weights in half floats are taken of halves.
const (
	exact = 3e-6
	rough = 4e-3
)

func deviation(opts llama.ContextOptions) float64 {
	if opts.NoFlash {
		return exact
	}
	return rough
}

// requireSame compares logits by the probabilities that they give.
func requireSame(t *testing.T, want, got []float32, delta float64, message string) {
	t.Helper()
	probabilities := func(logits []float32) []float64 {
		wide := make([]float64, len(logits))
		for i, v := range logits {
			wide[i] = float64(v)
		}
		return softmax(wide)
	}
	require.InDeltaSlice(t, probabilities(want), probabilities(got), delta, message)
}

func causal(i, j int) bool { return j <= i }

func TestForward(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(s *gguf.Spec)
		noFlash bool
		delta   float64
	}{
		{"grouped", func(*gguf.Spec) {}, true, exact},
		{"one for all", func(s *gguf.Spec) { s.KVHeads = 1 }, true, exact},
		{"one for each", func(s *gguf.Spec) { s.KVHeads = 4 }, true, exact},
		{"wide heads", func(s *gguf.Spec) { s.HeadSize = 32 }, true, exact},
		{"deep", func(s *gguf.Spec) { s.Layers = 5 }, true, exact},
		{"tied", func(s *gguf.Spec) { s.Tied = true }, true, exact},
		{"half floats", func(s *gguf.Spec) { s.Type = gguf.F16 }, true, rough},
		{"flash attention", func(*gguf.Spec) {}, false, rough},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				plain, lib := both(t, write(t, func(s *gguf.Spec) { c.change(s); s.Seed = 100 + seed }))
				context := newContext(t, lib, llama.ContextOptions{Cells: 256, Sequences: 40, NoFlash: c.noFlash})
				var rows []Row
				for i, token := range tokens(rand.New(rand.NewPCG(seed, 1)), 512, 40) {
					rows = append(rows, Row{token, i})
					_, err := context.Add(token, i, 0, true)
					require.NoError(t, err)
				}
				require.NoError(t, context.Decode())
				logits, _ := plain.Forward(rows, causal)
				for i := range rows {
					want, err := context.Logits(i)
					require.NoError(t, err)
					requireSame(t, want, logits[i], c.delta, fmt.Sprintf("seed %d, row %d", seed, i))
				}
			}
		})
	}
}

// layouts are the contexts in which a visible set can be decoded.
func layouts() map[string]llama.ContextOptions {
	return map[string]llama.ContextOptions{
		"streams":           {Cells: 8 * 256, Sequences: 8, Streams: true},
		"streams, no flash": {Cells: 8 * 256, Sequences: 8, Streams: true, NoFlash: true},
		"pool":              {Cells: 256, Sequences: 8},
		"pool, no flash":    {Cells: 256, Sequences: 8, NoFlash: true},
	}
}

// laidOut makes rows of a prompt of n tokens and of sets behind it, and says of each row
// which set it is in, -1 = the prompt.
func laidOut(random *rand.Rand, n int) (rows []Row, set []int) {
	for i, token := range tokens(random, 512, n) {
		rows, set = append(rows, Row{token, i}), append(set, -1)
	}
	for s, width := range []int{3, 1, 4, 2, 5} {
		for _, token := range tokens(random, 512, width) {
			rows, set = append(rows, Row{token, n + s}), append(set, s)
		}
	}
	return rows, set
}

// In llama.cpp the members of a visible set are tokens of one sequence at one position.
func TestForwardVisible(t *testing.T) {
	t.Parallel()
	for name, opts := range layouts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(2) {
				plain, lib := both(t, write(t, func(s *gguf.Spec) { s.Seed = 200 + seed }))
				c := newContext(t, lib, opts)
				rows, set := laidOut(rand.New(rand.NewPCG(seed, 2)), 17)
				logits, _ := plain.Forward(rows, func(i, j int) bool { return j <= i || set[j] == set[i] && set[i] >= 0 })
				for i := 0; i < len(rows); {
					c.Clear()
					from := i
					for ; i < len(rows) && set[i] == set[from]; i++ {
						_, err := c.Add(rows[i].Token, rows[i].Position, 1, set[i] >= 0)
						require.NoError(t, err)
					}
					require.NoError(t, c.Decode())
					for k := from; k < i && set[k] >= 0; k++ {
						want, err := c.Logits(k - from)
						require.NoError(t, err)
						requireSame(t, want, logits[k], deviation(opts), fmt.Sprintf("seed %d, row %d", seed, k))
					}
				}
			}
		})
	}
}

// In llama.cpp the members of an isolated set are in sequences of their own, which are
// joined when they are decoded.
func TestForwardIsolated(t *testing.T) {
	t.Parallel()
	for name, opts := range layouts() {
		if opts.Streams {
			continue // parts of sequences cannot be copied between them
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, lib := both(t, write(t, func(s *gguf.Spec) { s.Seed = 300 }))
			c := newContext(t, lib, opts)
			rows, set := laidOut(rand.New(rand.NewPCG(1, 3)), 17)
			logits, _ := plain.Forward(rows, func(i, j int) bool { return i == j || j < i && (set[j] < set[i] || set[i] < 0) })
			for i := 0; i < len(rows); {
				c.Clear()
				from := i
				for ; i < len(rows) && set[i] == set[from]; i++ {
					seq := 0
					if set[i] >= 0 {
						seq = 1 + i - from
						require.NoError(t, c.Share(0, seq))
					}
					_, err := c.Add(rows[i].Token, rows[i].Position, seq, set[i] >= 0)
					require.NoError(t, err)
				}
				require.NoError(t, c.Decode())
				for k := from; k < i && set[k] >= 0; k++ {
					want, err := c.Logits(k - from)
					require.NoError(t, err)
					requireSame(t, want, logits[k], deviation(opts), fmt.Sprintf("row %d", k))
					require.NoError(t, c.Join(1+k-from, 0, rows[k].Position))
					require.NoError(t, c.Forget(1+k-from))
				}
			}
		})
	}
}

// The attention is that which llama.cpp's layers and heads pay, in the mean.
func TestForwardAttention(t *testing.T) {
	t.Parallel()
	plain, lib := both(t, write(t, func(s *gguf.Spec) { s.Seed, s.Layers = 500, 3 }))
	c := newContext(t, lib, llama.ContextOptions{Cells: 256, Sequences: 8, Attention: true})
	rows, set := laidOut(rand.New(rand.NewPCG(1, 7)), 17)
	_, attention := plain.Forward(rows, func(i, j int) bool { return j <= i || set[j] == set[i] && set[i] >= 0 })
	var cells []int // where the rows are
	for i := 0; i < len(rows); {
		c.Clear()
		from := i
		for ; i < len(rows) && set[i] == set[from]; i++ {
			_, err := c.Add(rows[i].Token, rows[i].Position, 1, false)
			require.NoError(t, err)
		}
		var asked []*llama.Attended // with all that was there before
		for row := range i - from {
			asked = append(asked, &llama.Attended{Row: row, Rows: 1, Cells: cells})
		}
		all := &llama.Attended{Row: 0, Rows: i - from, Cells: cells}
		c.Attend(append(asked, all))
		require.NoError(t, c.Decode())
		require.NoError(t, c.Attention())
		mean := make([]float64, len(cells))
		for row, a := range asked {
			for cell, weight := range a.Weights {
				require.InDelta(t, attention[from+row][cell], weight, exact, "row %d", from+row)
				mean[cell] += weight / float64(len(asked))
			}
		}
		require.InDeltaSlice(t, mean, all.Weights, 1e-9)
		for row := range i - from {
			cells = append(cells, c.Cell(row))
		}
	}
}

// What sees nothing else of the others is as if they were not there, whatever their order.
func TestForwardSees(t *testing.T) {
	t.Parallel()
	m, err := Load(write(t, func(*gguf.Spec) {}))
	require.NoError(t, err)
	rows := []Row{{10, 0}, {20, 1}, {30, 2}}
	alone, weights := m.Forward(rows, causal)
	shuffled := []Row{{30, 2}, {99, 2}, {10, 0}, {20, 1}}
	order := []int{2, 3, 0} // where rows are in shuffled
	got, attention := m.Forward(shuffled, func(i, j int) bool {
		return shuffled[i].Token == 99 || shuffled[j].Token != 99 && shuffled[j].Position <= shuffled[i].Position
	})
	for i := range rows {
		require.InDeltaSlice(t, alone[i], got[order[i]], 1e-5)
		var sum float64
		for j := range rows {
			require.InDelta(t, weights[i][j], attention[order[i]][order[j]], 1e-9)
			sum += weights[i][j]
		}
		require.InDelta(t, 1, sum, 1e-9)
		require.Zero(t, attention[order[i]][1])
	}
	require.Positive(t, attention[1][0])
}

// byHand is a model of one layer, one head and two values. What a row looks for is
// multiplied by looks.
func byHand(looks float64) *Model {
	same, none := matrix{{1, 0}, {0, 1}}, matrix{{0, 0}, {0, 0}}
	return &Model{
		heads: 1, keyLength: 2, valueLength: 2, rotated: 2, base: 10000,
		embeddings: matrix{{3, 0}, {0, 5}}, norm: []float64{1, 1}, output: same,
		layers: []layer{{
			kvHeads: 1, attentionNorm: []float64{1, 1}, feedNorm: []float64{1, 1},
			query: matrix{{looks, 0}, {0, looks}}, key: same, value: same, mixed: same, gate: none, up: none, down: none,
		}},
	}
}

// A normed embedding is (√2, 0), turned by as many radians as its position, so that the
// scores are 2 cos(distance) / √2.
func TestForwardByHand(t *testing.T) {
	t.Parallel()
	m := byHand(1)
	logits, attention := m.Forward([]Row{{0, 0}, {0, 1}, {0, 2}}, causal)
	e := func(distance float64) float64 { return math.Exp(math.Sqrt2 * math.Cos(distance)) }
	sum := e(2) + e(1) + e(0)
	require.InDeltaSlice(t, []float64{e(2) / sum, e(1) / sum, e(0) / sum}, attention[2], 1e-12)
	require.Equal(t, []float64{1, 0, 0}, attention[0])
	require.InDeltaSlice(t, []float32{math.Sqrt2, 0}, logits[2], 1e-6)

	// Two that see each other, at one position: (√2, 0) and (0, √2) have the score 0.
	logits, attention = m.Forward([]Row{{0, 7}, {1, 7}}, func(int, int) bool { return true })
	own := math.Exp(math.Sqrt2) / (1 + math.Exp(math.Sqrt2))
	require.InDelta(t, own, attention[0][0], 1e-12)
	require.InDelta(t, own, attention[1][1], 1e-12)
	x, y := 3+math.Sqrt2*own, math.Sqrt2*(1-own)
	scale := math.Sqrt2 / math.Hypot(x, y)
	require.InDeltaSlice(t, []float64{x * scale, y * scale}, logits[0], 1e-6)
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(s *gguf.Spec){
		"architecture is gemma2": func(s *gguf.Spec) { s.Architecture, s.Window, s.Tied = gguf.Gemma2, 64, true },
		"type Q8_0":              func(s *gguf.Spec) { s.Type = gguf.Q8_0 },
	} {
		_, err := Load(write(t, change))
		require.ErrorContains(t, err, want)
	}
	_, err := Load("/no/such/model.gguf")
	require.ErrorContains(t, err, "/no/such/model.gguf")
}
