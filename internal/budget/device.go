package budget

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Kind is the kind of a device.
type Kind int

// Kinds of devices.
const (
	CPU Kind = iota
	CUDA
)

// String returns "cpu" or "cuda".
func (k Kind) String() string {
	switch k {
	case CPU:
		return "cpu"
	case CUDA:
		return "cuda"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// CPUID is the ID of the CPU.
const CPUID = "cpu"

// ErrOldDriver: the NVIDIA driver lacks a function that is needed.
var ErrOldDriver = errors.New("the NVIDIA driver is too old")

// Device is where a model can run, with its memory at the time of asking.
type Device struct {
	ID    string // CPUID, or the UUID of a GPU or MIG instance
	Name  string // for people; that of a MIG instance ends with its profile, as "MIG 1g.10gb"
	Kind  Kind
	Index int // of the GPU, as nvidia-smi counts, also for the MIG instances on it; 0 for the CPU
	// MemoryID names the memory, the same in every process and container: workers
	// whose devices have the same one share it. MIG instances with UUIDs of their
	// own can (compute instances of one GPU instance).
	MemoryID string
	// Total is all there is, as nvidia-smi says it; of the CPU the smaller of
	// physical memory and the cgroups' limits.
	Total Bytes
	// Reserved is the part of Total that the driver and ECC keep: nobody can have
	// it. 0 on a CPU, and where the driver does not tell: it counts as used then.
	Reserved Bytes
	Free     Bytes // what nobody uses, Tempo included; nothing of Reserved
}

// Used is what all processes together hold, Tempo's included.
func (d Device) Used() Bytes {
	return max(d.Total.Sub(d.Reserved).Sub(d.Free), 0)
}

// DiscoverOptions say what to look for.
type DiscoverOptions struct {
	NVMLPath string // "" = libnvidia-ml.so.1, found by the system
	// WantGPU is "auto" (or ""): the GPU with the most free memory, else the CPU;
	// "cpu"; "cuda": a GPU or an error; "cuda:1": that one, as nvidia-smi counts;
	// or the UUID of a GPU or MIG instance.
	WantGPU      string
	LlamaHasCUDA bool // the llama.cpp libraries at hand carry the CUDA backend
}

// gpuDriver is what this package needs of a GPU driver; nvml.go has the one for
// NVIDIA. Devices are named by their UUID.
type gpuDriver interface {
	// Devices lists the GPUs in their order, a split one as its MIG instances.
	Devices() ([]Found, error)
	Device(uuid string) (Device, error)
	ProcessMemoryBytes(uuid string, pid int) (Bytes, error)
	Versions() (driver, library string, err error)
	Close() error
}

// Discover chooses the device to run on. The reason says in one line why it is
// this one, in particular why it is the CPU. A GPU that was asked for by name
// and cannot be used is an error with a Hint; only "auto" falls back.
func Discover(o DiscoverOptions) (dev Device, reason string, err error) {
	return discover(o, openNVML, CPUDevice)
}

func discover(o DiscoverOptions, open func(path string) (gpuDriver, error), cpu func() (Device, error)) (Device, string, error) {
	want, err := parseWant(o.WantGPU)
	if err != nil {
		return Device{}, "", err
	}
	if want.cpu {
		dev, err := cpu()
		return dev, "asked for", err
	}
	gpu, others, err := findGPU(o, want, open)
	switch {
	case err == nil:
		return gpu, others, nil
	case want.auto:
		dev, cpuErr := cpu()
		return dev, err.Error(), cpuErr
	}
	return Device{}, "", &hintedError{err: fmt.Errorf("use GPU %q: %w", o.WantGPU, err), hint: hintFor(err)}
}

var errNoCUDABackend = errors.New("the llama.cpp libraries at hand have no CUDA backend")

// hintFor is what to do about a GPU that was asked for and cannot be used.
func hintFor(err error) string {
	what := remedy(err)
	if what == "" {
		what = "choose a GPU that nvidia-smi -L lists"
	}
	return what + ", or use the CPU (\"auto\" or \"cpu\")"
}

// remedy is what helps against a fault of a GPU, "" if that is not known.
func remedy(err error) string {
	switch {
	case errors.Is(err, errNoCUDABackend):
		return "give libraries with the CUDA backend (--llama-lib DIR)"
	case errors.Is(err, ErrNoDriver):
		return "install the NVIDIA driver, give NVML's path"
	case errors.Is(err, ErrOldDriver):
		return "update the NVIDIA driver"
	case errors.Is(err, ErrGPULost):
		return "reset the GPU or restart the machine, choose another GPU"
	case errors.Is(err, errNoInstances):
		return "create one (nvidia-smi mig -cgi PROFILE -C) or turn MIG off (nvidia-smi -mig 0)"
	}
	return ""
}

// want is a parsed DiscoverOptions.WantGPU; without a uuid or an index any GPU
// will do.
type want struct {
	cpu, auto bool
	uuid      string
	index     int // -1 = any
}

func parseWant(s string) (want, error) {
	index, isIndexed := strings.CutPrefix(s, "cuda:")
	switch {
	case s == "" || s == "auto":
		return want{auto: true, index: -1}, nil
	case s == "cpu":
		return want{cpu: true}, nil
	case s == "cuda":
		return want{index: -1}, nil
	case strings.HasPrefix(s, "GPU-"), strings.HasPrefix(s, "MIG-"):
		return want{uuid: s, index: -1}, nil
	case isIndexed:
		if n, err := strconv.Atoi(index); err == nil && n >= 0 {
			return want{index: n}, nil
		}
	}
	return want{}, &hintedError{
		err:  fmt.Errorf("choose device: %q is not a device", s),
		hint: "give auto, cpu, cuda, cuda:0 (1, 2, …), or the UUID of a GPU (GPU-…) or MIG instance (MIG-…)",
	}
}

func (w want) matches(d Device) bool {
	return (w.uuid == "" || w.uuid == d.ID) && (w.index < 0 || w.index == d.Index)
}

// findGPU returns the GPU with the most free memory among those wanted, the
// first of equals, and a reason.
func findGPU(o DiscoverOptions, w want, open func(string) (gpuDriver, error)) (Device, string, error) {
	driver, err := open(o.NVMLPath)
	if err != nil {
		return Device{}, "", err
	}
	all, err := driver.Devices()
	faults := []error{err, driver.Close()}
	best, matching := Device{}, 0
	for _, d := range all {
		faults = append(faults, d.Fault)
		if d.Fault != nil || !w.matches(d.Device) {
			continue
		}
		if matching == 0 || d.Free > best.Free {
			best = d.Device
		}
		matching++
	}
	fault := errors.Join(faults...)
	switch {
	case matching == 0 && fault != nil:
		return Device{}, "", fmt.Errorf("no usable GPU: %w", fault)
	case matching == 0 && len(all) == 0:
		return Device{}, "", errors.New("the NVIDIA driver lists no GPU")
	case matching == 0:
		return Device{}, "", fmt.Errorf("no such GPU among the %d there are", len(all))
	case !o.LlamaHasCUDA:
		return Device{}, "", fmt.Errorf("%s is there, but %w", best.Name, errNoCUDABackend)
	}
	reason := "asked for"
	if matching > 1 {
		reason = fmt.Sprintf("most free memory of %d GPUs", matching)
	} else if w.uuid == "" && w.index < 0 {
		reason = "the only usable GPU"
	}
	if fault != nil {
		reason += fmt.Sprintf(" (others failed: %v)", fault)
	}
	return best, reason, nil
}

// CPUDevice describes the CPU and the memory that this process may use, read now.
func CPUDevice() (Device, error) {
	m, err := HostMemory()
	if err != nil {
		return Device{}, err
	}
	return Device{
		ID:       CPUID,
		Name:     fmt.Sprintf("%s (%d usable cores)", cpuName(os.DirFS("/")), UsableCores()),
		Kind:     CPU,
		MemoryID: m.ID,
		Total:    m.Total,
		Free:     m.Available,
	}, nil
}
