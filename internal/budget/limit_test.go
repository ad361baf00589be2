package budget

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEffectiveLimit(t *testing.T) {
	t.Parallel()
	dev := Device{ID: "gpu", Total: 81 * GiB, Reserved: GiB, Free: 10 * GiB}
	with := func(free Bytes) Device { d := dev; d.Free = free; return d }
	for name, c := range map[string]struct {
		r    LimitRequest
		want Bytes
		why  string
	}{
		"maximum": {
			LimitRequest{Maximum: 4 * GiB, Device: dev, Reserve: GiB},
			4 * GiB,
			"max_memory_gb allows 4.00 GiB (gpu has 10.0 GiB free)",
		},
		"free": {
			LimitRequest{Maximum: 36 * GiB, Device: dev, Reserve: GiB},
			9 * GiB,
			"gpu has 10.0 GiB free, less a reserve of 1.00 GiB (max_memory_gb would allow 36.0 GiB)",
		},
		"nothing is free":  {LimitRequest{Maximum: 36 * GiB, Device: dev, Reserve: 11 * GiB}, 0, "gpu has 10.0 GiB free, less"},
		"negative maximum": {LimitRequest{Maximum: -1, Device: dev}, 0, "max_memory_gb allows"},
		"mine counts": {
			LimitRequest{Maximum: 36 * GiB, Device: dev, Mine: 20 * GiB, Reserve: GiB},
			29 * GiB,
			"gpu has 10.0 GiB free and this worker holds 20.0 GiB, less a reserve of 1.00 GiB (max_memory_gb would allow 36.0 GiB)",
		},
		"mine, up to the maximum": {
			LimitRequest{Maximum: 20 * GiB, Device: dev, Mine: 20 * GiB, Reserve: GiB},
			20 * GiB,
			"max_memory_gb allows 20.0 GiB (gpu has 10.0 GiB free and this worker holds 20.0 GiB)",
		},
		"others will take more": {
			LimitRequest{Maximum: 60 * GiB, Device: with(50 * GiB), Reserve: GiB, Others: []Claimed{
				{Promised: 20 * GiB, Held: 15 * GiB},
				{Promised: 10 * GiB, Held: 3 * GiB},
				{Promised: 5 * GiB, Held: 6 * GiB}, // more than it promised: the device has that already
			}},
			37 * GiB,
			"gpu has 50.0 GiB free, 3 other workers have claimed 12.0 GiB more, less a reserve of 1.00 GiB (max_memory_gb would allow 60.0 GiB)",
		},
		"others hold what they were promised": {
			LimitRequest{Maximum: 60 * GiB, Device: with(50 * GiB), Reserve: GiB, Others: []Claimed{{Promised: 20 * GiB, Held: 20 * GiB}}},
			49 * GiB,
			"gpu has 50.0 GiB free, less a reserve of 1.00 GiB (max_memory_gb would allow 60.0 GiB)",
		},
		"what another holds is no longer true": {
			LimitRequest{Maximum: 60 * GiB, Device: with(70 * GiB), Reserve: GiB, Others: []Claimed{{Promised: 50 * GiB, Held: 50 * GiB}}},
			29 * GiB,
			"gpu has 80.0 GiB and 1 other worker has claimed 50.0 GiB of it, less a reserve of 1.00 GiB (max_memory_gb would allow 60.0 GiB)",
		},
		"mine is no longer true": {
			LimitRequest{Maximum: 99 * GiB, Device: with(70 * GiB), Mine: 20 * GiB, Reserve: GiB},
			79 * GiB,
			"gpu has 80.0 GiB, less a reserve of 1.00 GiB (max_memory_gb would allow 99.0 GiB)",
		},
		"more is promised than there is": {
			LimitRequest{Maximum: 60 * GiB, Device: with(0), Others: []Claimed{{Promised: 90 * GiB}}},
			0,
			"gpu has 0 B free, 1 other worker has claimed 90.0 GiB more, less",
		},
		"a promise stays while another loads": {
			LimitRequest{Maximum: 60 * GiB, Device: with(30 * GiB), Reserve: GiB, Promised: 29 * GiB, Others: []Claimed{
				{Promised: 50 * GiB, Target: 40 * GiB, Held: 10 * GiB}, // of which 20 more are taken by now
			}},
			19 * GiB,
			"gpu has 30.0 GiB free, 1 other worker has claimed 10.0 GiB more",
		},
		"and is not raised either": {
			LimitRequest{Maximum: 60 * GiB, Device: with(65 * GiB), Reserve: GiB, Promised: 26 * GiB, Others: []Claimed{
				{Promised: 50 * GiB, Target: 40 * GiB, Held: 10 * GiB},
			}},
			26 * GiB,
			"26.0 GiB stay promised while workers load or unload: gpu has 65.0 GiB free, 1 other worker has claimed 40.0 GiB more",
		},
		"a promise stays while this worker loads": {
			LimitRequest{Maximum: 60 * GiB, Device: with(40 * GiB), Reserve: GiB, Mine: 5 * GiB, Target: 30 * GiB, Promised: 55 * GiB},
			55 * GiB,
			"55.0 GiB stay promised while workers load or unload: gpu has 40.0 GiB free and this worker holds 5.00 GiB",
		},
		"nonsense saturates": {
			LimitRequest{Maximum: maxBytes, Device: with(0), Others: []Claimed{{Promised: maxBytes}, {Promised: maxBytes, Held: -5}, {Promised: -7}}},
			0,
			"3 other workers have claimed 8.00 EiB more",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, why := EffectiveLimit(c.r)
			require.Equal(t, c.want, n, why)
			require.Contains(t, why, c.why)
		})
	}
}

// TestEffectiveLimitTogether has workers that load and unload beside each other, each
// of which says what it holds only once a second, at a moment of its own, beside
// somebody who is no worker. Together they are never promised more than there is, and
// no promise is taken back because another makes use of its own. What the somebody
// takes more is given up.
func TestEffectiveLimitTogether(t *testing.T) {
	t.Parallel()
	const usable, reserve, second = 800, 20, 10
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 6))
		foreign := Bytes(80)
		said := make([]Claimed, 3) // by each worker
		held := make([]Bytes, len(said))
		for now := range 60 * second {
			var promised, used Bytes
			for i := range said {
				if target := said[i].Target; target > 0 { // loading takes a while
					held[i] += min(max(target-held[i], -4), 4)
				}
				used += held[i]
				promised += said[i].Promised
			}
			require.LessOrEqual(t, promised, Bytes(usable-reserve), "seed %d at %d", seed, now)
			if now < 40*second || now > 55*second {
				require.LessOrEqual(t, promised, usable-foreign-reserve, "seed %d at %d", seed, now)
			}
			if now == 40*second {
				foreign = 300
			}
			i := now % second
			if i >= len(said) {
				continue
			}
			mine := said[i]
			if held[i] == mine.Target || mine.Target > mine.Promised {
				mine.Target = 0 // it is done, or must give up
			}
			if now < 40*second && mine.Promised > 0 && rng.IntN(5) == 0 {
				mine.Target = 1 + Bytes(rng.Int64N(int64(mine.Promised)))
			}
			mine.Held = held[i]
			limit, why := EffectiveLimit(LimitRequest{
				Maximum: 300, Device: Device{Total: usable, Free: usable - foreign - used}, Reserve: reserve,
				Mine: mine.Held, Target: mine.Target, Promised: mine.Promised, Others: append(append([]Claimed(nil), said[:i]...), said[i+1:]...),
			})
			if now < 40*second {
				require.GreaterOrEqual(t, limit, mine.Promised, "seed %d at %d: %s", seed, now, why)
			}
			mine.Promised = limit
			said[i] = mine
		}
	}
}
