package report

import (
	"fmt"
	"io"
	"slices"

	"tempo/internal/budget"
	"tempo/internal/memtest"
)

// MemoryTestStep prints a step of a memory controls test.
func MemoryTestStep(w io.Writer, s memtest.Step, r *memtest.Result) error {
	p := &page{w: w}
	switch s {
	case memtest.MonitorStep:
		p.step("1 monitor", r.Monitor.Outcome, func() { p.monitor(r.Monitor) })
	case memtest.LoadStep:
		p.step("2 model load", r.Load.Outcome, func() { p.load(r.Load) })
	case memtest.LimitsStep:
		p.step("3 automatic limits", r.Limits.Outcome, func() { p.limits(r.Limits) })
	case memtest.GenerationStep:
		p.step("4 generation", r.Generation.Outcome, func() { p.generation(r.Generation) })
	case memtest.OppositeStep:
		p.step("  the opposite: a limit that is a little too small", r.Opposite.Outcome, func() { p.opposite(r.Opposite) })
	case memtest.VerdictStep:
		p.step("5 verdict", r.Verdict.Outcome, func() { p.verdict(r.Verdict, r.Generation.LowestLimit) })
		if r.Passed {
			p.line("\nPASS")
		} else {
			p.line("\nFAIL")
		}
	}
	return p.err
}

// step prints the head of a step, what was measured, and what went wrong.
func (p *page) step(name string, o memtest.Outcome, measured func()) {
	word := map[memtest.Status]string{memtest.OK: "ok", memtest.Failed: "FAIL", memtest.NotRun: "not run"}[o.Status]
	p.line("%s: %s", name, word)
	if o.Status == memtest.NotRun {
		return
	}
	measured()
	if o.Problem != "" {
		p.line("    %s", o.Problem)
	}
	if o.Hint != "" {
		p.line("    hint: %s", o.Hint)
	}
}

// fact prints a name and what belongs to it.
func (p *page) fact(name, format string, args ...any) {
	p.line("    %-16s %s", name, fmt.Sprintf(format, args...))
}

func (p *page) monitor(m memtest.Monitor) {
	if m.Device == "" {
		return
	}
	p.fact("device", "%s, %s", m.Device, m.DeviceName)
	p.fact("memory", "%v in all, %v free", m.Total, m.Free)
	p.fact("limit", "%v: %s", m.Limit, m.LimitReason)
	p.fact("this process", "%v on the device", m.Process)
	p.fact("engine process", "%v with nothing loaded", m.Engine)
}

func (p *page) load(l memtest.Load) {
	if len(l.Lines) == 0 {
		p.line("    %-16s %10s %10v", "peak meanwhile", "", l.Peak)
		return
	}
	p.line("    %-16s %10s %10s %12s", "", "estimate", "measured", "difference")
	for _, one := range slices.Concat(l.Lines, []memtest.Line{l.Total}) {
		p.line("    %-16s %10v %10v %12s", one.Name, one.Estimate, one.Measured, signed(one.Difference))
	}
	p.line("    %-16s %10s %10v", "peak meanwhile", "", l.Peak)
}

// signed is a difference with its sign.
func signed(b budget.Bytes) string {
	switch {
	case b > 0:
		return "+" + b.String()
	case b < 0:
		return "-" + (-b).String()
	}
	return "0"
}

func (p *page) limits(l memtest.Limits) {
	p.line("    %s", parallel(l.MaxParallelTokens, l.Rule))
	p.line("    max_cache_tokens %d in a KV pool of %v", l.MaxCacheTokens, l.Pool)
	p.line("    warns at %v (%.0f %%), acts at %v (%.0f %%)", l.Warn, 100*l.WarnShare, l.Act, 100*l.ActShare)
}

func (p *page) generation(g memtest.Generation) {
	p.fact("jobs", "%d queued, %d answered in %.1f s", g.Jobs, g.Answered, g.Seconds)
	p.fact("tokens", "%d generated", g.Tokens)
	share := 0.0
	if g.Pool > 0 {
		share = 100 * float64(g.PeakReserved) / float64(g.Pool)
	}
	p.fact("peak of leases", "%v of a KV pool of %v (%.0f %%)", g.PeakReserved, g.Pool, share)
	p.fact("at once", "%d ran, %d waited for memory at most; %d gave way to others", g.PeakRunning, g.PeakWaiting, g.GaveWay)
	p.fact("peak", "%v", g.Peak)
	if share < 90 && g.Status == memtest.OK {
		p.line("    the pool was not filled in this time: give more with --seconds, or a smaller --max-cache-tokens")
	}
}

func (p *page) opposite(o memtest.Opposite) {
	if o.Limit == 0 {
		return
	}
	p.fact("limit", "%v; the smallest that the plan accepts is %v", o.Limit, o.Smallest)
	if o.Need > 0 {
		p.fact("refused", "%v needed, %v can be had", o.Need, o.Available)
	}
	p.fact("held", "%v before, %v at most meanwhile; with an engine's process it may be %v", o.Before, o.Peak, o.Allowed)
	p.fact("", "(weights and KV cache take %v when they are loaded)", o.Loaded)
}

func (p *page) verdict(v memtest.Verdict, lowest budget.Bytes) {
	p.fact("peak", "%v of a limit of %v (%.0f %%)", v.Peak, v.Limit, 100*float64(v.Peak)/float64(max(v.Limit, 1)))
	if lowest > 0 && lowest < v.Limit {
		p.fact("", "others took memory meanwhile, which lowered the limit to %v for a time", lowest)
	}
	p.fact("measured", "%d times, every %d ms", v.Samples, v.EveryMS)
}
