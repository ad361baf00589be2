package grammar

import (
	"fmt"
	"strings"
)

// usualDigits is how many digits a number has at most on each side of the point,
// unless a bound has more.
const usualDigits = 16

// inRange is the right side for the numbers between two bounds, "" if there are
// none. With a bound they are written without an exponent.
func inRange(low, high bound, fractions bool) string {
	var alternatives []string
	add := func(sign string, low, high bound) {
		text := magnitudes(low, high, fractions)
		if text != "" && sign != "" {
			text = sign + "(" + text + ")"
		}
		if text != "" {
			alternatives = append(alternatives, text)
		}
	}
	zero := bound{set: true}
	zero.d, _ = parseDecimal("0")
	if !high.set || !high.d.neg {
		from := low
		if !low.set || low.d.neg {
			from = zero
		}
		add("", from, high)
	}
	if !low.set || low.d.neg {
		from := high
		if !high.set || !high.d.neg {
			from = zero
			from.open = !fractions || high.set && high.d.zero() && high.open // no integer -0
		}
		to := low
		from.d, to.d = from.d.size(), to.d.size()
		if !fractions && from.open {
			from = from.inwards(1)
		}
		add(`"-" `, from, to)
	}
	return strings.Join(alternatives, " | ")
}

// magnitudes is the right side for the numbers, none negative, from low to high,
// which need not be set.
func magnitudes(low, high bound, fractions bool) string {
	if c := low.d.compare(high.d); high.set && (c > 0 || c == 0 && (low.open || high.open)) {
		return ""
	}
	longest := max(usualDigits, len(low.d.whole)+1)
	if high.set {
		longest = len(high.d.whole)
	}
	r := numberRange{}
	if fractions {
		r.places = max(usualDigits, len(low.d.frac)+1, len(high.d.frac)+1)
	}
	var alternatives []string
	for n := len(low.d.whole); n <= longest; n++ {
		r.low, r.high, r.digits = low, high, n
		tight := high.set && n == longest
		if n > len(low.d.whole) {
			r.low = bound{d: decimal{whole: "1" + strings.Repeat("0", n-1)}}
			if !tight { // all of that many digits, and more
				most := longest
				if high.set {
					most--
				}
				alternatives = append(alternatives, fmt.Sprintf("[1-9] %s%s", digits(n-1, most-1), r.anyFraction()))
				n = most
				continue
			}
		}
		if text, ok := r.from(0, true, tight); ok {
			alternatives = append(alternatives, text)
		}
	}
	return strings.Join(alternatives, " | ")
}

// digits is from low to high digits.
func digits(low, high int) string {
	switch {
	case low == 1 && high == 1:
		return "[0-9]"
	case low == high:
		return fmt.Sprintf("[0-9]{%d}", low)
	}
	return fmt.Sprintf("[0-9]{%d,%d}", low, high)
}

// numberRange writes the numbers of some digits before the point that lie between
// two bounds, digit by digit. As long as the digits are those of a bound (tight),
// the bound decides what the next can be.
type numberRange struct {
	low, high bound
	digits    int // before the point
	places    int // most digits behind it
}

// anyFraction is what can follow the last digit before the point, if nothing is
// tight.
func (r numberRange) anyFraction() string {
	if r.places == 0 {
		return ""
	}
	return ` ("." ` + digits(1, r.places) + ")?"
}

// from is the text from the digit i on. It reports false if there is none.
func (r numberRange) from(i int, tightLow, tightHigh bool) (string, bool) {
	if tightLow && strings.Trim(r.low.d.whole[i:]+r.low.d.frac, "0") == "" && !r.low.open {
		tightLow = false // whatever comes is enough
	}
	switch {
	case i == r.digits:
		return r.point(tightLow, tightHigh)
	case !tightLow && !tightHigh:
		return digits(r.digits-i, r.digits-i) + r.anyFraction(), true
	}
	low, high := byte('0'), byte('9')
	if tightLow {
		low = r.low.d.whole[i]
	}
	if tightHigh {
		high = r.high.d.whole[i]
	}
	return nextDigit(low, high, tightLow, tightHigh, func(l, h bool) (string, bool) { return r.from(i+1, l, h) })
}

// nextDigit is a digit from low to high and what follows it, which is another thing
// after the two ends where they are tight.
func nextDigit(low, high byte, tightLow, tightHigh bool, next func(tightLow, tightHigh bool) (string, bool)) (string, bool) {
	type digitThen struct {
		digits runeRange
		then   string
	}
	var ways []digitThen
	add := func(low, high byte, tightLow, tightHigh bool) {
		if low > high {
			return
		}
		then, ok := next(tightLow, tightHigh)
		if n := len(ways); ok && n > 0 && ways[n-1].then == then {
			ways[n-1].digits.high = rune(high)
		} else if ok {
			ways = append(ways, digitThen{runeRange{rune(low), rune(high)}, then})
		}
	}
	if low == high && tightLow && tightHigh {
		add(low, high, true, true)
	} else {
		if tightLow {
			add(low, low, true, false)
			low++
		}
		if tightHigh {
			high--
		}
		add(low, high, false, false)
		if tightHigh {
			add(high+1, high+1, false, true)
		}
	}
	var alternatives []string
	for _, w := range ways {
		alternatives = append(alternatives, strings.TrimSpace(class(runeSet{w.digits})+" "+strings.TrimPrefix(w.then, " ")))
	}
	switch len(alternatives) {
	case 0:
		return "", false
	case 1:
		return alternatives[0], true
	}
	return "(" + strings.Join(alternatives, " | ") + ")", true
}

// point is what can follow the last digit before the point.
func (r numberRange) point(tightLow, tightHigh bool) (string, bool) {
	if r.places == 0 {
		return "", true
	}
	end := r.canEnd(0, tightLow, tightHigh)
	fraction, ok := r.fraction(0, tightLow, tightHigh)
	switch {
	case ok && end:
		return ` ("." ` + fraction + `)?`, true
	case ok:
		return ` "." ` + fraction, true
	}
	return "", end
}

// canEnd reports whether the number can end before the digit i behind the point.
func (r numberRange) canEnd(i int, tightLow, tightHigh bool) bool {
	if tightLow && (rest(r.low.d.frac, i) != "" || r.low.open) {
		return false
	}
	return !tightHigh || rest(r.high.d.frac, i) != "" || !r.high.open
}

// rest are the digits from i on, "" if they are all 0.
func rest(digits string, i int) string {
	if i >= len(digits) {
		return ""
	}
	return digits[i:]
}

// fraction is one digit or more from the digit i behind the point on.
func (r numberRange) fraction(i int, tightLow, tightHigh bool) (string, bool) {
	left := r.places - i
	if tightLow && rest(r.low.d.frac, i) == "" && !r.low.open {
		tightLow = false
	}
	switch {
	case left == 0:
		return "", false
	case !tightLow && !tightHigh:
		return digits(1, left), true
	case tightHigh && rest(r.high.d.frac, i) == "":
		// Only zeros would not pass the bound.
		return fmt.Sprintf(`"0"{1,%d}`, left), !tightLow && !r.high.open
	}
	low, high := byte('0'), byte('9')
	if tightLow {
		low = (r.low.d.frac + strings.Repeat("0", r.places))[i]
	}
	if tightHigh {
		high = (r.high.d.frac + strings.Repeat("0", r.places))[i]
	}
	return nextDigit(low, high, tightLow, tightHigh, func(l, h bool) (string, bool) {
		more, ok := r.fraction(i+1, l, h)
		switch end := r.canEnd(i+1, l, h); {
		case ok && end:
			return " (" + more + ")?", true
		case ok:
			return " " + more, true
		default:
			return "", end
		}
	})
}
