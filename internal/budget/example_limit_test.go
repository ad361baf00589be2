package budget_test

import (
	"fmt"

	"tempo/internal/budget"
)

func ExampleEffectiveLimit() {
	gpu := budget.Device{ID: "GPU-1", Total: 80 * budget.GiB, Reserved: budget.GiB, Free: 61 * budget.GiB}
	limit, why := budget.EffectiveLimit(budget.LimitRequest{
		Maximum: 60 * budget.GiB,
		Device:  gpu,
		Others:  []budget.Claimed{{Promised: 30 * budget.GiB, Held: 10 * budget.GiB}},
		Reserve: budget.GiB,
	})
	fmt.Println(limit)
	fmt.Println(why)
	// Output:
	// 40.0 GiB
	// GPU-1 has 61.0 GiB free, 1 other worker has claimed 20.0 GiB more, less a reserve of 1.00 GiB (max_memory_gb would allow 60.0 GiB)
}
