package budget

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// driverReserve is what the mock driver keeps of each GPU.
const driverReserve = 512 * MiB

// h100s returns a mock machine with eight GPUs of 80 GiB, of which GPU i has
// i+1 GiB free and runs process 100+i with 2 GiB, and 200+i with 1 GiB under MPS.
func h100s(t *testing.T) (*server.Server, []*server.Device) {
	t.Helper()
	return machine(t, dgxh100.New())
}

func machine(t *testing.T, s *server.Server) (*server.Server, []*server.Device) {
	t.Helper()
	var devices []*server.Device
	for i := range s.Devices {
		d := s.Devices[i].(*server.Device)
		setFree(d, Bytes(i+1)*GiB)
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{
				{Pid: uint32(100 + i), UsedGpuMemory: 2 << 30},
				{Pid: 999, UsedGpuMemory: math.MaxUint64},
			}, nvml.SUCCESS
		}
		d.GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{{Pid: uint32(200 + i), UsedGpuMemory: 1 << 30}}, nvml.SUCCESS
		}
		devices = append(devices, d)
	}
	return s, devices
}

// setFree sets the memory of a mock GPU (the mocks have none free), as both
// versions of NVML's call tell it.
func setFree(d *server.Device, free Bytes) {
	d.MemoryInfo.Free = uint64(free)
	d.MemoryInfo.Used = d.MemoryInfo.Total - d.MemoryInfo.Free // the reserve too
	d.GetMemoryInfo_v2Func = memoryOf(d, free)
}

// memoryOf is what NVML says of a mock GPU that has free bytes left.
func memoryOf(d *server.Device, free Bytes) func() (nvml.Memory_v2, nvml.Return) {
	m := nvml.Memory_v2{Total: d.MemoryInfo.Total, Reserved: uint64(driverReserve), Free: uint64(free)}
	m.Used = m.Total - m.Reserved - m.Free
	return func() (nvml.Memory_v2, nvml.Return) { return m, nvml.SUCCESS }
}

func start(t *testing.T, lib nvml.Interface) gpuDriver {
	t.Helper()
	d, err := startNVML(lib, "libnvidia-ml.so.1")
	require.NoError(t, err)
	return d
}

func lose(d *server.Device) {
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, nvml.ERROR_GPU_IS_LOST }
}

func TestNVMLMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	_, err := openNVML(path)
	require.ErrorIs(t, err, ErrNoDriver)
	require.ErrorContains(t, err, path+" cannot be loaded (cannot open shared object file")
	_, err = OpenGPU(path, "GPU-0")
	require.ErrorIs(t, err, ErrNoDriver)

	require.NoError(t, os.WriteFile(path, []byte("no library at all, but long enough for a header of ELF, which is 64 bytes"), 0o600))
	_, err = openNVML(path)
	require.ErrorIs(t, err, ErrNoDriver)
	require.ErrorContains(t, err, "invalid ELF header")

	_, err = openNVML("libc.so.6")
	require.ErrorIs(t, err, ErrNoDriver)
	require.ErrorContains(t, err, "libc.so.6 is not NVML")
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
	d, err := gpu.Device()
	require.NoError(t, err)
	require.Equal(t, Device{
		ID: devices[3].UUID, MemoryID: devices[3].UUID, Name: "NVIDIA H100 80GB HBM3", Kind: CUDA, Index: 3,
		Total: 80 * GiB, Reserved: driverReserve, Free: 4 * GiB,
	}, d)
	require.Equal(t, 76*GiB-driverReserve, d.Used(), "the reserve is neither free nor used")

	for pid, want := range map[int]Bytes{103: 2 * GiB, 203: GiB} {
		n, err := gpu.ProcessMemory(pid)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	_, err = gpu.ProcessMemory(100)
	require.ErrorIs(t, err, ErrProcessNotFound, "it runs on another GPU")
	_, err = gpu.ProcessMemory(999)
	require.ErrorIs(t, err, ErrNotMeasured)
	devices[3].GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
	_, err = gpu.ProcessMemory(203)
	require.ErrorIs(t, err, ErrProcessNotFound)
	require.NoError(t, gpu.Close())

	_, err = newGPU(start(t, s), "GPU-nobody")
	require.ErrorContains(t, err, "GPU-nobody: open GPU: ERROR_INVALID_ARGUMENT")
	s.ShutdownFunc = func() nvml.Return { return nvml.ERROR_UNKNOWN }
	require.Error(t, gpu.Close())
}

// TestGPUGrowth has a driver that lists no process, as in a container.
func TestGPUGrowth(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	gpu, err := newGPU(start(t, s), devices[7].UUID) // 8 GiB free
	require.NoError(t, err)
	core, logs := observer.New(zap.InfoLevel)
	m := NewMonitor(gpu.ProcessMemory, time.Second, zap.New(core))
	m.FallBackTo(gpu.Growth)
	total := func() Bytes {
		r, err := m.Sample()
		require.NoError(t, err)
		return r.Total
	}
	m.Add(1)
	require.Zero(t, total(), "it has no context yet")
	require.Empty(t, logs.All())
	setFree(devices[7], 5*GiB)
	require.Equal(t, 3*GiB, total())
	setFree(devices[7], 4*GiB)
	require.Equal(t, 4*GiB, total())
	require.Len(t, logs.All(), 1, "it is said once")
	require.Contains(t, logs.All()[0].Message, "--pid=host")

	m.Add(107)
	require.Equal(t, 4*GiB, total(), "the larger of what is told and the growth")
	m.Remove(1)
	require.Equal(t, 2*GiB, total(), "all are told")
	m.Add(999)
	require.Equal(t, 4*GiB, total(), "one is listed without its use")
	setFree(devices[7], 9*GiB)
	require.Equal(t, 2*GiB, total(), "others have given more back")
	lose(devices[7])
	_, err = m.Sample()
	require.ErrorIs(t, err, ErrGPULost)
}

// TestNVMLLost has a GPU fall off the bus, or ask for a reset, at every call.
func TestNVMLLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lose func(*server.Server, *server.Device)
		read func(*GPU) error
	}{
		"memory": {
			lose: func(_ *server.Server, d *server.Device) { lose(d) },
			read: func(g *GPU) error { _, err := g.Device(); return err },
		},
		"growth": {
			lose: func(_ *server.Server, d *server.Device) { lose(d) },
			read: func(g *GPU) error { _, err := g.Growth(); return err },
		},
		"index": {
			lose: func(_ *server.Server, d *server.Device) {
				d.GetIndexFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
			},
			read: func(g *GPU) error { _, err := g.Device(); return err },
		},
		"name": {
			lose: func(_ *server.Server, d *server.Device) {
				d.GetNameFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
			},
			read: func(g *GPU) error { _, err := g.Device(); return err },
		},
		"UUID": {
			lose: func(_ *server.Server, d *server.Device) {
				d.GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
			},
			read: func(g *GPU) error { _, err := g.Device(); return err },
		},
		"processes": {
			lose: func(_ *server.Server, d *server.Device) {
				d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_RESET_REQUIRED }
			},
			read: func(g *GPU) error { _, err := g.ProcessMemory(100); return err },
		},
		"MPS clients": {
			lose: func(_ *server.Server, d *server.Device) {
				d.GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
			},
			read: func(g *GPU) error { _, err := g.ProcessMemory(100); return err },
		},
		"handle": {
			lose: func(s *server.Server, _ *server.Device) {
				s.DeviceGetHandleByUUIDFunc = func(string) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
				s.DeviceGetHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
			},
			read: func(g *GPU) error { _, err := g.ProcessMemory(100); return err },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, devices := h100s(t)
			gpu, err := newGPU(start(t, s), devices[0].UUID)
			require.NoError(t, err)
			require.NoError(t, c.read(gpu))
			c.lose(s, devices[0])
			err = c.read(gpu)
			require.ErrorIs(t, err, ErrGPULost)
			require.ErrorContains(t, err, devices[0].UUID)
		})
	}
}

// TestNVMLAnotherIsLost: NVML may refuse a handle because any GPU is lost.
func TestNVMLAnotherIsLost(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	gpu, err := newGPU(start(t, s), devices[5].UUID)
	require.NoError(t, err)
	s.DeviceGetHandleByUUIDFunc = func(string) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
	byIndex := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 2 {
			return nil, nvml.ERROR_GPU_IS_LOST
		}
		return byIndex(i)
	}
	d, err := gpu.Device()
	require.NoError(t, err)
	require.Equal(t, 6*GiB, d.Free)
	n, err := gpu.ProcessMemory(105)
	require.NoError(t, err)
	require.Equal(t, 2*GiB, n)
}

func TestNVMLOldDriver(t *testing.T) {
	t.Parallel()
	s, devices := machine(t, dgxa100.New())
	whole := Device{
		ID: devices[0].UUID, MemoryID: devices[0].UUID, Name: "Mock NVIDIA A100-SXM4-40GB", Kind: CUDA,
		Total: 40 * GiB, Free: GiB, // no reserve: it counts as used
	}
	for _, r := range []nvml.Return{nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_ARGUMENT_VERSION_MISMATCH} {
		devices[0].GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, r }
		d, err := start(t, s).Device(devices[0].UUID)
		require.NoError(t, err)
		whole.Name = d.Name
		require.Equal(t, whole, d)
		require.Equal(t, 39*GiB, d.Used())
	}

	// Functions that the library lacks are not called: that would end the process.
	s.LookupSymbolFunc = func(name string) error { return errors.New(name + " is missing") }
	devices[0].GetMemoryInfo_v2Func, devices[0].GetMigModeFunc, devices[0].GetMPSComputeRunningProcessesFunc = nil, nil, nil
	all, err := start(t, s).Devices()
	require.NoError(t, err)
	require.Equal(t, Found{Device: whole}, all[0])
	n, err := start(t, s).ProcessMemoryBytes(devices[0].UUID, 100)
	require.NoError(t, err)
	require.Equal(t, 2*GiB, n)

	devices[0].GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_FUNCTION_NOT_FOUND }
	_, err = start(t, s).ProcessMemoryBytes(devices[0].UUID, 100)
	require.ErrorIs(t, err, ErrOldDriver)
	require.Contains(t, hint(t, hinted(err)), "update the NVIDIA driver")
}
