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
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/infer"
	"tempo/internal/queue"
	"tempo/internal/worker"
)

// Options say how engine processes are started, and what is beside them.
type Options struct {
	Args   []string  // arguments that make this program an engine
	Stderr io.Writer // gets what they write
	// ExtraOverhead is memory in bytes that this process will take beyond what it
	// holds when Start is called and the usual growth of 64 MiB: it is booked as
	// overhead on a CPU. A caller knows it that has a large batch of its own.
	ExtraOverhead budget.Bytes
	// OnEngine is called with the pid of each engine process when it has started
	// (alive) and when it has ended; nil = nobody wants to know. It must not block.
	OnEngine func(pid int, alive bool)
	// Batch is the only batch that the node serves; "" = all.
	Batch string
	// DrainTimeout is worker.Options'; 0 = its default.
	DrainTimeout time.Duration
}

// Node is a worker with all that it needs.
type Node struct {
	Worker *worker.Worker
	spec   infer.Spec
	host   *infer.Host
	gpu    *budget.GPU // nil on a CPU
	heap   int64       // the Go heap's soft limit in bytes before Start; 0 = it was not changed
}

// Start makes a node and loads its model. It must be closed. A nil log is silent.
func Start(ctx context.Context, c *config.Config, client *queue.Client, o Options, log *zap.Logger) (*Node, error) {
	n, _, err := build(c, client, o, log, func(n *Node) error { return n.Worker.Start(ctx) })
	if err != nil {
		return nil, err
	}
	n.limitHeap()
	return n, nil
}

// Preview is what Start would do with the memory that there is now.
type Preview struct {
	worker.Preview
	Spec   infer.Spec
	Device budget.Device
}

// PreviewStart plans the memory as Start does, beside the claims of other workers.
// It claims and loads nothing; the engine process that it asks has ended when it
// returns. What it has found until an error is returned with it.
func PreviewStart(ctx context.Context, c *config.Config, o Options, others []api.Claim, log *zap.Logger) (p Preview, err error) {
	n, device, err := build(c, nil, o, log, func(n *Node) (err error) {
		p.Spec = n.spec
		p.Preview, err = n.Worker.Preview(ctx, others)
		return err
	})
	p.Device = device
	if err != nil {
		return p, err
	}
	return p, n.Close()
}

// build makes a node on the device that Discover names, and has use begin with it;
// where the GPU turns out to be of no use, again on the CPU. If use fails, the node
// is closed.
func build(c *config.Config, client *queue.Client, o Options, log *zap.Logger, use func(*Node) error) (*Node, budget.Device, error) {
	if log == nil {
		log = zap.NewNop()
	}
	spec, name, err := findPieces(c)
	if err != nil {
		return nil, budget.Device{}, err
	}
	device, reason, err := Discover(c, spec.LibDir)
	if err != nil {
		return nil, device, err
	}
	if cores := budget.UsableCores(); spec.Threads > cores {
		log.Warn("more threads than cores: decoding gets many times slower", zap.Int("threads", spec.Threads), zap.Int("cores", cores))
	}
	log.Info("device found", zap.String("device", device.ID), zap.String("name", device.Name), zap.String("reason", reason))
	n, err := begin(c, client, o, spec, name, device, log, use)
	var noGPU *infer.NoGPUError
	if errors.As(err, &noGPU) && c.Engine.Device == "auto" {
		log.Warn("the GPU cannot be used, the CPU is taken instead", zap.Error(err))
		if device, _, err = budget.Discover(budget.DiscoverOptions{WantGPU: budget.CPUID}); err != nil {
			return nil, device, fmt.Errorf("find a device: %w", err)
		}
		n, err = begin(c, client, o, spec, name, device, log, use)
	}
	return n, device, err
}

// Discover chooses the device for the libraries in a directory, and says why.
func Discover(c *config.Config, libDir string) (budget.Device, string, error) {
	device, reason, err := budget.Discover(budget.DiscoverOptions{
		NVMLPath: c.Engine.NVMLPath, WantGPU: c.Engine.Device, LlamaHasCUDA: hasCUDA(libDir),
	})
	if err != nil {
		return device, "", fmt.Errorf("find a device: %w", err)
	}
	return device, reason, nil
}

// Device is the device that a worker would take, as it is now.
func Device(c *config.Config) (budget.Device, error) {
	spec, _, err := findPieces(c)
	if err != nil {
		return budget.Device{}, err
	}
	device, _, err := Discover(c, spec.LibDir)
	return device, err
}

// begin makes a node on one device and has use begin with it.
func begin(c *config.Config, client *queue.Client, o Options, spec infer.Spec, name string, device budget.Device, log *zap.Logger, use func(*Node) error) (*Node, error) {
	n, err := assemble(c, client, o, spec, name, device, log)
	if err != nil {
		return nil, err
	}
	if err := use(n); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// assemble puts a node together; nothing runs yet.
func assemble(c *config.Config, client *queue.Client, o Options, spec infer.Spec, name string, device budget.Device, log *zap.Logger) (*Node, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	limit := budget.GiBs(c.Memory.MaxGB)
	memory, err := openMemory(c, device, min(limit, device.Total.Sub(device.Reserved).Sub(reserve)))
	if err != nil {
		return nil, err
	}
	n := &Node{gpu: memory.gpu}
	monitor := budget.NewMonitor(memory.process, sampleEvery, log)
	if memory.all != nil {
		monitor.FallBackTo(memory.all)
	}
	if device.Kind == budget.CPU {
		monitor.Add(os.Getpid()) // on a CPU the worker's own share counts too
	} else {
		spec.GPU = 0 // the only one that the engine sees
	}
	n.spec = spec
	n.host = infer.NewHost(infer.HostOptions{
		Command: append([]string{program}, o.Args...),
		Env:     memory.env,
		Stderr:  o.Stderr,
		OnProcess: func(pid int, alive bool) {
			if alive {
				monitor.Add(pid)
			} else {
				monitor.Remove(pid)
			}
			if o.OnEngine != nil {
				o.OnEngine(pid, alive)
			}
		},
	}, log)
	host, err := hostMemory(c, device)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	options := worker.Options{
		Name: c.Engine.WorkerName, Model: name, Spec: spec, Device: device,
		Limit: limit, Reserve: reserve, ReadDevice: memory.device, HostMemory: host,
		Thresholds:        budget.Thresholds{Warn: c.Memory.Warn, Act: c.Memory.Act},
		MaxParallelTokens: c.Memory.MaxParallelTokens, MaxCacheTokens: c.Memory.MaxCacheTokens,
		Measure: memory.process, MeasureTaken: memory.taken, ExtraOverhead: o.ExtraOverhead,
		DrainTimeout: o.DrainTimeout,
	}
	if c.Memory.LayerStats {
		if options.Layers, err = layers(spec); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	if client == nil { // a preview takes no jobs
		n.Worker = worker.New(options, nil, nil, n.host, monitor, log)
		return n, nil
	}
	taker := client.NewTaker(queue.TakerOptions{Worker: c.Engine.WorkerName, Models: []string{name}, Batch: o.Batch}, log)
	n.Worker = worker.New(options, client, taker, n.host, monitor, log)
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
	if n.Worker != nil {
		n.Worker.Close()
	}
	err := n.host.Close()
	if n.gpu != nil {
		err = errors.Join(err, n.gpu.Close())
	}
	return err
}
