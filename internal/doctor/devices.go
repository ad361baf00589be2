package doctor

import (
	"fmt"
	"strings"

	"tempo/internal/budget"
	"tempo/internal/node"
)

// devices lists all devices and chooses the one that a worker would take.
func (e *examination) devices() {
	d := &e.report.Devices
	all := budget.List(e.config.Engine.NVMLPath)
	d.Driver, d.NVML = all.DriverVersion, all.NVMLVersion
	d.Check = Check{Status: OK}
	if all.Fault != nil {
		d.DriverFault = all.Fault.Error()
	}
	for _, f := range all.Devices {
		d.List = append(d.List, describe(f))
	}
	d.Cores, d.Threads = budget.UsableCores(), e.config.Engine.Threads
	if d.Threads == 0 {
		d.Threads = d.Cores
	}
	device, reason, err := node.Discover(e.config, e.report.Libraries.Dir)
	if err != nil {
		d.Check = fail(err)
		return
	}
	d.Taken, d.Reason, e.memoryID = device.ID, reason, device.MemoryID
	switch {
	case d.Threads > d.Cores:
		d.Check = Check{
			Status: Warn, Problem: fmt.Sprintf("%d threads on %d cores: decoding gets many times slower", d.Threads, d.Cores),
			Hint: fmt.Sprintf("give --threads %d, or leave it out", d.Cores),
		}
	case e.config.Engine.NVMLPath != "" && all.Fault != nil:
		d.Check = Check{Status: Warn, Problem: all.Fault.Error(), Hint: "give --nvml-path a library that can be loaded, or leave it out"}
	case faulty(d.List) != nil:
		f := faulty(d.List)
		d.Check = Check{Status: Warn, Problem: fmt.Sprintf("%s does not answer: %s", f.ID, f.Fault), Hint: f.Hint}
	}
}

func describe(f budget.Found) Device {
	d := Device{
		ID: f.ID, Name: f.Name, Kind: f.Kind.String(), Index: f.Index,
		Total: f.Total, Reserved: f.Reserved, Free: f.Free, MIG: strings.HasPrefix(f.ID, "MIG-"),
	}
	if f.Kind == budget.CPU {
		if host, err := budget.HostMemory(); err == nil { // else f.Fault says it
			d.BoundedBy = host.Source
		}
	}
	if f.Fault != nil {
		d.Fault, d.Hint = f.Fault.Error(), Hint(f.Fault)
	}
	return d
}

// faulty is the first device that does not answer, nil if all do.
func faulty(list []Device) *Device {
	for i := range list {
		if list[i].Fault != "" {
			return &list[i]
		}
	}
	return nil
}
