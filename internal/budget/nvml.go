package budget

import (
	"errors"
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
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
	if err := tryNVML(where); err != nil {
		return nil, err
	}
	return startNVML(nvml.New(options...), where)
}

// tryNVML loads the library once, to say why where it cannot be loaded, and
// because go-nvml would end the process where it is some other library.
func tryNVML(where string) error {
	lib := dl.New(where, dl.RTLD_LAZY|dl.RTLD_LOCAL)
	if err := lib.Open(); err != nil {
		return fmt.Errorf("%w: %s cannot be loaded (%s)", ErrNoDriver, where, strings.TrimPrefix(err.Error(), where+": "))
	}
	if err := errors.Join(lib.Lookup("nvmlInit_v2"), lib.Close()); err != nil {
		return fmt.Errorf("%w: %s is not NVML: %w", ErrNoDriver, where, err)
	}
	return nil
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
	case nvml.ERROR_FUNCTION_NOT_FOUND:
		return fmt.Errorf("%s: %w (%w)", doing, ErrOldDriver, r)
	}
	return fmt.Errorf("%s: %w", doing, r)
}

// has reports whether the library has a function. All that are younger than MIG
// must be asked for: a call of one that is missing ends the process.
func (d *nvmlDriver) has(function string) bool {
	return d.lib.Extensions().LookupSymbol(function) == nil
}

func (d *nvmlDriver) Versions() (driver, library string, err error) {
	driver, r := d.lib.SystemGetDriverVersion()
	errDriver := check("read the driver's version", r)
	library, r = d.lib.SystemGetNVMLVersion()
	return driver, library, errors.Join(errDriver, check("read NVML's version", r))
}

func (d *nvmlDriver) Close() error {
	return check("stop NVML", d.lib.Shutdown())
}

// open asks for the handle each time: one of a MIG instance can mean another
// instance once that is gone.
func (d *nvmlDriver) open(uuid string) (part, error) {
	handle, r := d.lib.DeviceGetHandleByUUID(uuid)
	if r == nvml.ERROR_GPU_IS_LOST { // any GPU of the machine, not necessarily this one
		if p, ok := d.search(uuid); ok {
			return p, nil
		}
	}
	if err := check("open GPU", r); err != nil {
		return part{}, err
	}
	if !strings.HasPrefix(uuid, "MIG-") {
		return part{handle: handle, gpu: handle}, nil
	}
	gpu, r := handle.GetDeviceHandleFromMigDeviceHandle()
	return part{handle: handle, gpu: gpu, isMIG: true}, check("find the GPU of a MIG instance", r)
}

// search is open for a machine on which some GPU is lost.
func (d *nvmlDriver) search(uuid string) (part, bool) {
	count, _ := d.lib.DeviceGetCount() // 0 if it fails
	for i := range count {
		for _, p := range d.partsOf(i) {
			if p.fault != nil {
				continue
			}
			if id, r := p.handle.GetUUID(); r == nvml.SUCCESS && id == uuid {
				return p, true
			}
		}
	}
	return part{}, false
}
