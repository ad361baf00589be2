// Package node makes a worker of a configuration: it finds the device, the
// libraries and the models, sets the limit, and puts engine processes, monitors and
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
	Worker *worker.Team
	specs  []infer.Spec // of the models, in their order
	gpu    *budget.GPU  // nil on a CPU
	heap   int64        // the Go heap's soft limit in bytes before Start; 0 = it was not changed
}

// Start makes a node; it loads its model, or opens all where it has several. It must be
// closed. A nil log is silent.
func Start(ctx context.Context, c *config.Config, client *queue.Client, o Options, log *zap.Logger) (*Node, error) {
	n, _, err := build(c, client, o, log, func(n *Node) error { return n.Worker.Start(ctx) })
	if err != nil {
		return nil, err
	}
	n.limitHeap()
	return n, nil
}

// Preview is what Start would do with the memory that there is now, for the first model.
type Preview struct {
	worker.Preview
	Spec   infer.Spec
	Device budget.Device
	Models []ModelPreview // all, in their order
}

// ModelPreview is what would be done for a model if it were loaded alone.
type ModelPreview struct {
	worker.Preview
	Name string
	Spec infer.Spec
}

// PreviewStart plans the memory as Start does, beside the claims of other workers.
// It claims and loads nothing; the engine processes that it asks have ended when it
// returns. What it has found until an error is returned with it.
func PreviewStart(ctx context.Context, c *config.Config, o Options, others []api.Claim, log *zap.Logger) (p Preview, err error) {
	n, device, err := build(c, nil, o, log, func(n *Node) (err error) {
		p.Spec, p.Models = n.specs[0], nil
		all, err := n.Worker.Preview(ctx, others)
		for i, one := range all {
			p.Models = append(p.Models, ModelPreview{one, n.Worker.Models()[i], n.specs[i]})
		}
		if len(all) > 0 {
			p.Preview = all[0]
		}
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
	spec, models, err := findPieces(c)
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
	n, err := begin(c, client, o, spec, models, device, log, use)
	var noGPU *infer.NoGPUError
	if errors.As(err, &noGPU) && c.Engine.Device == "auto" {
		log.Warn("the GPU cannot be used, the CPU is taken instead", zap.Error(err))
		if device, _, err = budget.Discover(budget.DiscoverOptions{WantGPU: budget.CPUID}); err != nil {
			return nil, device, fmt.Errorf("find a device: %w", err)
		}
		n, err = begin(c, client, o, spec, models, device, log, use)
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
func begin(c *config.Config, client *queue.Client, o Options, spec infer.Spec, models []ModelFile, device budget.Device, log *zap.Logger, use func(*Node) error) (*Node, error) {
	n, err := assemble(c, client, o, spec, models, device, log)
	if err != nil {
		return nil, err
	}
	if err := use(n); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// assemble puts a node together; nothing runs yet.
func assemble(c *config.Config, client *queue.Client, o Options, spec infer.Spec, models []ModelFile, device budget.Device, log *zap.Logger) (*Node, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	limit := budget.GiBs(c.Memory.MaxGB)
	memory, err := openMemory(c, device, min(limit, device.Total.Sub(device.Reserved).Sub(reserve)))
	if err != nil {
		return nil, err
	}
	if device.Kind != budget.CPU {
		spec.GPU = 0 // the only one that an engine sees
	}
	n := &Node{gpu: memory.gpu}
	host, err := hostMemory(c, device)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	p := parts{c: c, client: client, o: o, memory: memory, command: append([]string{program}, o.Args...), several: len(models) > 1, log: log}
	var served []worker.Model
	for _, m := range models {
		spec.Model = m.Path
		n.specs = append(n.specs, spec)
		model, err := p.model(n, m.Name, spec)
		if err != nil {
			return nil, errors.Join(err, n.Close())
		}
		if device.Kind == budget.CPU && len(models) == 1 {
			model.Monitor.Add(os.Getpid()) // on a CPU the worker's own share counts too; of several models it is nobody's
		}
		served = append(served, model)
	}
	options := worker.Options{
		Name: c.Engine.WorkerName, Device: device,
		Limit: limit, Reserve: reserve, ReadDevice: memory.device, HostMemory: host,
		Thresholds:        budget.Thresholds{Warn: c.Memory.Warn, Act: c.Memory.Act},
		MaxParallelTokens: c.Memory.MaxParallelTokens, MaxCacheTokens: c.Memory.MaxCacheTokens,
		Measure: memory.process, MeasureTaken: memory.taken, ExtraOverhead: o.ExtraOverhead,
		DrainTimeout: o.DrainTimeout,
	}
	if device.Kind == budget.CPU { // more threads than cores would make decoding many times slower
		options.AtOnce = max(budget.UsableCores()/spec.Threads, 1)
	}
	if client == nil { // a preview takes no jobs
		n.Worker = worker.NewTeam(options, nil, served, log)
	} else {
		n.Worker = worker.NewTeam(options, client, served, log)
	}
	return n, nil
}

// parts is what the models of a node are served with.
type parts struct {
	c       *config.Config
	client  *queue.Client // nil = jobs are not taken
	o       Options
	memory  deviceMemory
	command []string
	several bool // models
	log     *zap.Logger
}

// model is a model of the node n.
func (p *parts) model(n *Node, name string, spec infer.Spec) (m worker.Model, err error) {
	m = worker.Model{Name: name, Spec: spec, Monitor: budget.NewMonitor(p.memory.process, sampleEvery, p.log)}
	if p.memory.all != nil {
		m.Monitor.FallBackTo(func() (budget.Bytes, error) {
			all, err := p.memory.all()
			return max(all.Sub(n.Worker.HeldBeside(name)), 0), err
		})
	}
	log := p.log
	if p.several {
		log = log.With(zap.String("model", name))
	}
	m.Engine = func() infer.Engine {
		return infer.NewHost(infer.HostOptions{
			Command: p.command, Env: p.memory.env, Stderr: p.o.Stderr,
			OnProcess: func(pid int, alive bool) {
				if alive {
					m.Monitor.Add(pid)
				} else {
					m.Monitor.Remove(pid)
				}
				if p.o.OnEngine != nil {
					p.o.OnEngine(pid, alive)
				}
			},
		}, log)
	}
	if p.client != nil {
		m.Taker = p.client.NewTaker(queue.TakerOptions{Worker: p.c.Engine.WorkerName, Models: []string{name}, Batch: p.o.Batch}, p.log)
	}
	if p.c.Memory.LayerStats {
		m.Layers, err = layers(spec)
	}
	return m, err
}

// limitHeap has the garbage collector work harder before this process takes more
// than was booked for it. A lower limit that the user has set (GOMEMLIMIT) stays.
func (n *Node) limitHeap() {
	own, now := int64(n.Worker.OwnShare()), debug.SetMemoryLimit(-1)
	if own > 0 && own < now {
		n.heap = debug.SetMemoryLimit(own)
	}
}

// Close ends the engine processes.
func (n *Node) Close() error {
	if n.heap > 0 {
		debug.SetMemoryLimit(n.heap)
	}
	var err error
	if n.Worker != nil {
		err = n.Worker.Close()
	}
	if n.gpu != nil {
		err = errors.Join(err, n.gpu.Close())
	}
	return err
}
