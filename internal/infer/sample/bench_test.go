package sample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

const benchRows = 64 // one for each job of a step: more than a core's caches hold

// benchLogits are rows of a shape: "model" has a flat mass of unlikely tokens and some
// that stand out, "flat" is what untrained weights give.
func benchLogits(vocab int, shape string) [][]float32 {
	r := rand.New(rand.NewPCG(uint64(vocab), 0))
	all := make([]float32, vocab*benchRows)
	rows := make([][]float32, benchRows)
	for i := range rows {
		rows[i] = all[i*vocab : (i+1)*vocab]
		for t := range rows[i] {
			rows[i][t] = float32(r.NormFloat64()) * 2
		}
		for range 200 {
			if shape == "model" {
				rows[i][r.IntN(vocab)] += float32(r.ExpFloat64()*2) + 8
			}
		}
	}
	return rows
}

// benchSizes are vocabularies of Llama 2, of SmolLM2, of Gemma.
func benchSizes(b *testing.B, shape string, f func(b *testing.B, rows [][]float32)) {
	for _, vocab := range []int{32_000, 49_152, 262_144} {
		rows := benchLogits(vocab, shape)
		b.Run(fmt.Sprint(vocab), func(b *testing.B) {
			b.SetBytes(int64(4 * vocab))
			b.ReportAllocs()
			f(b, rows)
		})
	}
}

func BenchmarkNext(b *testing.B) {
	for _, c := range []struct {
		name, shape string
		o           Options
	}{
		{"greedy", "model", Options{}},
		{"draw", "model", Options{Temperature: 0.8}},
		{"draw flat", "flat", Options{Temperature: 0.8}},
		{"k40 p95 m05", "model", Options{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05}},
		{"k1000", "model", Options{Temperature: 0.8, TopK: 1000}},
		{"p95", "model", Options{Temperature: 0.8, TopP: 0.95}},
		{"p95 flat", "flat", Options{Temperature: 0.8, TopP: 0.95}},
		{"m05", "model", Options{Temperature: 0.8, MinP: 0.05}},
		{"penalties", "model", Options{Temperature: 0.8, FrequencyPenalty: 0.1}},
		{"logprobs20", "model", Options{Temperature: 1, Logprobs: true, Top: 20}},
		{"greedy logprobs20", "model", Options{Logprobs: true, Top: 20}},
	} {
		b.Run(c.name, func(b *testing.B) {
			benchSizes(b, c.shape, func(b *testing.B, rows [][]float32) {
				s := New(c.o, len(rows[0]))
				for i := 0; b.Loop(); i++ {
					if _, err := s.Next(rows[i%benchRows], nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkPlainGo is what a loop in Go takes, for comparison.
func BenchmarkPlainGo(b *testing.B) {
	b.Run("greedy", func(b *testing.B) {
		benchSizes(b, "model", func(b *testing.B, rows [][]float32) {
			for i := 0; b.Loop(); i++ {
				plainArgmax(rows[i%benchRows])
			}
		})
	})
	b.Run("draw", func(b *testing.B) {
		benchSizes(b, "model", func(b *testing.B, rows [][]float32) {
			for i := 0; b.Loop(); i++ {
				plainDraw(rows[i%benchRows], 0.8, rand.Float64())
			}
		})
	})
}

func plainArgmax(l []float32) (at int) {
	best := negInf
	for t, v := range l {
		if v > best {
			best, at = v, t
		}
	}
	return at
}

func plainDraw(l []float32, temperature, u float64) int {
	top := float64(l[plainArgmax(l)])
	var sum float64
	for _, v := range l {
		sum += math.Exp((float64(v) - top) / temperature)
	}
	for t, v := range l {
		if u -= math.Exp((float64(v)-top)/temperature) / sum; u < 0 {
			return t
		}
	}
	return len(l) - 1
}

// BenchmarkStep is a step of 64 jobs by workers, alone and beside a thread that spins as
// ggml's do between two decodes.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"greedy", Options{}},
		{"k40 p95 m05", Options{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05}},
	} {
		for _, vocab := range []int{49_152, 262_144} {
			rows := benchLogits(vocab, "model")
			for _, workers := range []int{1, 2} {
				b.Run(fmt.Sprintf("%s %d, %d workers", c.name, vocab, workers), func(b *testing.B) {
					benchStep(b, c.o, rows, workers)
				})
			}
		}
	}
}

func benchStep(b *testing.B, o Options, rows [][]float32, workers int) {
	w := NewWorkers(workers)
	defer w.Close()
	samplers := make([]*Sampler, len(rows))
	for i := range samplers {
		samplers[i] = New(o, len(rows[0]))
	}
	next := func(i int) {
		if _, err := samplers[i].Next(rows[i], nil); err != nil {
			b.Error(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		w.Each(len(rows), next)
	}
}

// BenchmarkMixture is a step of one job with sets of so many tokens.
func BenchmarkMixture(b *testing.B) {
	for _, threshold := range []float64{0.05, 0.001, 0.0001} {
		for _, vocab := range []int{49_152, 256_000} {
			rows := benchLogits(vocab, "model")
			for _, n := range []int{1, 8, 16, 64} {
				b.Run(fmt.Sprintf("%v of %d, %d rows", threshold, vocab, n), func(b *testing.B) {
					benchMixture(b, rows, n, threshold)
				})
			}
		}
	}
}

func benchMixture(b *testing.B, rows [][]float32, n int, threshold float64) {
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = 1 / float64(i+1)
	}
	m := NewMixture(MixOptions{Temperature: 1}, len(rows[0]))
	b.SetBytes(int64(4 * n * len(rows[0])))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := i * n % benchRows
		if _, _, err := m.Next(rows[at:at+n], weights, threshold, 16, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChoose is what of a step of wide sets is done on one core: each row has so many tokens
// that are about equally likely, most of them others than the rest has.
func BenchmarkChoose(b *testing.B) {
	const vocab = 150_000
	for _, likely := range []int{50, 300, 3000} {
		for _, n := range []int{16, 64, 256} {
			b.Run(fmt.Sprintf("%d likely, %d rows", likely, n), func(b *testing.B) { benchChoose(b, likelyRows(vocab, likely, n)) })
		}
	}
}

func likelyRows(vocab, likely, n int) [][]float32 {
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = make([]float32, vocab)
		for t := range rows[i] {
			rows[i][t] = -8 - r.Float32()*4
		}
		for range likely {
			rows[i][r.IntN(vocab/5)] = 2 + r.Float32()
		}
	}
	return rows
}

func benchChoose(b *testing.B, rows [][]float32) {
	weights := make([]float64, len(rows))
	for i := range weights {
		weights[i] = 1
	}
	m := NewMixture(MixOptions{Temperature: 1}, len(rows[0]))
	if err := m.Begin(rows, weights, nil); err != nil {
		b.Fatal(err)
	}
	for i := range rows {
		m.Measure(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := m.Choose(0.0001, 50); err != nil {
			b.Fatal(err)
		}
	}
}
