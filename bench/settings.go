package main

import (
	"context"
	"slices"
)

// search looks for the best of a program's settings: it tries each of the bases,
// then whether the best gets better with each of the additions. try returns a
// rate.
func search(ctx context.Context, bases, additions [][]string, try func(context.Context, []string) (float64, error)) (best []string, err error) {
	rate := 0.0
	consider := func(settings []string, better float64) error {
		got, err := try(ctx, settings)
		if err == nil && got > rate*better {
			best, rate = settings, got
		}
		return err
	}
	for _, base := range bases {
		if err := consider(base, 1); err != nil {
			return nil, err
		}
	}
	for _, more := range additions {
		// Less than that is noise.
		if err := consider(slices.Concat(best, more), 1.02); err != nil {
			return nil, err
		}
	}
	return best, nil
}

// layouts are the settings that decide most, of both peers.
func layouts() [][]string {
	return [][]string{
		{"--ubatch-size", "512", "--no-kv-unified"},
		{"--ubatch-size", "2048", "--no-kv-unified"},
		{"--ubatch-size", "512", "--kv-unified"},
		{"--ubatch-size", "2048", "--kv-unified"},
	}
}

// withoutFlash and withoutHostCache can make a peer faster on a CPU.
func withoutFlash() []string { return []string{"--flash-attn", "off"} }

func withoutHostCache() []string { return []string{"--cache-ram", "0"} }
