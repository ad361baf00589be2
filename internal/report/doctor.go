package report

import (
	"fmt"
	"io"
	"strings"

	"tempo/internal/budget"
	"tempo/internal/doctor"
)

// DoctorSection prints a section of a report: a line with its outcome and below it
// what was found.
func DoctorSection(w io.Writer, s doctor.Section, r *doctor.Report) error {
	p := &page{w: w}
	switch s {
	case doctor.LibrariesSection:
		p.libraries(r.Libraries)
	case doctor.DevicesSection:
		p.devices(r.Devices)
	case doctor.ModelSection:
		p.model(r.Model)
	case doctor.NATSSection:
		p.nats(r.NATS)
	case doctor.MemorySection:
		p.memory(r.Memory)
	case doctor.LayersSection:
		p.layers(r.Layers)
	}
	return p.err
}

// DoctorVerdict prints the last line of a report.
func DoctorVerdict(w io.Writer, r *doctor.Report) error {
	p := &page{w: w}
	if r.CanRun {
		p.line("\na job could run here")
	} else {
		p.line("\nno job could run here: %s", strings.Join(r.Reasons, "; "))
	}
	return p.err
}

// page prints lines and keeps the first error.
type page struct {
	w   io.Writer
	err error
}

func (p *page) line(format string, args ...any) {
	if p.err != nil {
		return
	}
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); err != nil {
		p.err = fmt.Errorf("print the report: %w", err)
	}
}

// more prints a line below a head.
func (p *page) more(format string, args ...any) {
	p.line("%s%s", strings.Repeat(" ", indent), fmt.Sprintf(format, args...))
}

const indent = 18

// head prints the outcome of a check. found is what was looked at, "" = there is
// nothing to say.
func (p *page) head(name string, c doctor.Check, found string) {
	word := map[doctor.Status]string{doctor.OK: "ok", doctor.Warn: "warn", doctor.Fail: "FAIL", doctor.Skipped: "-"}[c.Status]
	problem := c.Problem
	if c.Status == doctor.Skipped {
		problem = "not checked: " + problem
	}
	if found == "" {
		found, problem = problem, ""
	}
	p.line("%-6s%-12s%s", word, name, found)
	if problem != "" {
		p.more("%s", problem)
	}
	if c.Hint != "" {
		p.more("hint: %s", c.Hint)
	}
}

func (p *page) libraries(l doctor.Libraries) {
	p.head("libraries", l.Check, from(l.Dir, l.Source))
	if len(l.Backends) == 0 {
		return
	}
	names := make([]string, len(l.Backends))
	for i, b := range l.Backends {
		names[i] = b.Name
		if b.Variants > 1 {
			names[i] += fmt.Sprintf(" (for %d kinds of processors)", b.Variants)
		}
	}
	p.more("backends: %s", strings.Join(names, ", "))
}

// from says where a path came from.
func from(path, source string) string {
	if path == "" {
		return ""
	}
	return fmt.Sprintf("%s (%s)", path, source)
}

func (p *page) devices(d doctor.Devices) {
	taken := ""
	if d.Taken != "" {
		taken = "takes " + d.Taken + ": " + d.Reason
	}
	p.head("devices", d.Check, taken)
	for _, one := range d.List {
		p.device(one, d)
	}
	if d.Driver != "" || d.NVML != "" {
		p.more("NVIDIA driver %s, NVML %s", known(d.Driver), known(d.NVML))
	}
	if d.DriverFault != "" && !strings.Contains(d.Reason, d.DriverFault) {
		p.more("no GPUs, or not all: %s", d.DriverFault)
	}
}

func known(version string) string {
	if version == "" {
		return "of unknown version"
	}
	return version
}

func (p *page) device(one doctor.Device, d doctor.Devices) {
	name := one.ID
	if one.Kind == budget.CUDA.String() {
		name = fmt.Sprintf("cuda:%d %s", one.Index, one.ID)
	}
	if one.Name != "" {
		name += ", " + one.Name
	}
	if one.Fault != "" {
		p.more("%s: %s", name, one.Fault)
		return
	}
	p.more("%s", name)
	memory := fmt.Sprintf("%v in all, %v free", one.Total, one.Free)
	if one.Reserved > 0 {
		memory += fmt.Sprintf(", %v kept by the driver", one.Reserved)
	}
	if one.MIG {
		memory += ", a MIG instance"
	}
	if one.BoundedBy != "" {
		memory += fmt.Sprintf(", bounded by %s; %d threads on %d cores", one.BoundedBy, d.Threads, d.Cores)
	}
	p.more("  %s", memory)
}

func (p *page) model(m doctor.Model) {
	found := from(m.Path, m.Source)
	if m.Architecture != "" {
		found = m.Name
	}
	p.head("model", m.Check, found)
	if m.Architecture == "" {
		return
	}
	p.more("%s", from(m.Path, m.Source))
	template := "with a chat template"
	if !m.ChatTemplate {
		template = "without a chat template"
	}
	p.more("%s, %d layers, trained for %d tokens, tensors of %v, %s", m.Architecture, m.Layers, m.Context, m.Tensors, template)
}

func (p *page) nats(n doctor.NATS) {
	found := ""
	if n.Status == doctor.OK {
		version := "nats-server " + known(n.Version)
		found = fmt.Sprintf("%s, %s, JetStream is on", n.Server, version)
	}
	p.head("nats", n.Check, found)
	if n.Note != "" {
		p.more("%s", n.Note)
	}
	switch {
	case n.Status != doctor.OK || n.Note != "" && len(n.Claims) == 0:
	case len(n.Claims) == 0:
		p.more("no other worker has claimed memory of the device")
	}
	for _, c := range n.Claims {
		p.more("worker %s (%s) has claimed %v of the device and holds %v", c.Worker, c.Model, c.Promised, c.Held)
	}
}

func (p *page) memory(m doctor.Memory) {
	found := ""
	if m.Limit > 0 {
		found = fmt.Sprintf("limit of %v on %s", m.Limit, m.Device)
	}
	p.head("memory", m.Check, found)
	if m.LimitReason != "" {
		p.more("%s", m.LimitReason)
	}
	if m.Status != doctor.OK {
		return
	}
	for _, l := range []struct {
		name string
		n    budget.Bytes
	}{
		{"weights", m.Weights}, {"KV cache", m.KVCache}, {"parallel batch", m.ParallelBatch}, {"overhead", m.Overhead}, {"total", m.Total},
	} {
		p.more("%16s %10v", l.name, l.n)
	}
	p.more("plan: %s", m.Plan)
	p.more("max_cache_tokens %d", m.MaxCacheTokens)
	p.more("%s", parallel(m.MaxParallelTokens, m.Rule))
}

// parallel says how max_parallel_tokens came about.
func parallel(n int, r doctor.Rule) string {
	if !r.Automatic {
		return fmt.Sprintf("max_parallel_tokens %d, as set", n)
	}
	text := fmt.Sprintf("max_parallel_tokens %d = clamp(0.8 · %v available / %v a token, 1, 50)", n, r.Available, r.TokenBytes)
	if r.Unbounded > n {
		text += fmt.Sprintf(" = %d, bounded by threads, batch size and what fits", r.Unbounded)
	}
	return text
}

func (p *page) layers(l *doctor.Layers) {
	if l.Status != doctor.OK {
		p.head("layers", l.Check, "")
		return
	}
	planned := "the memory was not planned, so without the KV cache"
	if l.Cells > 0 {
		planned = fmt.Sprintf("KV cache for %d tokens in %d sequences", l.Cells, l.Sequences)
	}
	p.line("")
	p.line("layers: %s", planned)
	p.line("%8s  %-10s %12s %14s %12s", "layer", "kind", "weights", "KV per token", "KV cache")
	for _, one := range l.List {
		perToken, cache := one.KVBytesPerToken.String(), one.KVCache.String()
		if !one.KVKnown {
			perToken, cache = "?", "?"
		}
		if l.Cells == 0 {
			cache = "-"
		}
		p.line("%8d  %-10s %12v %14s %12s", one.Index, one.Kind, one.Weights, perToken, cache)
	}
	p.line("%8s  %-10s %12v", "", "rest", l.Rest)
	p.line("%8s  %-10s %12v %14s %12v", "sum", "", l.Weights, "", l.KVCache)
	if l.Cells > 0 {
		p.line("%8s  %-10s %12v %14s %12v", "dry run", "", l.DryWeights, "", l.DryKVCache)
	}
	p.line("rest: token embeddings, output, norms")
	for _, d := range l.Differences {
		p.line("%s", d)
	}
}
