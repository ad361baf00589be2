package grammar

import (
	"fmt"
	"slices"
	"strings"
)

func (s *shape) readItemCount(k keyword) error {
	switch k.name {
	case "minItems":
		return tighten(&s.minItems, k, larger)
	case "maxItems":
		return tighten(&s.maxItems, k, smaller)
	}
	if k.value.kind != isBool {
		return k.fault("must be true or false")
	}
	if k.value.text == "true" {
		return k.fault(notSupported)
	}
	return nil
}

// readItems notes what n says of items: prefixItems and items, or as older drafts
// have it, a list in items and additionalItems.
func (s *shape) readItems(n *node) error {
	p := arrayPart{items: n.get("items")}
	if prefix := n.get("prefixItems"); prefix != nil {
		if err := isSchemas(n, "prefixItems", prefix); err != nil {
			return err
		}
		p.prefix = prefix.items
	}
	if p.items != nil && p.items.kind == isArray {
		if p.prefix != nil {
			return keyword{n, "items", p.items}.fault("must be a schema where there are prefixItems")
		}
		p.prefix, p.items = p.items.items, n.get("additionalItems")
	} else if k := (keyword{n, "additionalItems", n.get("additionalItems")}); k.value != nil {
		return k.fault("only stands beside a list in items")
	}
	if p.prefix != nil || p.items != nil {
		s.arrays = append(s.arrays, p)
	}
	return nil
}

// item are the schemas of an array's item at place i; none restricts it if there
// are none.
func (s *shape) item(i int) conjunction {
	var parts conjunction
	for _, a := range s.arrays {
		if i < len(a.prefix) {
			parts = append(parts, part{node: a.prefix[i]})
		} else if a.items != nil {
			parts = append(parts, part{node: a.items})
		}
	}
	return parts
}

// array is the right side for the arrays of s.
func (c *converter) array(s *shape) (string, error) {
	if s.about&typeArray == 0 {
		return c.builtin("array"), nil
	}
	least, most := s.minItems.n, -1
	if s.maxItems.set {
		most = s.maxItems.n
	}
	prefix := 0 // items that have a rule of their own
	for _, a := range s.arrays {
		prefix = max(prefix, len(a.prefix))
	}
	var items []string
	for i := 0; i < prefix && (most < 0 || i < most); i++ {
		item, err := c.item(s, i)
		if err != nil {
			return "", err
		}
		if item == "" {
			most = i
			break
		}
		items = append(items, item)
	}
	more := "" // the rule of those after them
	// As with members: no more than what is named, where that will do.
	closed := len(s.item(prefix)) == 0 && prefix > 0 && least <= prefix
	if !closed && (most < 0 || most > len(items)) {
		var err error
		if more, err = c.item(s, prefix); err != nil {
			return "", err
		}
	}
	if more == "" && (most < 0 || most > len(items)) {
		most = len(items)
	}
	if most >= 0 && least > most {
		return "", s.minItems.by.fault("at least %d items, but at most %d are allowed", least, most)
	}
	return c.between("[", c.list(s, items, more, least, most), least == 0, "]"), nil
}

// item is the rule of the item at place i, "" if there can be none.
func (c *converter) item(s *shape, i int) (string, error) {
	parts := s.item(i)
	if len(parts) == 0 {
		return c.builtin("value"), nil
	}
	return c.ref(parts)
}

// list is what stands between an array's brackets: items of which those beyond
// least can be missing, then more up to most in all (-1 = any number). "" = nothing.
// That all can be missing is left to the caller.
func (c *converter) list(s *shape, items []string, more string, least, most int) string {
	text := ""
	if more != "" {
		low, high := max(0, least-len(items)), -1
		if most >= 0 {
			high = most - len(items)
		}
		if len(items) > 0 {
			text = c.times(s, c.named(`"," space `+more, s.at), low, high)
		} else {
			text = c.series(s, more, low, high)
		}
	}
	// From the last item backwards. What can be missing encloses what comes after it.
	for i, one := range slices.Backward(items) {
		if i > 0 {
			one = `"," space ` + one
		}
		text = strings.TrimSuffix(one+" "+text, " ")
		if i > 0 && i >= least {
			text = c.named(text, s.at) + "?"
		}
	}
	return text
}

// series is from low to high (-1 = any number) items, at least one, with commas
// between; "" if high is 0.
func (c *converter) series(s *shape, item string, low, high int) string {
	if high == 0 {
		return ""
	}
	rest := -1
	if high > 0 {
		rest = high - 1
	}
	return strings.TrimSuffix(item+" "+c.times(s, c.named(`"," space `+item, s.at), max(0, low-1), rest), " ")
}

// block is the longest repetition that is written as one; a longer one is made of
// blocks, so that its rules are few.
const block = 256

// times is from low to high (-1 = no limit) of a symbol: a rule's name or a class.
// Each text has one way through it, or two where blocks meet.
func (c *converter) times(s *shape, symbol string, low, high int) string {
	if high < 0 {
		switch low {
		case 0:
			return symbol + "*"
		case 1:
			return symbol + "+"
		}
		return c.exactly(s, symbol, low) + " " + symbol + "*"
	}
	return strings.Trim(c.exactly(s, symbol, low)+" "+c.upTo(s, symbol, high-low), " ")
}

// exactly is n of a symbol.
func (c *converter) exactly(s *shape, symbol string, n int) string {
	switch {
	case n == 0:
		return ""
	case n == 1:
		return symbol
	case n <= block:
		return fmt.Sprintf("%s{%d}", symbol, n)
	}
	blocks := c.exactly(s, c.named(c.exactly(s, symbol, block), s.at), n/block)
	return strings.Trim(blocks+" "+c.exactly(s, symbol, n%block), " ")
}

// upTo is 0 to n of a symbol. Beyond a block that is either fewer blocks than fit
// and a part of one, or all blocks that fit and the rest.
func (c *converter) upTo(s *shape, symbol string, n int) string {
	switch {
	case n == 0:
		return ""
	case n == 1:
		return symbol + "?"
	case n <= block:
		return fmt.Sprintf("%s{0,%d}", symbol, n)
	}
	whole := c.named(c.exactly(s, symbol, block), s.at)
	fewer := c.upTo(s, whole, n/block-1) + " " + c.upTo(s, symbol, block-1)
	all := c.exactly(s, whole, n/block) + " " + c.upTo(s, symbol, n%block)
	return c.named(strings.Trim(fewer, " ")+" | "+strings.Trim(all, " "), s.at)
}
