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
