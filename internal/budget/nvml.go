package budget

import (
	"errors"
	"fmt"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlDriver is the gpuDriver of NVIDIA's management library.
type nvmlDriver struct {
	lib nvml.Interface
}

// openNVML loads NVML from path, or where the system has it if path is "".
func openNVML(path string) (gpuDriver, error) {
	var options []nvml.LibraryOption
	where := "libnvidia-ml.so.1"
	if path != "" {
		options = append(options, nvml.WithLibraryPath(path))
		where = path
	}
	return startNVML(nvml.New(options...), where)
}

func startNVML(lib nvml.Interface, where string) (gpuDriver, error) {
	switch r := lib.Init(); r {
	case nvml.SUCCESS:
		return &nvmlDriver{lib: lib}, nil
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, fmt.Errorf("%w: %s cannot be loaded", ErrNoDriver, where)
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: %s is there, its kernel module is not loaded", ErrNoDriver, where)
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return nil, fmt.Errorf("%s and the loaded kernel module are of different versions; restart the machine: %w", where, r)
	default:
		return nil, check("start NVML ("+where+")", r)
	}
}

// check turns an answer of NVML into an error. (A Return is an error even when
// it says SUCCESS, so it must never be converted unchecked.)
func check(doing string, r nvml.Return) error {
	switch r {
	case nvml.SUCCESS:
		return nil
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED:
		return fmt.Errorf("%s: %w (%w)", doing, ErrGPULost, r)
	}
	return fmt.Errorf("%s: %w", doing, r)
}

func (d *nvmlDriver) Devices() ([]Device, error) {
	count, r := d.lib.DeviceGetCount()
	if err := check("count GPUs", r); err != nil {
		return nil, err
	}
	var devices []Device
	var faults []error
	for i := range count {
		found, err := d.devicesAt(i)
		devices = append(devices, found...)
		faults = append(faults, err)
	}
	return devices, errors.Join(faults...)
}

// devicesAt returns the GPU of this index, or its MIG instances if it is split:
// CUDA cannot use the whole then.
func (d *nvmlDriver) devicesAt(index int) ([]Device, error) {
	handle, r := d.lib.DeviceGetHandleByIndex(index)
	if err := check(fmt.Sprintf("open GPU %d", index), r); err != nil {
		return nil, err
	}
	mode, _, r := handle.GetMigMode()
	if r == nvml.ERROR_NOT_SUPPORTED || r == nvml.SUCCESS && mode != nvml.DEVICE_MIG_ENABLE {
		dev, err := describe(handle, index)
		if err != nil {
			return nil, err
		}
		return []Device{dev}, nil
	}
	if err := check(fmt.Sprintf("read MIG mode of GPU %d", index), r); err != nil {
		return nil, err
	}
	most, r := handle.GetMaxMigDeviceCount()
	if err := check(fmt.Sprintf("count MIG instances of GPU %d", index), r); err != nil {
		return nil, err
	}
	var devices []Device
	for i := range most {
		instance, r := handle.GetMigDeviceHandleByIndex(i)
		if r == nvml.ERROR_NOT_FOUND { // a place without an instance
			continue
		}
		if err := check(fmt.Sprintf("open MIG instance %d of GPU %d", i, index), r); err != nil {
			return devices, err
		}
		dev, err := describe(instance, index)
		if err != nil {
			return devices, err
		}
		devices = append(devices, dev)
	}
	return devices, nil
}

func describe(handle nvml.Device, index int) (Device, error) {
	uuid, r := handle.GetUUID()
	if err := check(fmt.Sprintf("read UUID of GPU %d", index), r); err != nil {
		return Device{}, err
	}
	name, r := handle.GetName()
	if err := check("read name of "+uuid, r); err != nil {
		return Device{}, err
	}
	total, _, free, err := memory(handle)
	if err != nil {
		return Device{}, fmt.Errorf("%s: %w", uuid, err)
	}
	return Device{ID: uuid, Name: name, Kind: CUDA, Index: index, Total: total, Free: free}, nil
}

func memory(handle nvml.Device) (total, used, free Bytes, err error) {
	m, r := handle.GetMemoryInfo()
	if err := check("read memory", r); err != nil {
		return 0, 0, 0, err
	}
	return FromUint64(m.Total), FromUint64(m.Used), FromUint64(m.Free), nil
}

// open asks for the handle each time: a lost GPU is noticed, and a handle from
// before a reset is never used.
func (d *nvmlDriver) open(uuid string) (nvml.Device, error) {
	handle, r := d.lib.DeviceGetHandleByUUID(uuid)
	return handle, check("open GPU", r)
}

func (d *nvmlDriver) MemoryBytes(uuid string) (total, used, free Bytes, err error) {
	handle, err := d.open(uuid)
	if err != nil {
		return 0, 0, 0, err
	}
	return memory(handle)
}

func (d *nvmlDriver) ProcessMemoryBytes(uuid string, pid int) (Bytes, error) {
	handle, err := d.open(uuid)
	if err != nil {
		return 0, err
	}
	processes, r := handle.GetComputeRunningProcesses()
	if err := check("list processes on GPU", r); err != nil {
		return 0, err
	}
	for _, p := range processes {
		if int(p.Pid) != pid {
			continue
		}
		if p.UsedGpuMemory == math.MaxUint64 { // NVML_VALUE_NOT_AVAILABLE
			return 0, fmt.Errorf("read memory of process %d: %w", pid, ErrNotMeasured)
		}
		return FromUint64(p.UsedGpuMemory), nil
	}
	return 0, fmt.Errorf("read memory of process %d: %w", pid, ErrProcessNotFound)
}

func (d *nvmlDriver) Close() error {
	return check("stop NVML", d.lib.Shutdown())
}
