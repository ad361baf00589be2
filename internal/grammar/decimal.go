package grammar

import (
	"math/big"
	"strconv"
	"strings"
)

// decimal is a number as its digits: whole without zeros in front ("0" for none),
// frac without zeros at the end. Zero has no sign.
type decimal struct {
	neg         bool
	whole, frac string
}

// maxDigits is how many digits a decimal has at most, on each side of the point.
const maxDigits = 40

// parseDecimal reads a number of JSON. It reports false for one of too many digits.
func parseDecimal(text string) (decimal, bool) {
	var d decimal
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	mantissa, d.neg = strings.CutPrefix(mantissa, "-")
	d.whole, d.frac, _ = strings.Cut(mantissa, ".")
	if len(d.whole) > maxDigits || len(d.frac) > maxDigits {
		return decimal{}, false
	}
	if exponent != "" {
		e, err := strconv.Atoi(exponent)
		if err != nil || e > maxDigits || e < -maxDigits {
			return decimal{}, false
		}
		digits, point := d.whole+d.frac, len(d.whole)+e
		if point < 0 {
			digits, point = strings.Repeat("0", -point)+digits, 0
		}
		if point > len(digits) {
			digits += strings.Repeat("0", point-len(digits))
		}
		d.whole, d.frac = digits[:point], digits[point:]
	}
	d.whole, d.frac = strings.TrimLeft(d.whole, "0"), strings.TrimRight(d.frac, "0")
	if d.whole == "" {
		d.whole = "0"
	}
	d.neg = d.neg && !d.zero()
	return d, len(d.whole) <= maxDigits && len(d.frac) <= maxDigits
}

func (d decimal) zero() bool { return d.whole == "0" && d.frac == "" }

// size is d without its sign.
func (d decimal) size() decimal { return decimal{whole: d.whole, frac: d.frac} }

// compare is negative, 0 or positive as d is less than, equal to or greater than e.
func (d decimal) compare(e decimal) int {
	switch {
	case d.neg != e.neg && d.neg:
		return -1
	case d.neg != e.neg:
		return 1
	case d.neg:
		return e.size().compare(d.size())
	case len(d.whole) != len(e.whole):
		return len(d.whole) - len(e.whole)
	}
	if c := strings.Compare(d.whole, e.whole); c != 0 {
		return c
	}
	return strings.Compare(d.frac, e.frac)
}

// bound is an end of a range of numbers, or none. Open means without d itself.
type bound struct {
	set  bool
	open bool
	d    decimal
	by   keyword
}

func (s *shape) readBound(k keyword) error {
	d, ok := parseDecimal(k.value.text)
	if k.value.kind != isNumber || !ok {
		return k.fault("%s is not a number with at most %d digits before and after the point", k.value, maxDigits)
	}
	b := bound{true, strings.HasPrefix(k.name, "exclusive"), d, k}
	have, sign := &s.minimum, 1
	if k.name == "maximum" || k.name == "exclusiveMaximum" {
		have, sign = &s.maximum, -1
	}
	if c := d.compare(have.d) * sign; !have.set || c > 0 || c == 0 && b.open {
		*have = b
	}
	return nil
}

// number is the right side for the numbers of s.
func (c *converter) number(s *shape) (string, error) {
	fractions := s.types&typeFraction != 0
	low, high := s.minimum, s.maximum
	if !low.set && !high.set {
		if fractions {
			return c.builtin("number"), nil
		}
		return c.builtin("integer"), nil
	}
	if !fractions {
		low, high = low.inwards(1), high.inwards(-1)
	}
	text := inRange(low, high, fractions)
	if text == "" {
		what := "number"
		if !fractions {
			what = "integer"
		}
		return "", s.minimum.by.fault("%s leaves no %s beside %s %s", s.minimum.by.value, what, s.maximum.by.name, s.maximum.by.value)
	}
	return text, nil
}

// inwards is the integer that is closest to b and within; sign is 1 for a lower
// bound, -1 for an upper one.
func (b bound) inwards(sign int64) bound {
	if !b.set {
		return b
	}
	n, _ := new(big.Int).SetString(b.d.whole, 10)
	if b.d.neg {
		n.Neg(n)
	}
	// n is b rounded towards zero.
	outside := b.d.frac != "" && (b.d.neg == (sign < 0))
	if outside || b.d.frac == "" && b.open {
		n.Add(n, big.NewInt(sign))
	}
	b.open = false
	b.d, _ = parseDecimal(n.String())
	return b
}
