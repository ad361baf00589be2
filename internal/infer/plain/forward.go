package plain

import (
	"math"
	"slices"
)

// Row is a token that goes through the model.
type Row struct {
	Token    int32
	Position int
}

// Forward has all rows go through the model at once, row i attending to row j where
// sees(i, j), in whichever direction. Each row must see at least one, itself as a rule.
// It returns the logits behind each row, one for each token of the vocabulary, and
// attention[i][j], the weight that row i gives to row j, averaged over all layers and
// heads: the weights of a row add up to 1.
func (m *Model) Forward(rows []Row, sees func(i, j int) bool) (logits [][]float32, attention [][]float64) {
	x := make([][]float64, len(rows))
	attention = make([][]float64, len(rows))
	for i, r := range rows {
		x[i] = slices.Clone(m.embeddings[r.Token])
		attention[i] = make([]float64, len(rows))
	}
	for _, l := range m.layers {
		m.attend(l, rows, x, sees, attention)
		for i := range x {
			h := m.normed(x[i], l.feedNorm)
			gate, up := l.gate.times(h), l.up.times(h)
			for k, g := range gate {
				up[k] *= g / (1 + math.Exp(-g))
			}
			add(x[i], l.down.times(up))
		}
	}
	for i := range x {
		var row []float32
		for _, v := range m.output.times(m.normed(x[i], m.norm)) {
			row = append(row, float32(v))
		}
		logits = append(logits, row)
	}
	return logits, attention
}

// attend adds to x what a layer's attention gives, and to attention its part of the mean.
func (m *Model) attend(l layer, rows []Row, x [][]float64, sees func(i, j int) bool, attention [][]float64) {
	var queries, keys, values [][]float64
	for i, r := range rows {
		h := m.normed(x[i], l.attentionNorm)
		queries = append(queries, m.rotate(l.query.times(h), r.Position))
		keys = append(keys, m.rotate(l.key.times(h), r.Position))
		values = append(values, l.value.times(h))
	}
	part := 1 / float64(len(m.layers)*m.heads)
	for i := range rows {
		var seen []int
		for j := range rows {
			if sees(i, j) {
				seen = append(seen, j)
			}
		}
		mixed := make([]float64, m.heads*m.valueLength)
		for head := range m.heads {
			// Several heads in a row have the same keys and values.
			shared := head / (m.heads / l.kvHeads)
			query := of(queries[i], head, m.keyLength)
			scores := make([]float64, len(seen))
			for s, j := range seen {
				scores[s] = dot(query, of(keys[j], shared, m.keyLength)) / math.Sqrt(float64(m.keyLength))
			}
			for s, weight := range softmax(scores) {
				attention[i][seen[s]] += weight * part
				for k, v := range of(values[seen[s]], shared, m.valueLength) {
					mixed[head*m.valueLength+k] += weight * v
				}
			}
		}
		add(x[i], l.mixed.times(mixed))
	}
}

// rotate turns each pair of neighbours in the first values of each head by an angle that
// grows with the position, the later pairs slower. It changes x and returns it.
func (m *Model) rotate(x []float64, position int) []float64 {
	for head := range len(x) / m.keyLength {
		h := of(x, head, m.keyLength)
		for k := 0; k < m.rotated; k += 2 {
			sin, cos := math.Sincos(float64(position) * math.Pow(m.base, -float64(k)/float64(m.rotated)))
			h[k], h[k+1] = h[k]*cos-h[k+1]*sin, h[k]*sin+h[k+1]*cos
		}
	}
	return x
}

// normed is x divided by its root mean square, and each value multiplied by its weight.
func (m *Model) normed(x, weights []float64) []float64 {
	scale := 1 / math.Sqrt(dot(x, x)/float64(len(x))+m.epsilon)
	y := make([]float64, len(x))
	for k := range x {
		y[k] = x[k] * scale * weights[k]
	}
	return y
}

// times is the product of the matrix with x.
func (w matrix) times(x []float64) []float64 {
	y := make([]float64, len(w))
	for r, row := range w {
		y[r] = dot(row, x)
	}
	return y
}

// of are the values of a head, of which each has size.
func of(x []float64, head, size int) []float64 { return x[head*size : (head+1)*size] }

// dot is nearly all that is calculated here, and the race detector would make it ten times
// as slow, though it writes nothing.
//
//go:norace
func dot(a, b []float64) float64 {
	var sum float64
	for k, v := range a {
		sum += v * b[k]
	}
	return sum
}

func add(x, y []float64) {
	for k, v := range y {
		x[k] += v
	}
}

// softmax turns logits into probabilities; one of them must be a number.
func softmax(logits []float64) []float64 {
	largest := slices.Max(logits)
	p := make([]float64, len(logits))
	var sum float64
	for k, v := range logits {
		p[k] = math.Exp(v - largest)
		sum += p[k]
	}
	for k := range p {
		p[k] /= sum
	}
	return p
}
