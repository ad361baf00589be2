package budget

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

var errNoInstances = errors.New("MIG is on, and there is no MIG instance")

// part is what CUDA can use of a GPU: the whole, or a MIG instance.
type part struct {
	handle nvml.Device
	gpu    nvml.Device // that it is part of; handle itself if it is the whole
	isMIG  bool
	fault  error // why there are no handles
}

func (d *nvmlDriver) Devices() ([]Found, error) {
	count, r := d.lib.DeviceGetCount()
	if err := check("count GPUs", r); err != nil {
		return nil, err
	}
	var all []Found
	for i := range count {
		for _, p := range d.partsOf(i) {
			f := Found{Fault: p.fault}
			if f.Fault == nil {
				f.Device, f.Fault = d.describe(p)
			}
			f.Kind, f.Index = CUDA, i
			all = append(all, f)
		}
	}
	return all, nil
}

func (d *nvmlDriver) Device(uuid string) (Device, error) {
	p, err := d.open(uuid)
	if err != nil {
		return Device{}, err
	}
	return d.describe(p)
}

// partsOf returns the GPU of this index, or its MIG instances if it is split:
// CUDA cannot use the whole then. One that cannot be opened has a fault.
func (d *nvmlDriver) partsOf(index int) []part {
	gpu, r := d.lib.DeviceGetHandleByIndex(index)
	if err := check(fmt.Sprintf("open GPU %d", index), r); err != nil {
		return []part{{fault: err}}
	}
	whole := []part{{handle: gpu, gpu: gpu}}
	if !d.has("nvmlDeviceGetMigMode") { // a driver that is older than MIG
		return whole
	}
	mode, _, r := gpu.GetMigMode()
	if r == nvml.ERROR_NOT_SUPPORTED || r == nvml.SUCCESS && mode != nvml.DEVICE_MIG_ENABLE {
		return whole
	}
	if err := check(fmt.Sprintf("read MIG mode of GPU %d", index), r); err != nil {
		return []part{{fault: err}}
	}
	most, r := gpu.GetMaxMigDeviceCount()
	if err := check(fmt.Sprintf("count MIG instances of GPU %d", index), r); err != nil {
		return []part{{fault: err}}
	}
	var parts []part
	for i := range most {
		instance, r := gpu.GetMigDeviceHandleByIndex(i)
		if r == nvml.ERROR_NOT_FOUND { // a place without an instance
			continue
		}
		parts = append(parts, part{
			handle: instance, gpu: gpu, isMIG: true,
			fault: check(fmt.Sprintf("open MIG instance %d of GPU %d", i, index), r),
		})
	}
	if len(parts) == 0 {
		return []part{{fault: fmt.Errorf("open GPU %d: %w", index, errNoInstances)}}
	}
	return parts
}

func (d *nvmlDriver) describe(p part) (Device, error) {
	index, r := p.gpu.GetIndex()
	if err := check("read a GPU's index", r); err != nil {
		return Device{}, err
	}
	dev := Device{Kind: CUDA, Index: index}
	dev.ID, r = p.handle.GetUUID()
	if err := check(fmt.Sprintf("read UUID of GPU %d", index), r); err != nil {
		return Device{}, err
	}
	dev.Name, r = p.handle.GetName()
	if err := check("read name of "+dev.ID, r); err != nil {
		return Device{}, err
	}
	var err error
	if dev.MemoryID, err = p.memoryID(); err == nil {
		dev.Total, dev.Reserved, dev.Free, err = d.memory(p.handle)
	}
	if err != nil {
		return Device{}, fmt.Errorf("%s: %w", dev.ID, err)
	}
	return dev, nil
}

// memoryID names the part's memory. Compute instances of one GPU instance have
// UUIDs of their own and share its memory.
func (p part) memoryID() (string, error) {
	id, r := p.gpu.GetUUID()
	if err := check("read UUID", r); err != nil || !p.isMIG {
		return id, err
	}
	instance, r := p.handle.GetGpuInstanceId()
	return fmt.Sprintf("%s/gi%d", id, instance), check("read the GPU instance", r)
}

// memory reads the memory of a GPU or MIG instance. What is used is not taken from
// NVML: v1 counts what is reserved as used, v2 does or does not, according to which
// page of its documentation one reads. What is free is the same in both.
func (d *nvmlDriver) memory(handle nvml.Device) (total, reserved, free Bytes, err error) {
	tooOld := []nvml.Return{nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_ARGUMENT_VERSION_MISMATCH}
	if d.has("nvmlDeviceGetMemoryInfo_v2") {
		m, r := handle.GetMemoryInfo_v2()
		if !slices.Contains(tooOld, r) {
			return FromUint64(m.Total), FromUint64(m.Reserved), FromUint64(m.Free), check("read memory", r)
		}
	}
	m, r := handle.GetMemoryInfo()
	return FromUint64(m.Total), 0, FromUint64(m.Free), check("read memory", r)
}

// ProcessMemoryBytes looks among the processes that compute, with and without MPS;
// each is listed with all that it holds. An engine has no graphics. On a MIG
// instance only its own processes are listed.
func (d *nvmlDriver) ProcessMemoryBytes(uuid string, pid int) (Bytes, error) {
	p, err := d.open(uuid)
	if err != nil {
		return 0, err
	}
	processes, r := p.handle.GetComputeRunningProcesses()
	if err := check("list processes on GPU", r); err != nil {
		return 0, err
	}
	if d.has("nvmlDeviceGetMPSComputeRunningProcesses") {
		clients, r := p.handle.GetMPSComputeRunningProcesses()
		if r != nvml.ERROR_NOT_SUPPORTED {
			if err := check("list MPS clients on GPU", r); err != nil {
				return 0, err
			}
			processes = append(processes, clients...)
		}
	}
	for _, process := range processes {
		if int(process.Pid) != pid {
			continue
		}
		if process.UsedGpuMemory == math.MaxUint64 { // NVML_VALUE_NOT_AVAILABLE
			return 0, fmt.Errorf("read memory of process %d: %w", pid, ErrNotMeasured)
		}
		return FromUint64(process.UsedGpuMemory), nil
	}
	return 0, fmt.Errorf("read memory of process %d: %w", pid, ErrProcessNotFound)
}
