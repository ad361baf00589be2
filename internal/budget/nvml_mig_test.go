package budget

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/require"
)

// h100s returns a mock machine with eight GPUs of 80 GiB, of which GPU i has
// i+1 GiB free and runs process 100+i with 2 GiB, and 200+i with 1 GiB under MPS.
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
