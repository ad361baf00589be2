package node

import (
	"fmt"
	"os"
	"time"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/infer"
)

const (
	// reserve is what is left free on a device beside the limit, so that Tempo does
	// not take the last byte from others.
	reserve = 512 * budget.MiB
	// sampleEvery is the time between two measurements of the device's memory.
	sampleEvery = time.Second
	// buffers is the host memory for the requests and results of jobs.
	buffers = 64 * budget.MiB
)

// deviceMemory is how the memory of a device, and of processes on it, is read.
type deviceMemory struct {
	device  func() (budget.Device, error)
	process func(pid int) (budget.Bytes, error)
	taken   func(pid int) (budget.Bytes, error) // see worker.Options.MeasureTaken
	all     func() (budget.Bytes, error)        // of all processes, where the driver may not tell it of one; nil = it does
	env     []string                            // shows an engine this device only, and bounds it there
	gpu     *budget.GPU                         // to be closed; nil on a CPU
}

// openMemory opens a device. An engine may hold limit on it at most, also later: the
// bound of MPS is set when the process starts.
func openMemory(c *config.Config, device budget.Device, limit budget.Bytes) (deviceMemory, error) {
	// llama.cpp would start a debugger in a dying engine.
	env := []string{"GGML_NO_BACKTRACE=1"}
	if device.Kind == budget.CPU {
		sizes := &budget.SetSizes{}
		return deviceMemory{
			device: budget.CPUDevice, process: sizes.Proportional, taken: sizes.Uncached,
			env: append(env, "CUDA_VISIBLE_DEVICES="),
		}, nil
	}
	gpu, err := budget.OpenGPU(c.Engine.NVMLPath, device.ID)
	if err != nil {
		return deviceMemory{}, fmt.Errorf("open the GPU: %w", err)
	}
	env = append(env, "CUDA_VISIBLE_DEVICES="+device.ID)
	env = append(env, infer.MPSEnv(limit, os.Environ(), os.DirFS("/"))...)
	return deviceMemory{device: gpu.Device, process: gpu.ProcessMemory, all: gpu.Growth, env: env, gpu: gpu}, nil
}

// hostMemory is what jobs may take of the host's memory: on a CPU, whose memory it
// is too, what is booked as growth; beside a GPU room for jobs that give way as
// well, at most half of what is free.
func hostMemory(c *config.Config, device budget.Device) (budget.Bytes, error) {
	if device.Kind == budget.CPU {
		return buffers, nil
	}
	host, err := budget.HostMemory()
	if err != nil {
		return 0, fmt.Errorf("read the host's memory: %w", err)
	}
	return buffers.Add(min(budget.GiBs(c.Memory.SwapGB), host.Available/2)), nil
}

// layers tells the memory of each layer of the model, with a pool of so many cells.
func layers(spec infer.Spec) (func(sequences, cells int) []api.LayerMemory, error) {
	header, err := gguf.ReadHeader(spec.Model)
	if err != nil {
		return nil, fmt.Errorf("read the model's layers: %w", err)
	}
	k, _ := gguf.CacheType(spec.CacheTypeK) // validated by config
	v, _ := gguf.CacheType(spec.CacheTypeV)
	all := header.LayerMemory(k, v)
	return func(sequences, cells int) []api.LayerMemory {
		list := make([]api.LayerMemory, len(all))
		for i, l := range all {
			list[i] = api.LayerMemory{Layer: l.Index, Kind: string(l.Kind), Weights: l.WeightBytes}
			if l.KVKnown() && cells > 0 {
				list[i].KVCache = l.CacheBytes(gguf.CacheShape{Cells: cells, Sequences: sequences, Batch: spec.Batch, FullWindow: true})
			}
		}
		return list
	}, nil
}
