package schedule

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/llama"
)

func (r *rig) embed(ctx context.Context, input ...string) (*infer.Output, error) {
	texts := make([][]llama.Token, len(input))
	for i, text := range input {
		var err error
		if texts[i], err = r.model.Tokenize(text); err != nil {
			return nil, err
		}
	}
	return r.Embed(ctx, infer.Request{Job: &api.Request{URL: api.Embeddings, Input: input}, Lease: infertest.NewLease(0)}, texts)
}

// A vector does not depend on what else is in the job or beside it, and answers and
// embeddings take turns over one model.
func TestEmbeddings(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2048, 8, 64)
	long := infertest.Words(300)
	var alone [][]float32
	for _, text := range []string{"hello there", long, "goodbye"} {
		out, err := r.embed(t.Context(), text)
		require.NoError(t, err)
		require.Len(t, out.Embeddings, 1)
		require.Len(t, out.Embeddings[0], 64)
		require.Zero(t, out.CompletionTokens)
		alone = append(alone, out.Embeddings[0])
		square := 0.0
		for _, x := range out.Embeddings[0] {
			square += float64(x) * float64(x)
		}
		require.InDelta(t, 1, math.Sqrt(square), 1e-5)
	}
	require.NotEqual(t, alone[0], alone[2])
	var all errgroup.Group
	outs := make([]*infer.Output, 10)
	for n := range outs {
		all.Go(func() (err error) {
			outs[n], err = r.embed(t.Context(), "hello there", long, "goodbye")
			return err
		})
		all.Go(func() error {
			_, err := r.run(t.Context(), api.Request{Prompt: "beside them", MaxTokens: 9}, infertest.NewLease(0))
			return err
		})
	}
	require.NoError(t, all.Wait())
	for _, out := range outs {
		require.Greater(t, out.PromptTokens, 300)
		for i := range alone {
			require.InDeltaSlice(t, alone[i], out.Embeddings[i], 1e-5)
		}
	}
}

// The vector of a text is the mean of those of its tokens, calculated by a plain loop.
func TestEmbeddingIsTheMean(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	tokens, err := r.model.Tokenize("the mean of all")
	require.NoError(t, err)
	c, err := r.model.NewContext(llama.ContextOptions{Cells: 256, Sequences: 1, Batch: 64, Threads: 1, Embeddings: true, NoFlash: true, TypeK: "f32", TypeV: "f32"})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	sum := make([]float64, 64)
	for pos, token := range tokens {
		c.Clear()
		at, err := c.Add(token, pos, 0, true)
		require.NoError(t, err)
		require.NoError(t, c.Decode())
		v, err := c.Embedding(at)
		require.NoError(t, err)
		for i, x := range v {
			sum[i] += float64(x)
		}
	}
	out, err := r.embed(t.Context(), "the mean of all")
	require.NoError(t, err)
	require.InDeltaSlice(t, unit(sum), out.Embeddings[0], 1e-5)
}

func TestPooling(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pooling llama.Pooling
		want    []float64
	}{{llama.PoolMean, []float64{6, 9}}, {llama.PoolFirst, []float64{1, 2}}, {llama.PoolLast, []float64{3, 4}}} {
		v := vectors{pooling: c.pooling}
		v.add([]float32{1, 2}, true, false)
		v.add([]float32{2, 3}, false, false)
		v.add([]float32{3, 4}, false, true)
		require.Equal(t, c.want, v.sum)
	}
	require.Equal(t, []float32{0, 0}, unit([]float64{0, 0}))
}

// An answer keeps to its grammar, and to a schema.
func TestGrammar(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1024, 4, 64)
	out := r.mustRun(t, api.Request{Prompt: "hello", MaxTokens: 20, Grammar: `root ::= "yes" | "no"`})
	require.Contains(t, []string{"yes", "no"}, out.Text())
	require.Equal(t, "stop", out.Choices[0].FinishReason)
	seed := uint32(3)
	job := api.Request{
		Prompt: "hello", MaxTokens: 200, N: 3,
		Schema:   []byte(`{"type":"object","properties":{"ok":{"type":"boolean"},"n":{"type":"integer","minimum":1,"maximum":99}},"required":["ok","n"],"additionalProperties":false}`),
		Sampling: api.Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1, Seed: &seed},
	}
	out = r.mustRun(t, job)
	require.Len(t, out.Choices, 3)
	for _, c := range out.Choices {
		require.Regexp(t, `^\{\s*"ok"\s*:\s*(true|false)\s*,\s*"n"\s*:\s*[1-9][0-9]?\s*\}$`, c.Text)
	}
	for param, job := range map[string]api.Request{
		"grammar":         {Prompt: "hello", Grammar: `root ::= "yes`},
		"response_format": {Prompt: "hello", Schema: []byte(`{"type":"nothing"}`)},
	} {
		_, err := r.run(t.Context(), job, infertest.NewLease(0))
		var request *infer.RequestError
		require.ErrorAs(t, err, &request)
		require.Equal(t, param, request.Param)
		require.NotEmpty(t, request.Hint())
	}
}

// A text as long as the pool fits, a longer one is refused, also if it is not the first.
func TestEmbeddingsAndThePool(t *testing.T) {
	t.Parallel()
	r := newRig(t, 256, 2, 64)
	_, err := r.embed(t.Context(), "short", infertest.Words(256))
	require.NoError(t, err)
	_, err = r.embed(t.Context(), "short", infertest.Words(257))
	var pool *infer.PoolError
	require.ErrorAs(t, err, &pool)
}
