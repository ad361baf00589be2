package report

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/doctor"
	"tempo/internal/memtest"
)

func printedTest(t *testing.T, r *memtest.Result) string {
	t.Helper()
	var out bytes.Buffer
	for _, s := range []memtest.Step{
		memtest.MonitorStep, memtest.LoadStep, memtest.LimitsStep, memtest.GenerationStep, memtest.OppositeStep, memtest.VerdictStep,
	} {
		require.NoError(t, MemoryTestStep(&out, s, r))
	}
	return out.String()
}

func TestMemoryTest(t *testing.T) {
	t.Parallel()
	fine := memtest.Outcome{Status: memtest.OK}
	r := &memtest.Result{
		Monitor: memtest.Monitor{
			Outcome: fine, Device: "cpu", DeviceName: "Xeon", Total: 64 * budget.GiB, Free: 60 * budget.GiB,
			Limit: 2 * budget.GiB, LimitReason: "max_memory_gb allows it", Process: 28 * mib, Engine: 40 * mib,
		},
		Load: memtest.Load{
			Outcome: fine, Peak: 588 * mib,
			Lines: []memtest.Line{
				{Name: "weights", Estimate: 124 * mib, Measured: 125 * mib, Difference: mib},
				{Name: "KV cache", Estimate: 360 * mib, Measured: 360 * mib},
			},
			Total: memtest.Line{Name: "total", Estimate: 640 * mib, Measured: 588 * mib, Difference: -52 * mib},
		},
		Limits: memtest.Limits{
			Outcome: fine, MaxParallelTokens: 8, MaxCacheTokens: 8192, Pool: 360 * mib, Warn: 1700 * mib, WarnShare: 0.85, Act: 1900 * mib, ActShare: 0.95,
			Rule: doctor.Rule{Automatic: true, Available: budget.GiB, TokenBytes: 100 * mib, Unbounded: 8},
		},
		Generation: memtest.Generation{
			Outcome: fine, Jobs: 96, Answered: 14, Seconds: 20.04, Tokens: 1815, PeakReserved: 288 * mib, Pool: 360 * mib,
			PeakRunning: 8, PeakWaiting: 1, GaveWay: 2, Peak: 590 * mib,
		},
		Opposite: memtest.Opposite{
			Outcome: fine, Limit: 277 * mib, Smallest: 280 * mib, Need: 266 * mib, Available: 263 * mib,
			Before: 30 * mib, Peak: 42 * mib, Allowed: 72 * mib, Loaded: 484 * mib,
		},
		Verdict: memtest.Verdict{Outcome: fine, Peak: 590 * mib, Limit: 2 * budget.GiB, Samples: 1000, EveryMS: 20},
		Passed:  true,
	}
	require.Equal(t, `1 monitor: ok
    device           cpu, Xeon
    memory           64.0 GiB in all, 60.0 GiB free
    limit            2.00 GiB: max_memory_gb allows it
    this process     28.0 MiB on the device
    engine process   40.0 MiB with nothing loaded
2 model load: ok
                       estimate   measured   difference
    weights             124 MiB    125 MiB    +1.00 MiB
    KV cache            360 MiB    360 MiB            0
    total               640 MiB    588 MiB    -52.0 MiB
    peak meanwhile                 588 MiB
3 automatic limits: ok
    max_parallel_tokens 8 = clamp(0.8 · 1.00 GiB available / 100 MiB a token, 1, 50)
    max_cache_tokens 8192 in a KV pool of 360 MiB
    warns at 1.66 GiB (85 %), acts at 1.86 GiB (95 %)
4 generation: ok
    jobs             96 queued, 14 answered in 20.0 s
    tokens           1815 generated
    peak of leases   288 MiB of a KV pool of 360 MiB (80 %)
    at once          8 ran, 1 waited for memory at most; 2 gave way to others
    peak             590 MiB
    the pool was not filled in this time: give more with --seconds, or a smaller --max-cache-tokens
  the opposite: a limit that is a little too small: ok
    limit            277 MiB; the smallest that the plan accepts is 280 MiB
    refused          266 MiB needed, 263 MiB can be had
    held             30.0 MiB before, 42.0 MiB at most meanwhile; with an engine's process it may be 72.0 MiB
                     (weights and KV cache take 484 MiB when they are loaded)
5 verdict: ok
    peak             590 MiB of a limit of 2.00 GiB (29 %)
    measured         1000 times, every 20 ms

PASS
`, printedTest(t, r))
	r.Generation.LowestLimit = budget.GiB
	require.Contains(t, printedTest(t, r), "lowered the limit to 1.00 GiB")
	require.ErrorIs(t, MemoryTestStep(broken{}, memtest.VerdictStep, r), errBroken)
}

func TestMemoryTestFails(t *testing.T) {
	t.Parallel()
	not := memtest.Outcome{Status: memtest.NotRun}
	bad := memtest.Outcome{Status: memtest.Failed, Problem: "no room", Hint: "raise it"}
	require.Equal(t, `1 monitor: FAIL
    no room
    hint: raise it
2 model load: FAIL
    peak meanwhile                     0 B
    no room
    hint: raise it
3 automatic limits: not run
4 generation: not run
  the opposite: a limit that is a little too small: FAIL
    no room
    hint: raise it
5 verdict: not run

FAIL
`, printedTest(t, &memtest.Result{
		Monitor: memtest.Monitor{Outcome: bad}, Load: memtest.Load{Outcome: bad}, Limits: memtest.Limits{Outcome: not},
		Generation: memtest.Generation{Outcome: not}, Opposite: memtest.Opposite{Outcome: bad}, Verdict: memtest.Verdict{Outcome: not},
	}))
}
