package sample

import ("math";"slices";"cmp")

type MixOptions struct{ Temperature float64; Bias map[int32]float64 }
type Mixture struct{ o MixOptions; vocab int }
type Candidate struct{ Token int32; Probability float64 }
func NewMixture(o MixOptions, vocab int) *Mixture { return &Mixture{o, vocab} }
func (m *Mixture) Next(rows [][]float32, weights []float64, threshold float64, most int, ban []int32) ([]Candidate, int, error) {
	d := make([]float64, m.vocab)
	total := 0.0
	for _, w := range weights { total += w }
	for i, r := range rows {
		mx := math.Inf(-1)
		l := make([]float64, m.vocab)
		for t, v := range r { l[t] = float64(v)+m.o.Bias[int32(t)] }
		for _, b := range ban { l[b] = math.Inf(-1) }
		for t := range l { l[t] /= m.o.Temperature; mx = max(mx, l[t]) }
		sum := 0.0
		for t := range l { l[t] = math.Exp(l[t]-mx); sum += l[t] }
		for t := range l { d[t] += weights[i]/total*l[t]/sum }
	}
	var c []Candidate
	best := 0
	for t, p := range d { if p > d[best] { best = t }; if p >= threshold { c = append(c, Candidate{int32(t), p}) } }
	if len(c) == 0 { return []Candidate{{int32(best), d[best]}}, 1, nil }
	slices.SortStableFunc(c, func(a, b Candidate) int { return cmp.Compare(b.Probability, a.Probability) })
	return c[:min(len(c), most)], len(c), nil
}
