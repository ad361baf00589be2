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

// Device is where a model can run, with its memory at the time of asking.
type Device struct {
	ID    string // CPUID, or the UUID of a GPU or MIG instance
	Name  string // for people
	Kind  Kind
	Index int // of the GPU, as nvidia-smi counts; 0 for the CPU
	Total Bytes
	Free  Bytes // what nobody uses, Tempo included
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
	// Devices lists the GPUs that answer, a split one as its MIG instances. The
	// error joins those of the others.
	Devices() ([]Device, error)
	MemoryBytes(uuid string) (total, used, free Bytes, err error)
	ProcessMemoryBytes(uuid string, pid int) (Bytes, error)
	Close() error
}

// Discover chooses the device to run on. The reason says in one line why it is
// this one, in particular why it is the CPU. A GPU that was asked for by name
// and cannot be used is an error with a Hint; only "auto" falls back.
func Discover(o DiscoverOptions) (dev Device, reason string, err error) {
	return discover(o, openNVML, cpuDevice)
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

func hintFor(err error) string {
	const orCPU = "or use the CPU (\"auto\" or \"cpu\")"
	switch {
	case errors.Is(err, errNoCUDABackend):
		return "give libraries with the CUDA backend (--llama-lib DIR), " + orCPU
	case errors.Is(err, ErrNoDriver):
		return "install the NVIDIA driver, give NVML's path, " + orCPU
	case errors.Is(err, ErrGPULost):
		return "reset the GPU or restart the machine, choose another GPU, " + orCPU
	}
	return "choose a GPU that nvidia-smi -L lists, " + orCPU
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
	devices, faults := driver.Devices()
	faults = errors.Join(faults, driver.Close())
	best, matching := Device{}, 0
	for _, d := range devices {
		if !w.matches(d) {
			continue
		}
		if matching == 0 || d.Free > best.Free {
			best = d
		}
		matching++
	}
	switch {
	case matching == 0 && faults != nil:
		return Device{}, "", fmt.Errorf("no usable GPU: %w", faults)
	case matching == 0 && len(devices) == 0:
		return Device{}, "", errors.New("the NVIDIA driver lists no GPU")
	case matching == 0:
		return Device{}, "", fmt.Errorf("no such GPU among the %d there are", len(devices))
	case !o.LlamaHasCUDA:
		return Device{}, "", fmt.Errorf("%s is there, but %w", best.Name, errNoCUDABackend)
	}
	reason := "asked for"
	if matching > 1 {
		reason = fmt.Sprintf("most free memory of %d GPUs", matching)
	} else if w.uuid == "" && w.index < 0 {
		reason = "the only usable GPU"
	}
	if faults != nil {
		reason += fmt.Sprintf(" (others failed: %v)", faults)
	}
	return best, reason, nil
}

// cpuDevice describes the CPU and the memory that this process may use.
func cpuDevice() (Device, error) {
	m, err := HostMemory()
	if err != nil {
		return Device{}, err
	}
	return Device{
		ID:    CPUID,
		Name:  fmt.Sprintf("%s (%d usable cores)", cpuName(os.DirFS("/")), UsableCores()),
		Kind:  CPU,
		Total: m.Total,
		Free:  m.Available,
	}, nil
}

// GPU reads the memory of one GPU. Safe for concurrent use; it keeps the driver
// open until Close.
type GPU struct {
	driver gpuDriver
	uuid   string
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
	if _, _, _, err := g.Memory(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Memory is the GPU's memory; used includes what other processes and the driver
// hold. Errors: ErrGPULost, or the driver's.
func (g *GPU) Memory() (total, used, free Bytes, err error) {
	total, used, free, err = g.driver.MemoryBytes(g.uuid)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%s: %w", g.uuid, err)
	}
	return total, used, free, nil
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

// Close lets go of the driver. The GPU must not be used after it.
func (g *GPU) Close() error {
	if err := g.driver.Close(); err != nil {
		return fmt.Errorf("%s: %w", g.uuid, err)
	}
	return nil
}
