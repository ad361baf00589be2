package budget

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/require"
)

// h100s returns a mock machine with eight GPUs of 80 GiB, of which GPU i has
// i+1 GiB free and runs process 100+i with 2 GiB.
func h100s(t *testing.T) (*server.Server, []*server.Device) {
	t.Helper()
	s := dgxh100.New()
	var devices []*server.Device
	for i := range s.Devices {
		d := s.Devices[i].(*server.Device)
		free := uint64(i+1) << 30
		d.MemoryInfo = nvml.Memory{Total: 80 << 30, Free: free, Used: 80<<30 - free}
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{
				{Pid: uint32(100 + i), UsedGpuMemory: 2 << 30},
				{Pid: 999, UsedGpuMemory: math.MaxUint64},
			}, nvml.SUCCESS
		}
		devices = append(devices, d)
	}
	return s, devices
}

func start(t *testing.T, lib nvml.Interface) gpuDriver {
	t.Helper()
	d, err := startNVML(lib, "libnvidia-ml.so.1")
	require.NoError(t, err)
	return d
}

func lose(d *server.Device) {
	d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
}

func TestNVMLMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	_, err := openNVML(path)
	require.ErrorIs(t, err, ErrNoDriver)
	require.ErrorContains(t, err, path+" cannot be loaded")
	_, err = OpenGPU(path, "GPU-0")
	require.ErrorIs(t, err, ErrNoDriver)
}

func TestNVMLStart(t *testing.T) {
	t.Parallel()
	for r, want := range map[nvml.Return]string{
		nvml.ERROR_DRIVER_NOT_LOADED:       "kernel module is not loaded",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "restart the machine",
		nvml.ERROR_NO_PERMISSION:           "start NVML (lib): ERROR_NO_PERMISSION",
	} {
		_, err := startNVML(&mock.Interface{InitFunc: func() nvml.Return { return r }}, "lib")
		require.ErrorContains(t, err, want)
	}
}

func TestGPU(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	gpu, err := newGPU(start(t, s), devices[3].UUID)
	require.NoError(t, err)
	total, used, free, err := gpu.Memory()
	require.NoError(t, err)
	require.Equal(t, []Bytes{80 * GiB, 76 * GiB, 4 * GiB}, []Bytes{total, used, free})

	n, err := gpu.ProcessMemory(103)
	require.NoError(t, err)
	require.Equal(t, 2*GiB, n)
	_, err = gpu.ProcessMemory(100)
	require.ErrorIs(t, err, ErrProcessNotFound, "it runs on another GPU")
	_, err = gpu.ProcessMemory(999)
	require.ErrorIs(t, err, ErrNotMeasured)

	devices[3].GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_RESET_REQUIRED }
	_, err = gpu.ProcessMemory(103)
	require.ErrorIs(t, err, ErrGPULost)
	lose(devices[3])
	_, _, _, err = gpu.Memory()
	require.ErrorIs(t, err, ErrGPULost)
	require.ErrorIs(t, err, nvml.ERROR_GPU_IS_LOST)
	require.NoError(t, gpu.Close())

	_, err = newGPU(start(t, s), "GPU-nobody")
	require.ErrorContains(t, err, "GPU-nobody: open GPU: ERROR_INVALID_ARGUMENT")
	s.ShutdownFunc = func() nvml.Return { return nvml.ERROR_UNKNOWN }
	require.Error(t, gpu.Close())
}

func TestNVMLDevices(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	found, err := start(t, s).Devices()
	require.NoError(t, err)
	require.Len(t, found, 8)
	require.Equal(t, Device{ID: devices[7].UUID, Name: "NVIDIA H100 80GB HBM3", Kind: CUDA, Index: 7, Total: 80 * GiB, Free: 8 * GiB}, found[7])

	lose(devices[7])
	found, err = start(t, s).Devices()
	require.ErrorIs(t, err, ErrGPULost)
	require.ErrorContains(t, err, devices[7].UUID)
	require.Len(t, found, 7, "the others answer")

	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
	_, err = start(t, s).Devices()
	require.ErrorContains(t, err, "count GPUs: ERROR_UNKNOWN")
}

// TestNVMLDevicesMIG has GPU 0 split into instances in places 0 and 2.
func TestNVMLDevicesMIG(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	devices[0].MigMode = nvml.DEVICE_MIG_ENABLE
	devices[0].GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 3, nvml.SUCCESS }
	devices[0].GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 1 {
			return nil, nvml.ERROR_NOT_FOUND
		}
		instance := dgxh100.NewDevice(i)
		instance.UUID = []string{"MIG-a", "", "MIG-c"}[i]
		instance.MemoryInfo = nvml.Memory{Total: 20 << 30, Free: uint64(i+1) << 30}
		return instance, nvml.SUCCESS
	}
	devices[1].GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED }
	devices[2].GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_GPU_IS_LOST }
	found, err := start(t, s).Devices()
	require.ErrorIs(t, err, ErrGPULost)
	var ids []string
	for _, d := range found {
		ids = append(ids, d.ID)
	}
	require.Equal(t, []string{"MIG-a", "MIG-c", devices[1].UUID, devices[3].UUID}, ids[:4])
	require.Equal(t, 20*GiB, found[1].Total)
}

func TestDiscover(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	lose(devices[6])
	machine := func(string) (gpuDriver, error) { return startNVML(s, "lib") }
	empty := func(string) (gpuDriver, error) {
		return startNVML(&mock.Interface{
			InitFunc:           func() nvml.Return { return nvml.SUCCESS },
			ShutdownFunc:       func() nvml.Return { return nvml.SUCCESS },
			DeviceGetCountFunc: func() (int, nvml.Return) { return 0, nvml.SUCCESS },
		}, "lib")
	}
	missing := func(string) (gpuDriver, error) {
		return openNVML(filepath.Join(t.TempDir(), "libnvidia-ml.so.1"))
	}
	cpu := func() (Device, error) { return Device{ID: CPUID}, nil }
	for name, c := range map[string]struct {
		open       func(string) (gpuDriver, error)
		want       string
		noCUDA     bool
		id, reason string
		err, hint  string
	}{
		"most free":         {open: machine, id: devices[7].UUID, reason: "most free memory of 7 GPUs (others failed: "},
		"cuda":              {open: machine, want: "cuda", id: devices[7].UUID, reason: "most free"},
		"by index":          {open: machine, want: "cuda:2", id: devices[2].UUID, reason: "asked for"},
		"by uuid":           {open: machine, want: devices[4].UUID, id: devices[4].UUID, reason: "asked for"},
		"cpu asked for":     {open: machine, want: "cpu", id: CPUID, reason: "asked for"},
		"no driver":         {open: missing, want: "auto", id: CPUID, reason: "no NVIDIA driver"},
		"no GPU":            {open: empty, id: CPUID, reason: "the NVIDIA driver lists no GPU"},
		"no CUDA backend":   {open: machine, noCUDA: true, id: CPUID, reason: "NVIDIA H100 80GB HBM3 is there, but the llama.cpp libraries at hand have no CUDA backend"},
		"cuda, no driver":   {open: missing, want: "cuda", err: "use GPU \"cuda\": no NVIDIA driver", hint: "install the NVIDIA driver"},
		"cuda, no GPU":      {open: empty, want: "cuda:0", err: "lists no GPU", hint: "nvidia-smi -L"},
		"cuda, no backend":  {open: machine, want: "cuda", noCUDA: true, err: "no CUDA backend", hint: "--llama-lib"},
		"no such index":     {open: machine, want: "cuda:9", err: "use GPU \"cuda:9\": no usable GPU", hint: "choose another GPU"},
		"lost":              {open: machine, want: devices[6].UUID, err: "GPU is lost", hint: "reset the GPU"},
		"not a device":      {open: machine, want: "cuda:x", err: `"cuda:x" is not a device`, hint: "give auto, cpu, cuda"},
		"not a device name": {open: machine, want: "gpu", err: `"gpu" is not a device`, hint: "give auto, cpu, cuda"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dev, reason, err := discover(DiscoverOptions{WantGPU: c.want, LlamaHasCUDA: !c.noCUDA}, c.open, cpu)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				require.Contains(t, hint(t, err), c.hint)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.id, dev.ID)
			require.Contains(t, reason, c.reason)
		})
	}
}

// TestDiscoverHere runs on whatever this machine has.
func TestDiscoverHere(t *testing.T) {
	t.Parallel()
	dev, reason, err := Discover(DiscoverOptions{NVMLPath: filepath.Join(t.TempDir(), "none.so")})
	require.NoError(t, err)
	require.Equal(t, CPUID, dev.ID)
	require.Contains(t, reason, "none.so cannot be loaded")
	require.Positive(t, dev.Total)
	require.Positive(t, dev.Free)
	require.Contains(t, dev.Name, "usable cores")
	require.Equal(t, []string{"cpu", "cuda", "kind 5"}, []string{CPU.String(), CUDA.String(), Kind(5).String()})
}
