package budget

import "errors"

// Found is a device, and why it cannot be used if it cannot.
type Found struct {
	Device       // as much of it as could be read; Kind and Index always are
	Fault  error // nil = it answers; has a Hint if something is known to help
}

// Inventory is every device of a machine.
type Inventory struct {
	Devices       []Found // the GPUs in their order, a split one as its MIG instances; then the CPU
	DriverVersion string  // of NVIDIA's driver, as "550.54.15"; "" = not known
	NVMLVersion   string  // "" = not known
	// Fault is why the driver does not answer or not in full; nil = it does. It
	// wraps ErrNoDriver on a machine without one.
	Fault error
}

// List looks at every device there is, for people who want to know what Tempo
// sees. nvmlPath is as in [DiscoverOptions].
func List(nvmlPath string) Inventory {
	return takeInventory(func() (gpuDriver, error) { return openNVML(nvmlPath) }, CPUDevice)
}

func takeInventory(open func() (gpuDriver, error), cpu func() (Device, error)) Inventory {
	var all Inventory
	if driver, err := open(); err != nil {
		all.Fault = hinted(err)
	} else {
		var errVersions, errDevices error
		all.DriverVersion, all.NVMLVersion, errVersions = driver.Versions()
		all.Devices, errDevices = driver.Devices()
		all.Fault = hinted(errors.Join(errVersions, errDevices, driver.Close()))
	}
	for i := range all.Devices {
		all.Devices[i].Fault = hinted(all.Devices[i].Fault)
	}
	host, err := cpu()
	host.ID, host.Kind = CPUID, CPU
	all.Devices = append(all.Devices, Found{Device: host, Fault: err})
	return all
}

// hinted adds to an error what helps against it, if that is known.
func hinted(err error) error {
	if hint := remedy(err); hint != "" {
		return &hintedError{err: err, hint: hint}
	}
	return err
}
