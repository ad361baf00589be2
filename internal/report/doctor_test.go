package report

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/budget"
	"tempo/internal/doctor"
)

func ok() doctor.Check { return doctor.Check{Status: doctor.OK} }

func healthy() *doctor.Report {
	return &doctor.Report{
		Libraries: doctor.Libraries{Check: ok(), Dir: "/lib", Source: "cache", Backends: []doctor.Backend{{Name: "CPU", Variants: 14}, {Name: "CUDA", Variants: 1}}},
		Devices: doctor.Devices{
			Check: doctor.Check{Status: doctor.Warn, Problem: "GPU-2 does not answer: it is lost", Hint: "reset it"}, Driver: "550.54", NVML: "12.550",
			DriverFault: "GPU-2: it is lost", Taken: "GPU-1", Reason: "the only usable GPU", Cores: 4, Threads: 4,
			List: []doctor.Device{
				{ID: "GPU-1", Name: "A100", Kind: "cuda", Total: 80 * budget.GiB, Reserved: 600 * mib, Free: 70 * budget.GiB, MIG: true},
				{ID: "GPU-2", Kind: "cuda", Index: 1, Fault: "it is lost"},
				{ID: "cpu", Name: "Xeon", Kind: "cpu", Total: 64 * budget.GiB, Free: 60 * budget.GiB, BoundedBy: "/sys/fs/cgroup/memory.max"},
			},
		},
		Model: doctor.Model{Check: ok(), Path: "/m.gguf", Source: "flag --model", Name: "m", Architecture: "llama", Layers: 30, Context: 8192, Tensors: 92 * mib, ChatTemplate: true},
		NATS: doctor.NATS{
			Check: ok(), Server: "nats://here:4222", Version: "2.15.2", JetStream: true,
			Claims: []doctor.Claim{{Worker: "other", Model: "big", Promised: 8 * budget.GiB, Held: 6 * budget.GiB}},
		},
		Memory: doctor.Memory{
			Check: ok(), Device: "GPU-1", Limit: 36 * budget.GiB, LimitReason: "max_memory_gb allows it",
			Weights: 124 * mib, KVCache: 360 * mib, ParallelBatch: 32 * mib, Overhead: 600 * mib, Total: 1116 * mib,
			Plan: "all 16 sequences and 16384 cells take it", MaxCacheTokens: 16384, MaxParallelTokens: 16,
			Rule: doctor.Rule{Automatic: true, Available: 30 * budget.GiB, TokenBytes: 13 * mib, Unbounded: 50},
		},
		Layers: &doctor.Layers{
			Check: ok(), Cells: 16384, Sequences: 16, Rest: 90 * mib, Weights: 92 * mib, KVCache: 360 * mib, DryWeights: 124 * mib, DryKVCache: 360 * mib,
			List: []doctor.Layer{
				{Kind: "attention", Weights: 2 * mib, KVBytesPerToken: 768, KVCache: 12 * mib, KVKnown: true},
				{Index: 1, Kind: "unknown", Weights: 2 * mib},
			},
			Differences: []string{"weights: the dry run has 32 MiB more"},
		},
		CanRun: true,
	}
}

func printed(t *testing.T, r *doctor.Report) string {
	t.Helper()
	var out bytes.Buffer
	for _, s := range []doctor.Section{
		doctor.LibrariesSection, doctor.DevicesSection, doctor.ModelSection, doctor.NATSSection, doctor.MemorySection, doctor.LayersSection,
	} {
		if s != doctor.LayersSection || r.Layers != nil {
			require.NoError(t, DoctorSection(&out, s, r))
		}
	}
	require.NoError(t, DoctorVerdict(&out, r))
	return out.String()
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	require.Equal(t, `ok    libraries   /lib (cache)
                  backends: CPU (for 14 kinds of processors), CUDA
warn  devices     takes GPU-1: the only usable GPU
                  GPU-2 does not answer: it is lost
                  hint: reset it
                  cuda:0 GPU-1, A100
                    80.0 GiB in all, 70.0 GiB free, 600 MiB kept by the driver, a MIG instance
                  cuda:1 GPU-2: it is lost
                  cpu, Xeon
                    64.0 GiB in all, 60.0 GiB free, bounded by /sys/fs/cgroup/memory.max; 4 threads on 4 cores
                  NVIDIA driver 550.54, NVML 12.550
                  no GPUs, or not all: GPU-2: it is lost
ok    model       m
                  /m.gguf (flag --model)
                  llama, 30 layers, trained for 8192 tokens, tensors of 92.0 MiB, with a chat template
ok    nats        nats://here:4222, nats-server 2.15.2, JetStream is on
                  worker other (big) has claimed 8.00 GiB of the device and holds 6.00 GiB
ok    memory      limit of 36.0 GiB on GPU-1
                  max_memory_gb allows it
                           weights    124 MiB
                          KV cache    360 MiB
                    parallel batch   32.0 MiB
                          overhead    600 MiB
                             total   1.09 GiB
                  plan: all 16 sequences and 16384 cells take it
                  max_cache_tokens 16384
                  max_parallel_tokens 16 = clamp(0.8 · 30.0 GiB available / 13.0 MiB a token, 1, 50) = 50, bounded by threads, batch size and what fits

layers: KV cache for 16384 tokens in 16 sequences
   layer  kind            weights   KV per token     KV cache
       0  attention      2.00 MiB          768 B     12.0 MiB
       1  unknown        2.00 MiB              ?            ?
          rest           90.0 MiB
     sum                 92.0 MiB                     360 MiB
 dry run                  124 MiB                     360 MiB
rest: token embeddings, output, norms
weights: the dry run has 32 MiB more

a job could run here
`, printed(t, healthy()))
}

func TestDoctorFails(t *testing.T) {
	t.Parallel()
	skip := doctor.Check{Status: doctor.Skipped, Problem: "it needs the model"}
	r := &doctor.Report{
		Libraries: doctor.Libraries{Check: doctor.Check{Status: doctor.Fail, Problem: "nothing is there", Hint: "make setup"}},
		Devices:   doctor.Devices{Check: doctor.Check{Status: doctor.Fail, Problem: "no such GPU"}, DriverFault: "no driver"},
		Model:     doctor.Model{Check: doctor.Check{Status: doctor.Fail, Problem: "no file"}, Path: "/m.gguf", Source: "cache"},
		NATS:      doctor.NATS{Check: doctor.Check{Status: doctor.Fail, Problem: "nobody answers"}},
		Memory:    doctor.Memory{Check: skip},
		Layers:    &doctor.Layers{Check: skip},
		Reasons:   []string{"nothing is there", "no file"},
	}
	require.Equal(t, `FAIL  libraries   nothing is there
                  hint: make setup
FAIL  devices     no such GPU
                  no GPUs, or not all: no driver
FAIL  model       /m.gguf (cache)
                  no file
FAIL  nats        nobody answers
-     memory      not checked: it needs the model
-     layers      not checked: it needs the model

no job could run here: nothing is there; no file
`, printed(t, r))
}

func TestDoctorOtherwise(t *testing.T) {
	t.Parallel()
	r := healthy()
	r.NATS.Claims = nil
	require.Contains(t, printed(t, r), "no other worker has claimed memory")
	r.NATS.Note, r.NATS.Version = "streams are not there yet", ""
	text := printed(t, r)
	require.Contains(t, text, "streams are not there yet")
	require.Contains(t, text, "nats-server of unknown version")
	require.NotContains(t, text, "no other worker")
	r.Memory.Rule = doctor.Rule{}
	require.Contains(t, printed(t, r), "max_parallel_tokens 16, as set")
	r.Layers.Cells = 0
	text = printed(t, r)
	require.Contains(t, text, "not planned")
	require.NotContains(t, text, " dry run  ")
	require.ErrorIs(t, DoctorSection(broken{}, doctor.ModelSection, r), errBroken)
}
