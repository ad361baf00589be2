package budget

import (
	"fmt"
	"math"
)

// Bytes is an amount of memory. Its arithmetic saturates at the ends of int64
// instead of wrapping, so that a sum of nonsense stays too large and never
// turns into something that fits.
type Bytes int64

// Binary units.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

const (
	maxBytes Bytes = math.MaxInt64
	minBytes Bytes = math.MinInt64
)

// GiBs returns n · 2^30 bytes, the unit of max_memory_gb. It saturates; NaN is 0.
func GiBs(n float64) Bytes {
	return fromFloat(n * float64(GiB))
}

// FromUint64 returns n bytes, at most the largest Bytes there is.
func FromUint64(n uint64) Bytes {
	if n > math.MaxInt64 {
		return maxBytes
	}
	return Bytes(n)
}

// fromFloat cuts off fractions and saturates; NaN is 0.
func fromFloat(f float64) Bytes {
	switch {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt64:
		return maxBytes
	case f <= math.MinInt64:
		return minBytes
	}
	return Bytes(f)
}

// Add returns b + n.
func (b Bytes) Add(n Bytes) Bytes {
	sum := b + n
	switch {
	case b > 0 && n > 0 && sum < 0:
		return maxBytes
	case b < 0 && n < 0 && sum >= 0:
		return minBytes
	}
	return sum
}

// Sub returns b - n.
func (b Bytes) Sub(n Bytes) Bytes {
	diff := b - n
	switch {
	case b >= 0 && n < 0 && diff < 0:
		return maxBytes
	case b < 0 && n > 0 && diff >= 0:
		return minBytes
	}
	return diff
}

// Mul returns b · n.
func (b Bytes) Mul(n int64) Bytes {
	if b == 0 || n == 0 {
		return 0
	}
	product := b * Bytes(n)
	overflow := product/Bytes(n) != b || (b == minBytes && n == -1)
	switch {
	case overflow && (b < 0) == (n < 0):
		return maxBytes
	case overflow:
		return minBytes
	}
	return product
}

// Scale returns b · f, rounded towards zero. It is exact to 53 bits, which is
// enough for shares of a limit; sums use Add.
func (b Bytes) Scale(f float64) Bytes {
	return fromFloat(float64(b) * f)
}

// GiB returns b in units of 2^30 bytes, the unit of max_memory_gb.
func (b Bytes) GiB() float64 {
	return float64(b) / float64(GiB)
}

// String returns b in the largest binary unit of which it is at least one, to
// three digits: "1.50 GiB", "512 MiB", "23.0 KiB", "7 B".
func (b Bytes) String() string {
	value, unit := math.Abs(float64(b)), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if value < 1023.5 { // would be printed as 1024 of the smaller unit
			break
		}
		value, unit = value/1024, larger
	}
	if b < 0 {
		value = -value
	}
	digits := 2
	switch size := math.Abs(value); {
	case unit == "B" || size >= 99.95:
		digits = 0
	case size >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, value, unit)
}
