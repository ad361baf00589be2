package budget

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
	"github.com/stretchr/testify/require"
)

// h100s returns a mock machine with eight GPUs of 80 GiB, of which GPU i has
// i+1 GiB free and runs process 100+i with 2 GiB, and 200+i with 1 GiB under MPS.
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
