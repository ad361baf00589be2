package llama

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// cacheTypes are what llama.cpp can keep keys and values in.
func cacheTypes() map[string]llama.GGMLType {
	return map[string]llama.GGMLType{
		"f32":    llama.GGMLTypeF32,
		"f16":    llama.GGMLTypeF16,
		"bf16":   llama.GGMLTypeBF16,
		"q8_0":   llama.GGMLTypeQ8_0,
		"q4_0":   llama.GGMLTypeQ4_0,
		"q4_1":   llama.GGMLTypeQ4_1,
		"q5_0":   llama.GGMLTypeQ5_0,
		"q5_1":   llama.GGMLTypeQ5_1,
		"iq4_nl": llama.GGMLTypeIQ4_NL,
	}
}

// CacheTypes are the names of what keys and values can be kept in, sorted.
func CacheTypes() []string {
	names := make([]string, 0, 9)
	for name := range cacheTypes() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Quantised reports whether that type is quantised. Values of such a type are read with flash
// attention only.
func Quantised(name string) bool { return strings.Contains(name, "q") }

// CacheTypeError says that there is no such type for the KV cache.
type CacheTypeError struct{ Name string }

func (e *CacheTypeError) Error() string {
	return fmt.Sprintf("a KV cache of type %q is unknown", e.Name)
}

// Hint says what there is.
func (e *CacheTypeError) Hint() string { return "the types are " + strings.Join(CacheTypes(), ", ") }

// cacheType is the type of that name, f16 for none.
func cacheType(name string) (llama.GGMLType, error) {
	if name == "" {
		name = "f16"
	}
	t, ok := cacheTypes()[name]
	if !ok {
		return 0, &CacheTypeError{name}
	}
	return t, nil
}

// quantised says, for an error, what a quantised cache asks of a model. llama.cpp's
// own reason does not always.
func (o ContextOptions) quantised() string {
	if !Quantised(o.TypeK) && !Quantised(o.TypeV) {
		return ""
	}
	return fmt.Sprintf(" with keys in %s and values in %s (quantised values need flash attention, and heads of a multiple of 32)",
		orF16(o.TypeK), orF16(o.TypeV))
}

func orF16(name string) string {
	if name == "" {
		return "f16"
	}
	return name
}
