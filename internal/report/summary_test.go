package report

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/submit"
)

const mib = 1 << 20

func TestMemory(t *testing.T) {
	t.Parallel()
	s := api.MemoryStats{
		Worker: "host-1", Device: "cpu", Model: "SmolLM2", MaxCacheTokens: 8192, MaxParallelTokens: 16,
		Memory:   api.Memory{Weights: 100 * mib, KVCache: 180 * mib, ParallelBatch: 90 * mib, Overhead: 50 * mib, Peak: 430 * mib, Limit: 36 << 30},
		Estimate: api.Memory{Weights: 101 * mib, KVCache: 180 * mib, ParallelBatch: 90 * mib, Overhead: 128 * mib, Peak: 499 * mib, Limit: 36 << 30},
	}
	var out bytes.Buffer
	require.NoError(t, Memory(&out, s))
	require.Equal(t, `
Memory of worker host-1 on cpu, model SmolLM2
                      estimate   measured
            weights    101 MiB    100 MiB
           KV cache    180 MiB    180 MiB
     parallel batch   90.0 MiB   90.0 MiB
           overhead    128 MiB   50.0 MiB
              total    499 MiB    420 MiB
               peak    499 MiB    430 MiB
              limit   36.0 GiB   36.0 GiB
  at most 8192 tokens in the KV cache, 16 tokens a step
`, out.String())
}

func TestMemoryThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, Memory(broken{}, api.MemoryStats{}), errBroken)
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestBatch(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		summary submit.Summary
		want    string
	}{
		"all well": {
			submit.Summary{Batch: "batch_1", Succeeded: 24, Tokens: 700, Seconds: 3.14, TokensPerSecond: 320.4, Output: "out/results.jsonl", Errors: "out/errors.jsonl"},
			`
Batch batch_1: 24 succeeded, 0 failed
700 tokens generated at 320 tokens/s, 3.1 s in all
results: out/results.jsonl
`,
		},
		"narrow sets": {
			submit.Summary{Batch: "batch_1", Succeeded: 24, Narrowed: 3, Tokens: 700, Seconds: 3, TokensPerSecond: 300, Output: "-"},
			`
Batch batch_1: 24 succeeded, 0 failed
700 tokens generated at 300 tokens/s, 3.0 s in all
3 answers have sets that memory made narrower: raise the worker's --max-memory-gb (and --max-cache-tokens, if it is given), or lower --max-parallel-tokens
`,
		},
		"a small cache": {
			submit.Summary{Batch: "batch_1", Succeeded: 24, Narrowed: 3, OfCache: 3, Tokens: 700, Seconds: 3, TokensPerSecond: 300, Output: "-"},
			`
Batch batch_1: 24 succeeded, 0 failed
700 tokens generated at 300 tokens/s, 3.0 s in all
3 answers have sets that memory made narrower: raise the worker's --max-cache-tokens (it held less than half of its memory limit), or lower --max-parallel-tokens
`,
		},
		"one narrow": {
			submit.Summary{Batch: "batch_1", Succeeded: 1, Narrowed: 1, Tokens: 7, Seconds: 3, TokensPerSecond: 3, Output: "-"},
			`
Batch batch_1: 1 succeeded, 0 failed
7 tokens generated at 3 tokens/s, 3.0 s in all
1 answer has sets that memory made narrower: raise the worker's --max-memory-gb (and --max-cache-tokens, if it is given), or lower --max-parallel-tokens
`,
		},
		"some failed": {
			submit.Summary{Batch: "batch_1", Succeeded: 20, Failed: 4, BadLines: 3, Resumed: 7, Tokens: 700, Seconds: 3, TokensPerSecond: 300, Output: "out/results.jsonl", Errors: "out/errors.jsonl"},
			`
Batch batch_1: 20 succeeded, 4 failed (3 of them never sent), 7 of an earlier run
700 tokens generated at 300 tokens/s, 3.0 s in all
results: out/results.jsonl
errors:  out/errors.jsonl
`,
		},
		"standard output": {
			submit.Summary{Batch: "batch_1", Failed: 1, Output: "-"},
			`
Batch batch_1: 0 succeeded, 1 failed
nothing was generated
`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			require.NoError(t, Batch(&out, test.summary))
			require.Equal(t, test.want, out.String())
		})
	}
}
