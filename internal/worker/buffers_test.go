package worker

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"unsafe"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/infer"
)

func TestPerToken(t *testing.T) {
	t.Parallel()
	sets := func(change func(*api.Parallel)) *api.Request {
		p := &api.Parallel{Threshold: 0.1}
		change(p)
		return &api.Request{Parallel: p}
	}
	for _, c := range []struct {
		name    string
		request *api.Request
		want    budget.Bytes
	}{
		{"text", &api.Request{TopLogprobs: 9}, 32},
		{"log probabilities", &api.Request{Logprobs: true}, 32 + 256},
		{"of several tokens", &api.Request{Logprobs: true, TopLogprobs: 2}, 32 + 3*256},
		{"sets", sets(func(*api.Parallel) {}), 32 + 288},
		{"sets that are listed", sets(func(p *api.Parallel) { p.ReturnSets = true }), 32 + 288 + 672},
	} {
		require.Equal(t, c.want, perToken(c.request), c.name)
	}
	// Each process has the message in three copies at most, and the token as Go has it.
	longest, err := json.Marshal(api.ParallelToken{TokenID: 1 << 20, Text: strings.Repeat("o", 16), Probability: 0.00012345678901234567, Removed: true})
	require.NoError(t, err)
	one := 3*len(longest) + int(unsafe.Sizeof(api.ParallelToken{}))
	require.LessOrEqual(t, one, listedBytes)
}

func TestBufferBytes(t *testing.T) {
	t.Parallel()
	job := api.Job{Body: make([]byte, 1000)}
	const beside = ticketBuffers + 4*1000
	for _, c := range []struct {
		name             string
		request          api.Request
		longest, numbers int
		want             budget.Bytes
	}{
		{"nothing", api.Request{}, 0, 50, 0},
		{"an answer", api.Request{N: 1}, 100, 50, 100 * 32},
		{"three answers", api.Request{N: 3}, 100, 50, 3 * 100 * 32},
		{"vectors", api.Request{URL: api.Embeddings, Input: []string{"a", "b"}}, 100, 50, 2 * 50 * 32},
		{"sets", api.Request{N: 1, Parallel: &api.Parallel{}}, 100, 50, 100 * 320},
		{"sets that are listed", api.Request{N: 1, Parallel: &api.Parallel{ReturnSets: true}}, 100, 50, 100 * 992},
	} {
		require.Equal(t, beside+c.want, bufferBytes(job, &c.request, c.longest, c.numbers), c.name)
	}
}

func TestMostTokens(t *testing.T) {
	t.Parallel()
	removal := &api.RetroactiveRemoval{AttentionThreshold: 0.1, Window: 2}
	for _, c := range []struct {
		name           string
		context, cells int
		maxTokens      int
		parallel       *api.Parallel
		want           int
	}{
		{"the context", 2000, 8000, 0, nil, 2000},
		{"the pool", 20000, 8000, 0, nil, 8000},
		{"max_tokens", 2000, 8000, 100, nil, 100},
		{"as wide as the worker allows", 2000, 8000, 100, &api.Parallel{Threshold: 0.01}, 1600},
		{"as wide as the job allows", 2000, 8000, 100, &api.Parallel{Threshold: 0.01, MaxTokens: 3}, 300},
		{"as wide as the threshold allows", 2000, 8000, 100, &api.Parallel{Threshold: 0.5}, 200},
		{"all positions of the context", 1000, 8000, 0, &api.Parallel{Threshold: 0.5}, 2000},
		{"what the pool holds", 2000, 8000, 0, &api.Parallel{Threshold: 0.01}, 8000},
		{"with removal the result has more", 1000, 1000, 0, &api.Parallel{Threshold: 0.1, Removal: removal}, 10000},
		{"max_cache_tokens", 2000, 8000, 0, &api.Parallel{Threshold: 0.01, MaxCacheTokens: 500}, 500},
		{"max_cache_tokens and max_tokens", 2000, 8000, 20, &api.Parallel{Threshold: 0.01, MaxCacheTokens: 500}, 320},
		{"with removal each position has one left", 2000, 8000, 0, &api.Parallel{Threshold: 0.1, MaxCacheTokens: 500, Removal: removal}, 5000},
		{"host memory", 32768, 400_000, 0, &api.Parallel{Threshold: 0.1}, 8 * 1024 * 1024 / 320},
		{"host memory for a list", 32768, 400_000, 0, &api.Parallel{Threshold: 0.1, ReturnSets: true}, 8 * 1024 * 1024 / 992},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := alone(t, &script{}, nil)
				w.facts.Context, w.pool.sequences, w.wanted = c.context, 16, 0
				w.cells.Store(int64(c.cells))
				require.Equal(t, c.want, w.mostTokens(&api.Request{MaxTokens: c.maxTokens, Parallel: c.parallel}))
			})
		})
	}
}

// TestThePoolGrowsWhileAJobRuns: it may use what it did not find.
func TestThePoolGrowsWhileAJobRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &script{}, nil)
		w.facts.Context, w.wanted = 2000, 1024
		w.cells.Store(256)
		require.Equal(t, 1024, w.mostTokens(&api.Request{Parallel: &api.Parallel{Threshold: 0.1}}))
		require.Equal(t, 256, w.mostTokens(&api.Request{}))
	})
}

// TestSetsAreNotRefused however many they could be: the engine is told where they end.
func TestSetsAreNotRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told := map[string]int{}
		engine := &script{act: func(_ context.Context, r infer.Request, prompt string) error {
			told[prompt] = r.Most
			return nil
		}}
		w := alone(t, engine, nil)
		w.queue = unanswered{}
		w.facts.Context, w.wanted, w.pool.sequences = 32768, 400_000, 16
		for prompt, tempo := range map[string]string{
			"plain": ``, "sets": `,"tempo":{"selection_threshold":0.1}`,
			"listed":  `,"tempo":{"selection_threshold":0.1,"return_parallel_sets":true}`,
			"bounded": `,"max_tokens":50,"tempo":{"selection_threshold":0.1,"return_parallel_sets":true}`,
			"removal": `,"tempo":{"selection_threshold":0.01,"retroactive_removal":{},"return_parallel_sets":true}`,
		} {
			j := newJob(t, w, prompt, 100)
			j.delivery.Job.URL = api.ChatCompletions
			j.delivery.Job.Body = json.RawMessage(`{"messages":[{"role":"user","content":"` + prompt + `"}]` + tempo + `}`)
			r, err := w.run(j)
			require.NoError(t, err)
			require.True(t, r.OK(), "%s", r.Response.Body)
			require.LessOrEqual(t, j.buffers.Size(), ticketBuffers+4*budget.Bytes(len(j.delivery.Job.Body))+w.opts.HostMemory/setsShare)
			finish(w, j)
		}
		share := int(w.opts.HostMemory / setsShare)
		require.Equal(t, map[string]int{"plain": 0, "sets": share / 320, "listed": share / 992, "bounded": 500, "removal": share / 992}, told)
	})
}

// TestHintOverHostMemory: it names what helps.
func TestHintOverHostMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := alone(t, &script{}, func(o *Options) { o.HostMemory = budget.MiB })
		for _, c := range []struct {
			request *api.Request
			hints   int
		}{{&api.Request{}, 2}, {&api.Request{Parallel: &api.Parallel{Threshold: 0.1}}, 1}} {
			j := newJob(t, w, "j", 100)
			j.delivery.Job.Body = make([]byte, 300<<10)
			var large *budget.TooLargeError
			require.ErrorAs(t, w.leaseBuffers(j, c.request), &large)
			require.Len(t, large.Hints, c.hints)
			require.Contains(t, large.Hint(), "send a request of less than")
			finish(w, j)
		}
	})
}
