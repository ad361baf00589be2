package local_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local"
)

// engineVar has the test binary be an engine process.
const engineVar = "LOCAL_TEST_ENGINE"

func TestMain(m *testing.M) {
	os.Setenv("CUDA_VISIBLE_DEVICES", "") // these tests are of the CPU, also where there is a GPU
	if os.Getenv(engineVar) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	engine := local.New(nil)
	if err := infer.ServeParent(context.Background(), engine, engine.Broken()); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func newEngine(t *testing.T) infer.Engine {
	t.Helper()
	e := local.New(nil)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

func newHost(t *testing.T) infer.Engine {
	t.Helper()
	h := infer.NewHost(infer.HostOptions{
		Command: []string{os.Args[0]},
		Env:     []string{engineVar + "=1", "GORACE=atexit_sleep_ms=0"},
		Stderr:  os.Stderr,
	}, nil)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func TestLocal(t *testing.T) {
	t.Parallel()
	infertest.Test(t, newEngine, infertest.TinySpec(t))
}

func TestHostOverLocal(t *testing.T) {
	t.Parallel()
	infertest.Test(t, newHost, infertest.TinySpec(t))
}

// Faults at the start must keep what to do about them, also on their way from
// the engine's process.
func TestOpenFaults(t *testing.T) {
	t.Parallel()
	good := infertest.TinySpec(t)
	damaged := filepath.Join(t.TempDir(), "damaged.gguf")
	whole, err := os.ReadFile(good.Model)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(damaged, whole[:len(whole)/2], 0o600))
	for _, engine := range []struct {
		name string
		open func(*testing.T) infer.Engine
	}{{"local", newEngine}, {"host", newHost}} {
		for _, c := range []struct {
			name string
			spec func(infer.Spec) infer.Spec
			says string
		}{
			{"no model", func(s infer.Spec) infer.Spec { s.Model = "/no/such/model.gguf"; return s }, "/no/such/model.gguf"},
			{"damaged model", func(s infer.Spec) infer.Spec { s.Model = damaged; return s }, damaged},
			{"no libraries", func(s infer.Spec) infer.Spec { s.LibDir = "/no/such/dir"; return s }, "/no/such/dir"},
		} {
			t.Run(engine.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				_, err := engine.open(t).Open(t.Context(), c.spec(good))
				var start *infer.StartError
				require.ErrorAs(t, err, &start)
				require.Contains(t, err.Error(), c.says)
				require.NotEmpty(t, start.Hint())
			})
		}
	}
}

func TestNoGPU(t *testing.T) {
	t.Parallel()
	spec := infertest.TinySpec(t)
	spec.GPU = 0
	for _, e := range []infer.Engine{newEngine(t), newHost(t)} {
		_, err := e.Open(t.Context(), spec)
		var none *infer.NoGPUError
		require.ErrorAs(t, err, &none)
		require.Equal(t, spec.LibDir, none.LibDir)
		require.NotEmpty(t, none.Hint())
	}
}

// The facts are those of the file, and the longest job is what was asked for.
func TestFacts(t *testing.T) {
	t.Parallel()
	spec := infertest.TinySpec(t)
	tiny, err := gguf.ReadHeader(spec.Model)
	require.NoError(t, err)
	f, err := newEngine(t).Open(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, gguf.Tiny().Context, f.Context)
	require.Equal(t, gguf.Tiny().Vocab, f.Vocabulary)
	require.InEpsilon(t, float64(tiny.TensorBytes), float64(f.Weights), 0.05)
	require.Positive(t, int64(f.Process))
	spec.Context = 300
	f, err = newEngine(t).Open(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, 300, f.Context)
}

// What is put down for the batch must hold the logits of every sequence: on a
// large vocabulary they are most of it.
func TestFootprintHasTheLogits(t *testing.T) {
	t.Parallel()
	spec, large := infertest.TinySpec(t), gguf.Tiny()
	large.Vocab, spec.Batch = 16384, 256
	require.NoError(t, gguf.WriteFile(spec.Model, large))
	e := newEngine(t)
	_, err := e.Open(t.Context(), spec)
	require.NoError(t, err)
	few, err := e.DryRun(t.Context(), infer.Shape{Sequences: 32, Cells: 1024})
	require.NoError(t, err)
	many, err := e.DryRun(t.Context(), infer.Shape{Sequences: 256, Cells: 1024})
	require.NoError(t, err)
	logits := int64((256 - 32) * large.Vocab * 4)
	require.GreaterOrEqual(t, int64(many.ParallelBatch-few.ParallelBatch), 2*logits*98/100,
		"once where they are computed, once where they are read")
}

// A model without a chat template gets ChatML; one whose template refuses the
// messages is the request's fault.
func TestChatTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, template string
		refuses        bool
	}{
		{"none", "", false},
		{"refuses", "{{ raise_exception('roles must alternate') }}", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spec, tiny := infertest.TinySpec(t), gguf.Tiny()
			tiny.ChatTemplate = c.template
			require.NoError(t, gguf.WriteFile(spec.Model, tiny))
			e := newEngine(t)
			_, err := e.Open(t.Context(), spec)
			require.NoError(t, err)
			_, err = e.Load(t.Context(), infer.Shape{Sequences: 1, Cells: 256})
			require.NoError(t, err)
			_, err = e.Generate(t.Context(), infer.Request{ID: "1", Lease: infertest.NewLease(0), Job: &api.Request{
				URL: api.ChatCompletions, MaxTokens: 2, Messages: []api.Message{{Role: "user", Content: "hello"}},
			}})
			if !c.refuses {
				require.NoError(t, err)
				return
			}
			var request *infer.RequestError
			require.ErrorAs(t, err, &request)
			require.Equal(t, "messages", request.Param)
			require.Contains(t, err.Error(), "roles must alternate")
			require.NotEmpty(t, request.Hint())
		})
	}
	t.Run("broken", func(t *testing.T) {
		t.Parallel()
		spec, tiny := infertest.TinySpec(t), gguf.Tiny()
		tiny.ChatTemplate = "{% for %}"
		require.NoError(t, gguf.WriteFile(spec.Model, tiny))
		e := newEngine(t)
		_, err := e.Open(t.Context(), spec)
		require.NoError(t, err)
		_, err = e.Load(t.Context(), infer.Shape{Sequences: 1, Cells: 256})
		var start *infer.StartError
		require.ErrorAs(t, err, &start)
		require.Contains(t, err.Error(), "chat template")
	})
}

// Embeddings and what a job may not ask, through the engine's own door.
func TestEmbeddingsAndRefusals(t *testing.T) {
	t.Parallel()
	e := newHost(t)
	f, err := e.Open(t.Context(), infertest.TinySpec(t))
	require.NoError(t, err)
	require.Equal(t, gguf.Tiny().Embedding, f.Embedding)
	_, err = e.Load(t.Context(), infer.Shape{Sequences: 4, Cells: 1024})
	require.NoError(t, err)
	out, err := e.Generate(t.Context(), infer.Request{ID: "e", Lease: infertest.NewLease(0), Job: &api.Request{
		URL: api.Embeddings, Input: []string{"one", "two words", "one"},
	}})
	require.NoError(t, err)
	require.Len(t, out.Embeddings, 3)
	require.Len(t, out.Embeddings[0], f.Embedding)
	require.InDeltaSlice(t, out.Embeddings[0], out.Embeddings[2], 1e-5)
	for param, job := range map[string]api.Request{
		"logit_bias":      {URL: api.Completions, Prompt: "a", Sampling: api.Sampling{LogitBias: map[int32]float64{512: 1}}},
		"input[1]":        {URL: api.Embeddings, Input: []string{"a", "nul \x00"}},
		"grammar":         {URL: api.Completions, Prompt: "a", Grammar: "root ::= nothing"},
		"response_format": {URL: api.Completions, Prompt: "a", Schema: []byte(`{"type":"object","minProperties":1}`)},
	} {
		_, err := e.Generate(t.Context(), infer.Request{ID: param, Lease: infertest.NewLease(0), Job: &job})
		var request *infer.RequestError
		require.ErrorAs(t, err, &request, param)
		require.Equal(t, param, request.Param)
		require.NotEmpty(t, request.Hint())
	}
}

// All sets of a job have no more tokens than the caller has memory for, on its way through a
// process too. They get narrow before the answer ends; what was left out counts.
func TestSetsEndWhereTheResultDoes(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]infer.Engine{"local": newEngine(t), "host": newHost(t)} {
		_, err := e.Open(t.Context(), infertest.TinySpec(t))
		require.NoError(t, err, name)
		_, err = e.Load(t.Context(), infer.Shape{Sequences: 4, Cells: 1024})
		require.NoError(t, err, name)
		for _, c := range []struct{ maxTokens, most, positions, tokens int }{
			{10, 0, 10, 40}, {10, 100, 10, 40}, {10, 25, 10, 25}, {10, 6, 6, 6}, {0, 22, 6, 22},
		} {
			out, err := e.Generate(t.Context(), infer.Request{ID: "sets", Lease: infertest.NewLease(0), Most: c.most, Job: &api.Request{
				URL: api.Completions, Prompt: infertest.Words(5), MaxTokens: c.maxTokens, IgnoreEOS: true,
				Sampling: api.Sampling{Temperature: 1},
				Parallel: &api.Parallel{Threshold: api.MinThreshold, MaxTokens: 4, Mix: api.MixWeighted, ReturnSets: true},
			}})
			require.NoError(t, err, name)
			require.Equal(t, "length", out.Choices[0].FinishReason, name)
			got := out.Parallel
			require.Equal(t, []int{c.positions, c.tokens}, []int{got.Positions, got.Tokens}, "%s: %+v", name, c)
			require.Equal(t, 4*c.positions-c.tokens, got.CutByMemory, "%s: %+v", name, c)
		}
	}
}
