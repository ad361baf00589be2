package budget

import (
	"errors"
	"fmt"
)

// GPU reads the memory of one GPU. Safe for concurrent use; it keeps the driver
// open until Close.
type GPU struct {
	driver gpuDriver
	uuid   string
	before Bytes // used by all processes when it was opened
}

// OpenGPU opens the GPU or MIG instance of this UUID (a [Device]'s ID).
// nvmlPath is as in [DiscoverOptions].
func OpenGPU(nvmlPath, uuid string) (*GPU, error) {
	driver, err := openNVML(nvmlPath)
	if err != nil {
		return nil, err
	}
	return newGPU(driver, uuid)
}

// newGPU takes over the driver; it closes it if the GPU does not answer.
func newGPU(driver gpuDriver, uuid string) (*GPU, error) {
	g := &GPU{driver: driver, uuid: uuid}
	d, err := g.Device()
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.before = d.Used()
	return g, nil
}

// Device is the GPU with its memory as it is now. Errors: ErrGPULost, or the
// driver's.
func (g *GPU) Device() (Device, error) {
	d, err := g.driver.Device(g.uuid)
	if err != nil {
		return Device{}, fmt.Errorf("%s: %w", g.uuid, err)
	}
	return d, nil
}

// ProcessMemory is what a process holds on the GPU, its CUDA context included.
// Errors: ErrProcessNotFound, ErrNotMeasured, ErrGPULost, or the driver's.
func (g *GPU) ProcessMemory(pid int) (Bytes, error) {
	n, err := g.driver.ProcessMemoryBytes(g.uuid, pid)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", g.uuid, err)
	}
	return n, nil
}

// Growth is what all processes together hold beyond what they held when the GPU
// was opened, at least 0. It stands in for ProcessMemory where the driver does not
// tell that ([Monitor.FallBackTo]): what others take meanwhile is in it too, so
// that it errs on the safe side. Errors are those of Device.
func (g *GPU) Growth() (Bytes, error) {
	d, err := g.Device()
	if err != nil {
		return 0, err
	}
	return max(d.Used().Sub(g.before), 0), nil
}

// Close lets go of the driver. The GPU must not be used after it.
func (g *GPU) Close() error {
	if err := g.driver.Close(); err != nil {
		return fmt.Errorf("%s: %w", g.uuid, err)
	}
	return nil
}
