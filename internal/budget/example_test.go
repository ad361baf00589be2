package budget_test

import (
	"context"
	"errors"
	"fmt"

	"tempo/internal/budget"
)

func ExampleLedger() {
	ledger, err := budget.NewLedger("cpu", 1*budget.GiB)
	if err != nil {
		fmt.Println(err)
		return
	}
	for line, n := range map[budget.Line]budget.Bytes{
		budget.Weights: 400 * budget.MiB,
		budget.KVCache: 256 * budget.MiB, // the pool
	} {
		if err := ledger.Book(line, n); err != nil {
			fmt.Println(err)
		}
	}

	job, err := ledger.Acquire(context.Background(), 100*budget.MiB, budget.Normal)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer job.Release()
	if err := job.Grow(200 * budget.MiB); err != nil {
		fmt.Println(err)
	}
	if err := job.Grow(50 * budget.MiB); err == nil {
		fmt.Println("reserved", ledger.Snapshot().Reserved, "of", ledger.Snapshot().Room)
	}
	if _, ok := ledger.TryAcquire(150 * budget.MiB); !ok {
		fmt.Println("no room for 150 MiB now")
	}
	// Output:
	// no room for a job's KV cache on cpu: 300 MiB needed, at most 256 MiB can be had
	// reserved 150 MiB of 256 MiB
	// no room for 150 MiB now
}

// The host's memory has a ledger beside the GPU's. A job leases KV on the one and
// buffers on the other, both or none.
func ExampleGroup() {
	group := budget.NewGroup()
	ledger := func(device string, limit, pool budget.Bytes) *budget.Ledger {
		l, err := group.NewLedger(device, limit)
		if err == nil {
			err = l.Book(budget.KVCache, pool)
		}
		if err != nil {
			fmt.Println(err)
		}
		return l
	}
	gpu := ledger("gpu0", 8*budget.GiB, 6*budget.GiB)
	host := ledger("host", 2*budget.GiB, 1*budget.GiB) // swapped KV, bodies and results of jobs
	job := []budget.Request{
		{Ledger: gpu, Bytes: 4 * budget.GiB},
		{Ledger: host, Bytes: 300 * budget.MiB},
	}

	first, err := group.Acquire(context.Background(), budget.Normal, job...)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, ok := group.TryAcquire(job...); !ok {
		fmt.Println("the second job waits for", gpu.Shortfall(4*budget.GiB), "on gpu0; on the host it has", host.Available())
	}
	second := make(chan []*budget.Lease)
	go func() {
		leases, err := group.Acquire(context.Background(), budget.Normal, job...)
		if err != nil {
			fmt.Println(err)
		}
		second <- leases
	}()
	for _, lease := range first {
		lease.Release()
	}
	for _, lease := range <-second {
		fmt.Println("the second job has", lease.Size())
	}
	for _, s := range group.Snapshot() {
		fmt.Println(s.Device, s.Reserved, "of", s.Room)
	}
	// Output:
	// the second job waits for 2.00 GiB on gpu0; on the host it has 724 MiB
	// the second job has 4.00 GiB
	// the second job has 300 MiB
	// gpu0 4.00 GiB of 6.00 GiB
	// host 300 MiB of 1.00 GiB
}

func ExampleTooLargeError() {
	ledger, err := budget.NewLedger("cpu", 300*budget.MiB)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = ledger.Book(budget.Weights, 400*budget.MiB)
	if tooLarge, ok := errors.AsType[*budget.TooLargeError](err); ok {
		fmt.Println(tooLarge)
		fmt.Println("hint:", tooLarge.Hint())
	}
	// Output:
	// no room for weights on cpu: 400 MiB needed, at most 300 MiB can be had
	// hint: raise --max-memory-gb to at least 0.40, if the device has it
}

func ExampleAutoParallelTokens() {
	fmt.Println(budget.AutoParallelTokens(1*budget.GiB, 40*budget.MiB)) // 0.8 · 1024 / 40
	fmt.Println(budget.AutoParallelTokens(64*budget.GiB, 40*budget.MiB))
	fmt.Println(budget.AutoParallelTokens(-1*budget.GiB, 40*budget.MiB))
	// Output:
	// 20
	// 50
	// 1
}
