// Package node makes a worker of a configuration: it finds the device, the
// libraries and the model, sets the limit, and puts engine process, monitor and
// queue together. The worker command runs one; submit --local runs one beside a
// queue of its own.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/infer"
	"tempo/internal/queue"
	"tempo/internal/setup"
	"tempo/internal/worker"
)

// reserve is what is left free on a device beside the limit, so that Tempo does
// not take the last byte from others.
const reserve = 512 * budget.MiB

// sampleEvery is the time between two measurements of the device's memory.
const sampleEvery = time.Second

// Options say how engine processes are started, and what is beside them.
type Options struct {
	Args   []string  // arguments that make this program an engine
	Stderr io.Writer // gets what they write
	// ExtraOverhead is memory in bytes that this process will take beyond what it
	// holds when Start is called and the usual growth of 64 MiB: it is booked as
	// overhead on a CPU. A caller knows it that has a large batch of its own.
	ExtraOverhead budget.Bytes
	// Batch is the only batch that the node serves; "" = all.
	Batch string
}

// Node is a worker with all that it needs.
type Node struct {
	Worker *worker.Worker
	host   *infer.Host
	gpu    *budget.GPU // nil on a CPU
	heap   int64       // the Go heap's soft limit in bytes before Start; 0 = it was not changed
}

// Start makes a node and loads its model. It must be closed. A nil log is silent.
func Start(ctx context.Context, c *config.Config, client *queue.Client, o Options, log *zap.Logger) (*Node, error) {
	if log == nil {
		log = zap.NewNop()
	}
	spec, name, err := findPieces(c)
	if err != nil {
		return nil, err
	}
	device, reason, err := budget.Discover(budget.DiscoverOptions{
		NVMLPath: c.Engine.NVMLPath, WantGPU: c.Engine.Device, LlamaHasCUDA: hasCUDA(spec.LibDir),
	})
	if err != nil {
		return nil, fmt.Errorf("find a device: %w", err)
	}
	if cores := budget.UsableCores(); spec.Threads > cores {
		log.Warn("more threads than cores: decoding gets many times slower", zap.Int("threads", spec.Threads), zap.Int("cores", cores))
	}
	log.Info("device found", zap.String("device", device.ID), zap.String("name", device.Name), zap.String("reason", reason))
	n, err := start(ctx, c, client, o, spec, name, device, log)
	var noGPU *infer.NoGPUError
	if errors.As(err, &noGPU) && c.Engine.Device == "auto" {
		log.Warn("the GPU cannot be used, the CPU is taken instead", zap.Error(err))
		if device, _, err = budget.Discover(budget.DiscoverOptions{WantGPU: budget.CPUID}); err != nil {
			return nil, fmt.Errorf("find a device: %w", err)
		}
		n, err = start(ctx, c, client, o, spec, name, device, log)
	}
	return n, err
}

// start makes a node on one device.
func start(ctx context.Context, c *config.Config, client *queue.Client, o Options, spec infer.Spec, name string, device budget.Device, log *zap.Logger) (*Node, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	n := &Node{}
	measure, env, err := n.measure(c, device)
	if err != nil {
		return nil, err
	}
	monitor := budget.NewMonitor(measure, sampleEvery, log)
	if device.Kind == budget.CPU {
		monitor.Add(os.Getpid()) // on a CPU the worker's own share counts too
	} else {
		spec.GPU = 0 // the only one that the engine sees
	}
	n.host = infer.NewHost(infer.HostOptions{
		Command: append([]string{program}, o.Args...),
		Env:     env,
		Stderr:  o.Stderr,
		OnProcess: func(pid int, alive bool) {
			if alive {
				monitor.Add(pid)
			} else {
				monitor.Remove(pid)
			}
		},
	}, log)
	limit, why := budget.EffectiveLimit(budget.GiBs(c.Memory.MaxGB), device, reserve)
	log.Info("memory limit", zap.Int64("limit_bytes", int64(limit)), zap.String("reason", why))
	taker := client.NewTaker(queue.TakerOptions{Worker: c.Engine.WorkerName, Models: []string{name}, Batch: o.Batch}, log)
	n.Worker = worker.New(worker.Options{
		Name: c.Engine.WorkerName, Model: name, Spec: spec, Device: device, Limit: limit,
		Thresholds:        budget.Thresholds{Warn: c.Memory.Warn, Act: c.Memory.Act},
		MaxParallelTokens: c.Memory.MaxParallelTokens, MaxCacheTokens: c.Memory.MaxCacheTokens, Measure: measure,
		ExtraOverhead: o.ExtraOverhead,
	}, client, taker, n.host, monitor, log)
	if err := n.Worker.Start(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.limitHeap()
	return n, nil
}

// limitHeap has the garbage collector work harder before this process takes more
// than was booked for it. A lower limit that the user has set (GOMEMLIMIT) stays.
func (n *Node) limitHeap() {
	own, now := int64(n.Worker.OwnShare()), debug.SetMemoryLimit(-1)
	if own > 0 && own < now {
		n.heap = debug.SetMemoryLimit(own)
	}
}

// Close ends the engine process.
func (n *Node) Close() error {
	if n.heap > 0 {
		debug.SetMemoryLimit(n.heap)
	}
	err := n.host.Close()
	if n.gpu != nil {
		err = errors.Join(err, n.gpu.Close())
	}
	return err
}

// measure returns how the memory of a process on the device is read, and the
// environment that shows an engine this device only.
func (n *Node) measure(c *config.Config, device budget.Device) (func(int) (budget.Bytes, error), []string, error) {
	// llama.cpp would start a debugger in a dying engine.
	env := []string{"GGML_NO_BACKTRACE=1"}
	if device.Kind == budget.CPU {
		return budget.ProportionalSetSize, append(env, "CUDA_VISIBLE_DEVICES="), nil
	}
	gpu, err := budget.OpenGPU(c.Engine.NVMLPath, device.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("open the GPU: %w", err)
	}
	n.gpu = gpu
	return gpu.ProcessMemory, append(env, "CUDA_VISIBLE_DEVICES="+device.ID), nil
}

// findPieces finds libraries and model: as configured, else in the cache.
func findPieces(c *config.Config) (infer.Spec, string, error) {
	name, path := c.Engine.NamePath()
	spec := infer.Spec{
		Model: path, LibDir: c.Engine.LlamaLib, GPU: -1,
		Threads: c.Engine.Threads, Batch: c.Engine.BatchSize, Context: c.Engine.ContextSize,
	}
	if spec.Threads == 0 {
		spec.Threads = budget.UsableCores()
	}
	if spec.Model == "" || spec.LibDir == "" {
		found, err := setup.Locate("")
		if found == nil {
			found = &setup.Paths{}
		}
		if spec.LibDir == "" {
			spec.LibDir = found.LlamaLib
		}
		if spec.Model == "" {
			spec.Model = found.Model
			name, _ = config.Engine{Model: found.Model}.NamePath()
		}
		if spec.Model == "" || spec.LibDir == "" {
			return spec, "", fmt.Errorf("find libraries and model: %w", err)
		}
	}
	if info, err := os.Stat(spec.Model); err != nil || info.IsDir() {
		if err == nil {
			err = errors.New("it is a directory")
		}
		return spec, "", &ModelError{Path: spec.Model, Err: err}
	}
	return spec, name, nil
}

// ModelError says that there is no model file where it should be.
type ModelError struct {
	Path string
	Err  error
}

func (e *ModelError) Error() string {
	err := e.Err
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err // the path is said already
	}
	return fmt.Sprintf("open the model file %s: %v", e.Path, err)
}

func (e *ModelError) Unwrap() error { return e.Err }

// Hint says what to check.
func (e *ModelError) Hint() string {
	return "give the path of a GGUF file with --model; without it the model of `worker setup` is taken"
}

// hasCUDA reports whether the libraries at dir carry the CUDA backend.
func hasCUDA(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "libggml-cuda*.so"))
	return err == nil && len(found) > 0
}
