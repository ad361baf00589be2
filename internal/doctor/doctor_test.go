package doctor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/budget"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/hub"
	"tempo/internal/hub/hubtest"
	"tempo/internal/infer/infertest"
	"tempo/internal/infer/local/localtest"
	"tempo/internal/queue"
)

// configured is a configuration for a model on the CPU; env is added to it.
func configured(t *testing.T, model string, env ...string) *config.Config {
	t.Helper()
	c, err := config.Load(nil, append([]string{
		"TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_MODEL=" + model, "TEMPO_LLAMA_LIB=" + infertest.LibDir(t),
	}, env...))
	require.NoError(t, err)
	return c
}

func tiny(t *testing.T, change func(*gguf.Spec)) string {
	t.Helper()
	spec := gguf.Tiny()
	if change != nil {
		change(&spec)
	}
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	require.NoError(t, gguf.WriteFile(path, spec))
	return path
}

func TestExamine(t *testing.T) {
	t.Parallel()
	var order []Section
	c := configured(t, "served="+tiny(t, nil))
	r := Examine(t.Context(), c, Options{
		Local: true, Layers: true, EngineArgs: []string{localtest.EngineArg}, Stderr: os.Stderr,
		LibrariesSource: "flag --llama-lib", ModelSource: "environment TEMPO_MODEL",
		Progress: func(s Section, _ *Report) { order = append(order, s) },
	}, nil)
	require.True(t, r.CanRun, "%+v", r)
	require.Empty(t, r.Reasons)
	require.Equal(t, []Section{LibrariesSection, DevicesSection, ModelSection, NATSSection, MemorySection, LayersSection}, order)

	require.Equal(t, Check{Status: OK}, r.Libraries.Check)
	require.Equal(t, "flag --llama-lib", r.Libraries.Source)
	require.Contains(t, fmt.Sprint(r.Libraries.Backends), "CPU")
	require.Equal(t, budget.CPUID, r.Devices.Taken)
	last := r.Devices.List[len(r.Devices.List)-1]
	require.Equal(t, budget.CPUID, last.ID)
	require.NotEmpty(t, last.BoundedBy)
	require.Positive(t, last.Free)
	require.Equal(t, "served", r.Model.Name)
	require.Equal(t, []any{"llama", 2, 2048, true}, []any{r.Model.Architecture, r.Model.Layers, r.Model.Context, r.Model.ChatTemplate})
	require.Equal(t, Skipped, r.NATS.Status)

	m := r.Memory
	require.Equal(t, Check{Status: OK}, m.Check)
	require.Equal(t, m.Total, m.Weights+m.KVCache+m.ParallelBatch+m.Overhead)
	require.LessOrEqual(t, m.Total, m.Limit)
	require.NotEmpty(t, m.LimitReason)
	require.NotEmpty(t, m.Plan)
	require.Positive(t, m.MaxCacheTokens)
	require.True(t, m.Rule.Automatic)
	require.Positive(t, m.Rule.TokenBytes)
	require.Positive(t, m.MaxParallelTokens)

	require.Len(t, r.Layers.List, 2)
	weights, kv := r.Layers.Rest, budget.Bytes(0)
	for _, l := range r.Layers.List {
		weights, kv = weights.Add(l.Weights), kv.Add(l.KVCache)
		require.Equal(t, l.KVBytesPerToken.Mul(int64(m.MaxCacheTokens)), l.KVCache)
	}
	require.Equal(t, r.Model.Tensors, weights)
	require.Equal(t, weights, r.Layers.Weights)
	require.Equal(t, kv, r.Layers.KVCache)
	require.Equal(t, m.KVCache, kv, "what llama.cpp says of the same shape")

	text, err := json.Marshal(r)
	require.NoError(t, err)
	for _, field := range []string{`"can_run":true`, `"limit_bytes":`, `"kv_cache_bytes":`, `"status":"ok"`, `"reasons":[]`} {
		require.Contains(t, string(text), field)
	}
}

func TestExamineFinds(t *testing.T) {
	t.Parallel()
	model := tiny(t, nil)
	noModel := filepath.Join(t.TempDir(), "none.gguf")
	text := filepath.Join(t.TempDir(), "text.gguf")
	require.NoError(t, os.WriteFile(text, []byte("not a model"), 0o600))
	empty := t.TempDir()
	for name, test := range map[string]struct {
		model    string
		env      []string
		failed   func(*Report) Check
		problem  string
		hint     string
		memory   Status
		mentions string
	}{
		"no model":      {noModel, nil, func(r *Report) Check { return r.Model.Check }, "none.gguf: no such file", "--model", Skipped, "the model"},
		"no GGUF":       {text, nil, func(r *Report) Check { return r.Model.Check }, "not a GGUF file", "GGUF", Skipped, "the model"},
		"no libraries":  {model, []string{"TEMPO_LLAMA_LIB=" + empty}, func(r *Report) Check { return r.Libraries.Check }, "no libllama.so", "--llama-lib", Skipped, "the libraries"},
		"no directory":  {model, []string{"TEMPO_LLAMA_LIB=/nowhere"}, func(r *Report) Check { return r.Libraries.Check }, "/nowhere", "--llama-lib", Skipped, "the libraries"},
		"no such GPU":   {model, []string{"TEMPO_DEVICE=cuda:77"}, func(r *Report) Check { return r.Devices.Check }, "cuda:77", "CPU", Skipped, "a device"},
		"little memory": {model, []string{"TEMPO_MAX_MEMORY_GB=0.02"}, func(r *Report) Check { return r.Memory.Check }, "needed, at most", "raise --max-memory-gb", Fail, "no room"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := Examine(t.Context(), configured(t, test.model, test.env...), Options{Local: true, Layers: true, EngineArgs: []string{localtest.EngineArg}, Stderr: os.Stderr}, nil)
			require.False(t, r.CanRun)
			require.Len(t, r.Reasons, 1)
			c := test.failed(r)
			require.Equal(t, Fail, c.Status)
			require.Contains(t, c.Problem, test.problem)
			require.Contains(t, c.Hint, test.hint)
			require.Equal(t, test.memory, r.Memory.Status)
			require.Contains(t, r.Memory.Problem, test.mentions)
			if r.Model.Status == OK { // the file alone tells the layers
				require.Len(t, r.Layers.List, 2)
				require.Zero(t, r.Layers.Cells)
			} else {
				require.Equal(t, Skipped, r.Layers.Status)
			}
		})
	}
}

func TestExamineWarns(t *testing.T) {
	t.Parallel()
	model := tiny(t, func(s *gguf.Spec) { s.ChatTemplate = "" })
	r := Examine(t.Context(), configured(t, model, "TEMPO_THREADS=500"), Options{Local: true, EngineArgs: []string{localtest.EngineArg}, Stderr: os.Stderr}, nil)
	require.True(t, r.CanRun, "%v", r.Reasons)
	require.Equal(t, Warn, r.Model.Status)
	require.Contains(t, r.Model.Problem, "no chat template")
	require.Equal(t, Warn, r.Devices.Status)
	require.Contains(t, r.Devices.Problem, "500 threads")
}

func TestNATS(t *testing.T) {
	t.Parallel()
	server, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir(), Listen: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	look := func() NATS {
		r := Examine(t.Context(), configured(t, "/none"), Options{Queue: queue.Options{URL: server.URL()}}, nil)
		return r.NATS
	}
	n := look()
	require.Equal(t, OK, n.Status, "%+v", n)
	require.True(t, n.JetStream)
	require.NotEmpty(t, n.Version)
	require.Contains(t, n.Note, "not there yet")

	client, err := queue.ConnectEmbedded(t.Context(), server, nil)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.NoError(t, client.EnsureTopology(t.Context(), queue.Topology{}))
	device, err := budget.CPUDevice()
	require.NoError(t, err)
	n = look()
	require.Empty(t, n.Note)
	require.Empty(t, n.Claims)
	require.NoError(t, client.Claim(t.Context(), device.MemoryID, "other", func([]api.Claim) (api.Claim, error) {
		return api.Claim{Model: "big", Bytes: int64(3 * budget.GiB), Held: int64(2 * budget.GiB)}, nil
	}))
	n = look()
	require.Equal(t, []Claim{{Worker: "other", Model: "big", Promised: 3 * budget.GiB, Held: 2 * budget.GiB}}, n.Claims)
}

func TestNoNATS(t *testing.T) {
	t.Parallel()
	r := Examine(t.Context(), configured(t, "/none"), Options{Queue: queue.Options{URL: "nats://me:secret@127.0.0.1:1"}}, nil)
	require.Equal(t, Fail, r.NATS.Status)
	require.NotContains(t, r.NATS.Server+r.NATS.Problem, "secret")
	require.Contains(t, r.NATS.Hint, "--server")
	require.Len(t, r.Reasons, 2)
}

func TestBackends(t *testing.T) {
	t.Parallel()
	require.Equal(t, []Backend{{"CPU", 2}, {"CUDA", 1}}, backends([]string{
		"libggml-base.so", "libggml-cpu-haswell.so", "libggml-cpu-x64.so", "libggml-cuda.so", "libllama.so", "libggml.so", "libggml-metal.dylib",
	}))
	require.Empty(t, backends(nil))
}

func TestCompare(t *testing.T) {
	t.Parallel()
	l := Layers{Weights: 100, DryWeights: 150, KVCache: 1000, DryKVCache: 1005, Cells: 256}
	l.compare(true, true)
	require.Len(t, l.Differences, 1, "a few bytes of the KV cache are rounding")
	require.Contains(t, l.Differences[0], "50 B more")
	require.Contains(t, l.Differences[0], "token embeddings twice")

	l = Layers{Weights: 100, DryWeights: 100, KVCache: 5000, DryKVCache: 1000, Cells: 256}
	l.compare(false, true)
	require.Len(t, l.Differences, 1)
	require.Contains(t, l.Differences[0], "KV cache: the dry run has 1000 B, 3.91 KiB less")

	l = Layers{Cells: 256, DryKVCache: 512}
	l.compare(false, false)
	require.Contains(t, l.Differences[0], "not known from the file")
}

// TestModels is not parallel: it sets the cache.
func TestModels(t *testing.T) {
	libs := infertest.LibDir(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	file, err := os.ReadFile(tiny(t, nil))
	require.NoError(t, err)
	h := hubtest.New(t, "word", map[string][]byte{"org/repo/tiny.gguf": file})
	examine := func(env ...string) (*Report, []string) {
		c, err := config.Load(nil, append([]string{"TEMPO_DEVICE=cpu", "TEMPO_THREADS=1", "TEMPO_LLAMA_LIB=" + libs, "HF_TOKEN=word"}, env...))
		require.NoError(t, err)
		var said []string
		return Examine(t.Context(), c, Options{
			Local: true, EngineArgs: []string{localtest.EngineArg}, Stderr: os.Stderr, ModelSource: "environment TEMPO_MODEL",
			Progress: func(s Section, r *Report) {
				if s == ModelSection {
					said = append(said, r.Model.Name)
				}
			},
		}, nil), said
	}
	// What would be fetched is said, and not fetched.
	r, said := examine("TEMPO_MODEL=hf://org/repo/tiny.gguf", "HF_ENDPOINT="+h.URL)
	require.Equal(t, []string{"tiny"}, said)
	require.False(t, r.CanRun)
	require.Equal(t, []any{Fail, "hf://org/repo/tiny.gguf", "environment TEMPO_MODEL"}, []any{r.Model.Status, r.Model.Path, r.Model.Source})
	require.Equal(t, fmt.Sprintf("look in the cache: hf://org/repo/tiny.gguf is not there: a worker would fetch 1 file, %s, from %s", hub.Size(int64(len(file))), h.URL), r.Model.Problem)
	require.Equal(t, "fetch it with worker setup --model hf://org/repo/tiny.gguf; worker run and submit run --local do so by themselves", r.Model.Hint)
	require.Equal(t, Skipped, r.Memory.Status)
	require.Equal(t, int64(1), h.Requests.Load())

	r, _ = examine("TEMPO_MODEL=hf://org/repo/tiny.gguf")
	require.Contains(t, r.Model.Problem, "is not there; and it cannot be had: fetch hf://org/repo/tiny.gguf: the address of the hub is not set")
	require.Contains(t, r.Model.Hint, "set HF_ENDPOINT")
	r, _ = examine("TEMPO_MODEL=hf://org/repo/tiny.gguf", "HF_ENDPOINT="+h.URL, "TEMPO_HF_TOKEN=other")
	require.Contains(t, r.Model.Problem, "the hub refuses it: 401 Unauthorized")

	ref, err := hub.Parse("hf://org/repo/tiny.gguf")
	require.NoError(t, err)
	path, err := hub.New(hub.Options{Endpoint: h.URL, Token: "word"}).Fetch(t.Context(), ref)
	require.NoError(t, err)
	r, _ = examine("TEMPO_MODEL=served=hf://org/repo/tiny.gguf")
	require.True(t, r.CanRun, "%v", r.Reasons)
	require.Equal(t, []string{"served", path}, []string{r.Model.Name, r.Model.Path})

	// Each of several is looked at.
	r, said = examine("TEMPO_MODEL=hf://org/repo/tiny.gguf,other=/none.gguf")
	require.Equal(t, []string{"tiny", "other"}, said)
	require.False(t, r.CanRun)
	require.Equal(t, []string{"open the model file /none.gguf: no such file or directory"}, r.Reasons)
	require.Len(t, r.Models, 2)
	require.Equal(t, r.Models[0], r.Model)
	require.Equal(t, []Status{OK, Fail}, []Status{r.Models[0].Status, r.Models[1].Status})
	require.Equal(t, skipped("it needs the model"), r.Memory.Check)
}
