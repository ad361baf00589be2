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
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
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

// split has a mock GPU split into MIG instances in places 0, 2 and 3, of which the
// last two are compute instances of one GPU instance and share its memory.
func split(s *server.Server, gpu *server.Device) {
	gpu.MigMode = nvml.DEVICE_MIG_ENABLE
	gpu.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 4, nvml.SUCCESS }
	instances := map[int]*server.Device{}
	for i, c := range map[int]struct {
		uuid, profile string
		gpuInstance   int
	}{0: {"MIG-a", "1g.20gb", 7}, 2: {"MIG-c", "1c.3g.40gb", 2}, 3: {"MIG-d", "2c.3g.40gb", 2}} {
		d := dgxh100.NewDevice(i)
		d.UUID = c.uuid
		d.MemoryInfo.Total = 20 << 30
		setFree(d, Bytes(i+1)*GiB)
		d.GetNameFunc = func() (string, nvml.Return) { return "NVIDIA H100 80GB HBM3 MIG " + c.profile, nvml.SUCCESS }
		d.GetIndexFunc = func() (int, nvml.Return) { return i, nvml.SUCCESS } // among the instances
		d.GetGpuInstanceIdFunc = func() (int, nvml.Return) { return c.gpuInstance, nvml.SUCCESS }
		d.GetDeviceHandleFromMigDeviceHandleFunc = func() (nvml.Device, nvml.Return) { return gpu, nvml.SUCCESS }
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{{Pid: uint32(300 + i), UsedGpuMemory: 1 << 30}}, nvml.SUCCESS
		}
		d.GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
		instances[i] = d
	}
	gpu.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if d := instances[i]; d != nil {
			return d, nvml.SUCCESS
		}
		return nil, nvml.ERROR_NOT_FOUND
	}
	byUUID := s.DeviceGetHandleByUUIDFunc
	s.DeviceGetHandleByUUIDFunc = func(uuid string) (nvml.Device, nvml.Return) {
		for _, d := range instances {
			if d.UUID == uuid {
				return d, nvml.SUCCESS
			}
		}
		return byUUID(uuid)
	}
}

func TestNVMLDevices(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	lose(devices[6])
	all, err := start(t, s).Devices()
	require.NoError(t, err)
	require.Len(t, all, 8)
	require.NoError(t, all[7].Fault, "the others answer")
	require.Equal(t, 8*GiB, all[7].Free)
	require.Equal(t, 6, all[6].Index)
	require.ErrorIs(t, all[6].Fault, ErrGPULost)
	require.ErrorContains(t, all[6].Fault, devices[6].UUID)

	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
	_, err = start(t, s).Devices()
	require.ErrorContains(t, err, "count GPUs: ERROR_UNKNOWN")
}

func TestNVMLDevicesMIG(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	split(s, devices[1])
	devices[2].GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED }
	devices[3].GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_GPU_IS_LOST }
	devices[4].MigMode = nvml.DEVICE_MIG_ENABLE
	devices[4].GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	devices[4].GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_NOT_FOUND }
	devices[5].MigMode = nvml.DEVICE_MIG_ENABLE
	devices[5].GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
	driver := start(t, s)
	all, err := driver.Devices()
	require.NoError(t, err)
	require.Len(t, all, 10)
	require.Equal(t, Found{Device: Device{
		ID: "MIG-c", MemoryID: devices[1].UUID + "/gi2", Name: "NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", Kind: CUDA, Index: 1,
		Total: 20 * GiB, Reserved: driverReserve, Free: 3 * GiB,
	}}, all[2])
	require.Equal(t, []string{"MIG-a", "MIG-c", "MIG-d"}, []string{all[1].ID, all[2].ID, all[3].ID})
	require.Equal(t, all[2].MemoryID, all[3].MemoryID, "they share the memory of their GPU instance")
	require.NotEqual(t, all[1].MemoryID, all[2].MemoryID)
	require.Equal(t, devices[2].UUID, all[4].ID)
	require.ErrorIs(t, all[5].Fault, ErrGPULost)
	require.ErrorContains(t, all[6].Fault, "open GPU 4: MIG is on, and there is no MIG instance")
	require.ErrorContains(t, all[7].Fault, "count MIG instances of GPU 5: ERROR_UNKNOWN")

	gpu, err := newGPU(driver, "MIG-c")
	require.NoError(t, err)
	d, err := gpu.Device()
	require.NoError(t, err)
	require.Equal(t, all[2].Device, d)
	n, err := gpu.ProcessMemory(302)
	require.NoError(t, err)
	require.Equal(t, GiB, n)
	_, err = gpu.ProcessMemory(300)
	require.ErrorIs(t, err, ErrProcessNotFound, "it runs on another instance")

	byUUID := s.DeviceGetHandleByUUIDFunc
	s.DeviceGetHandleByUUIDFunc = func(string) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
	d, err = gpu.Device()
	require.NoError(t, err, "it is GPU 3 that is lost")
	require.Equal(t, "MIG-c", d.ID)
	s.DeviceGetHandleByUUIDFunc = byUUID
}

func TestList(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	lose(devices[6])
	split(s, devices[0])
	cpu := func() (Device, error) { return Device{ID: CPUID, Total: 7}, nil }
	all := takeInventory(func() (gpuDriver, error) { return startNVML(s, "lib") }, cpu)
	require.NoError(t, all.Fault)
	require.Equal(t, []string{"550.54.15", "12.550.54.15"}, []string{all.DriverVersion, all.NVMLVersion})
	require.Len(t, all.Devices, 3+7+1)
	require.Equal(t, Found{Device: Device{ID: CPUID, Total: 7}}, all.Devices[10])
	require.Contains(t, hint(t, all.Devices[8].Fault), "reset the GPU")

	s.SystemGetNVMLVersionFunc = func() (string, nvml.Return) { return "", nvml.ERROR_UNKNOWN }
	all = takeInventory(func() (gpuDriver, error) { return startNVML(s, "lib") }, cpu)
	require.ErrorContains(t, all.Fault, "read NVML's version: ERROR_UNKNOWN")
	require.Len(t, all.Devices, 11)

	all = takeInventory(func() (gpuDriver, error) { return nil, ErrNoDriver }, func() (Device, error) { return Device{}, errors.New("no /proc") })
	require.ErrorIs(t, all.Fault, ErrNoDriver)
	require.Contains(t, hint(t, all.Fault), "install the NVIDIA driver")
	require.Len(t, all.Devices, 1)
	require.Equal(t, CPUID, all.Devices[0].ID)
	require.EqualError(t, all.Devices[0].Fault, "no /proc")

	here := List(filepath.Join(t.TempDir(), "none.so"))
	require.ErrorIs(t, here.Fault, ErrNoDriver)
	require.NotEmpty(t, here.Devices[0].MemoryID)
}

func TestDiscover(t *testing.T) {
	t.Parallel()
	s, devices := h100s(t)
	lose(devices[6])
	healthy := func(string) (gpuDriver, error) { return startNVML(s, "lib") }
	unsplit := func(string) (gpuDriver, error) {
		s, devices := machine(t, dgxh100.NewWithGPUs(gpus.H100_SXM5_80GB))
		devices[0].MigMode = nvml.DEVICE_MIG_ENABLE
		devices[0].GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
		return startNVML(s, "lib")
	}
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
		"most free":         {open: healthy, id: devices[7].UUID, reason: "most free memory of 7 GPUs (others failed: "},
		"cuda":              {open: healthy, want: "cuda", id: devices[7].UUID, reason: "most free"},
		"by index":          {open: healthy, want: "cuda:2", id: devices[2].UUID, reason: "asked for"},
		"by uuid":           {open: healthy, want: devices[4].UUID, id: devices[4].UUID, reason: "asked for"},
		"cpu asked for":     {open: healthy, want: "cpu", id: CPUID, reason: "asked for"},
		"no driver":         {open: missing, want: "auto", id: CPUID, reason: "no NVIDIA driver"},
		"no GPU":            {open: empty, id: CPUID, reason: "the NVIDIA driver lists no GPU"},
		"no CUDA backend":   {open: healthy, noCUDA: true, id: CPUID, reason: "NVIDIA H100 80GB HBM3 is there, but the llama.cpp libraries at hand have no CUDA backend"},
		"cuda, no driver":   {open: missing, want: "cuda", err: "use GPU \"cuda\": no NVIDIA driver", hint: "install the NVIDIA driver"},
		"cuda, no GPU":      {open: empty, want: "cuda:0", err: "lists no GPU", hint: "nvidia-smi -L"},
		"cuda, no backend":  {open: healthy, want: "cuda", noCUDA: true, err: "no CUDA backend", hint: "--llama-lib"},
		"no such index":     {open: healthy, want: "cuda:9", err: "use GPU \"cuda:9\": no usable GPU", hint: "choose another GPU"},
		"lost":              {open: healthy, want: devices[6].UUID, err: "GPU is lost", hint: "reset the GPU"},
		"no MIG instance":   {open: unsplit, want: "cuda", err: "there is no MIG instance", hint: "nvidia-smi mig -cgi"},
		"not a device":      {open: healthy, want: "cuda:x", err: `"cuda:x" is not a device`, hint: "give auto, cpu, cuda"},
		"not a device name": {open: healthy, want: "gpu", err: `"gpu" is not a device`, hint: "give auto, cpu, cuda"},
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
