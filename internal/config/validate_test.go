package config

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	seed, hot := uint32(math.MaxUint32), 2.5
	tests := []struct {
		key   string
		spoil func(c *Config)
		says  string
	}{
		{"max_memory_gb", func(c *Config) { c.Memory.MaxGB = 0 }, "got 0, allowed: a number over 0"},
		{"max_memory_gb", func(c *Config) { c.Memory.MaxGB = math.NaN() }, "got NaN"},
		{"max_memory_gb", func(c *Config) { c.Memory.MaxGB = math.Inf(1) }, "got +Inf"},
		{"threads", func(c *Config) { c.Engine.Threads = 513 }, "got 513, allowed: 1 to 512, or 0 (automatic)"},
		{"max_cache_tokens", func(c *Config) { c.Memory.MaxCacheTokens = 255 }, "got 255, allowed: 256 or more"},
		{"max_parallel_tokens", func(c *Config) { c.Memory.MaxParallelTokens = -1 }, "got -1, allowed: 1 to 256, or 0 (automatic)"},
		{"max_cache_tokens", func(c *Config) { c.Memory.MaxCacheTokens = -1 }, "got -1"},
		{"memory_act", func(c *Config) { c.Memory.Act = 95 }, "got 95, allowed: a number over 0, up to 1"},
		{"memory_warn", func(c *Config) { c.Memory.Warn = 0.96 }, "up to memory_act (0.95)"},
		{"cache_type_k", func(c *Config) { c.Memory.CacheTypeK = "q6_K" }, `got "q6_K", allowed: f32, f16, bf16, q8_0`},
		{"cache_type_v", func(c *Config) { c.Memory.CacheTypeV = "" }, `got "", allowed: f32`},
		{"kv_layout", func(c *Config) { c.Memory.KVLayout = "stream" }, `got "stream", allowed: auto, streams, unified`},
		{"swap_gb", func(c *Config) { c.Memory.SwapGB = -1 }, "got -1, allowed: a number from 0 to"},
		{"swap_gb", func(c *Config) { c.Memory.SwapGB = math.NaN() }, "got NaN"},
		{"model", func(c *Config) { c.Engine.Model = []string{"name="} }, `got "name=", allowed: PATH, NAME=PATH, hf://`},
		{"hf_endpoint", func(c *Config) { c.Hub.Endpoint = "hub.example" }, `got "hub.example", allowed: an http or https address`},
		{"hf_endpoint", func(c *Config) { c.Hub.Endpoint = "https://me:secret@hub.example" }, `got "(hidden)@hub.example"`},
		{"hf_endpoint", func(c *Config) { c.Hub.Endpoint = "https://hub.example/?a=b" }, "without user and question mark"},
		{"hf_token", func(c *Config) { c.Hub.Token = "secret\nsecret" }, "got (hidden), allowed: a token without blanks"},
		{"device", func(c *Config) { c.Engine.Device = "cuda:" }, "auto, cpu, cuda, cuda:N"},
		{"threads", func(c *Config) { c.Engine.Threads = -1 }, "got -1"},
		{"context_size", func(c *Config) { c.Engine.ContextSize = -1 }, "got -1"},
		{"batch_size", func(c *Config) { c.Engine.BatchSize = 0 }, "1 to 65536"},
		{"server", func(c *Config) { c.NATS.Server = "" }, `got ""`},
		{"server", func(c *Config) { c.NATS.Server = "nats://a,http://b" }, `got "http://b"`},
		{"server", func(c *Config) { c.NATS.Server = "a:99999" }, `got "a:99999"`},
		{"server", func(c *Config) { c.NATS.Server = "ftp://me:secret@b" }, `got "(hidden)@b"`},
		{"tlskey", func(c *Config) { c.NATS.TLSCert = "c" }, "the key file"},
		{"tlscert", func(c *Config) { c.NATS.TLSKey = "k" }, "the certificate file"},
		{"user", func(c *Config) { c.NATS.Password = "secret" }, "the user of the password"},
		{"log_level", func(c *Config) { c.Log.Level = "loud" }, `got "loud", allowed: debug, info, warn, error`},
		{"log_format", func(c *Config) { c.Log.Format = "xml" }, "auto, console, json"},
		{"output", func(c *Config) { c.Submit.Output = "" }, "standard output"},
		{"max_tokens", func(c *Config) { c.Submit.MaxTokens = -1 }, "got -1"},
		{"seed", func(c *Config) { c.Submit.Seed = &seed }, "from 0 to 4294967294"},
		{"temperature", func(c *Config) { c.Submit.Temperature = &hot }, "from 0 to 2"},
		{"priority", func(c *Config) { c.Submit.Priority = "urgent" }, "high, normal, low"},
		{"results_ttl", func(c *Config) { c.NATS.ResultsTTL = "7d" }, "from 1m on"},
		{"weight", func(c *Config) { c.Submit.Weight = 0 }, "got 0, allowed: 1 to 10000"},
		{"max_in_flight", func(c *Config) { c.Submit.MaxInFlight = -1 }, "or 0 (no bound)"},
		{"deadline", func(c *Config) { c.Submit.Deadline = "tomorrow" }, "such as 90m or 24h"},
		{"deadline", func(c *Config) { c.Submit.Deadline = "10ms" }, "from 1s on"},
		{"selection_threshold", func(c *Config) { c.Parallel.SelectionThreshold = new(0.0) }, "got 0, allowed: a number from 0.0001 to 1"},
		{"selection_threshold", func(c *Config) { c.Parallel.SelectionThreshold = new(math.NaN()) }, "got NaN"},
		{"mix", func(c *Config) { c.Parallel.Mix = "mean" }, `got "mean", allowed: weighted, top`},
		{"min_steps", func(c *Config) { c.Parallel.MinSteps = -1 }, "got -1, allowed: 0 or more"},
		{"final_threshold", func(c *Config) { c.Parallel.FinalThreshold = 1.1 }, "got 1.1, allowed: a number from 0.0001"},
		{"bezier_p1", func(c *Config) { c.Parallel.BezierP1 = -0.1 }, "got -0.1, allowed: a number from 0 to 1"},
		{"bezier_p2", func(c *Config) { c.Parallel.BezierP2 = 2 }, "got 2"},
		{"relu_activation_point", func(c *Config) { c.Parallel.ReLUActivationPoint = 1.5 }, "got 1.5"},
		{"attention_threshold", func(c *Config) { c.Parallel.AttentionThreshold = math.NaN() }, "got NaN"},
		{"removal_window", func(c *Config) { c.Parallel.RemovalWindow = 0 }, "got 0, allowed: 1 to 64"},
		{"listen", func(c *Config) { c.Submit.Listen = "4222" }, "HOST:PORT"},
		{"listen", func(c *Config) { c.Submit.Listen = "localhost:0" }, "1 to 65535"},
	}
	for _, tt := range tests {
		c, err := Load(nil, nil)
		require.NoError(t, err)
		tt.spoil(c)
		err = c.Validate()
		var fault *ValueError
		require.ErrorAs(t, err, &fault, tt.key)
		require.Equal(t, tt.key, fault.Key)
		require.ErrorContains(t, err, tt.key+": ")
		require.ErrorContains(t, err, tt.says)
		require.NotContains(t, err.Error(), "secret")
		require.NotContains(t, err.Error(), "\n", "one fault, one message")
		require.Contains(t, fault.Hint(), tt.key)
	}
}

func TestValidateAccepts(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--device=cpu"},
		{"--device=cuda"},
		{"--device=cuda:0"},
		{"--device=GPU-8a56a4bc-e184-a047-2620-be19fdf913d5"},
		{"--device=MIG-8a56a4bc-e184-a047-2620-be19fdf913d5"},
		{"--server=localhost"},
		{"--server=localhost:4222, tls://user:pass@nats.example.com:4443"},
		{"--server=nats://[::1]:4222"},
		{"--hf-endpoint=https://hub.example/mirror", "--hf-token=hf_abc"},
		{"--hf-endpoint=http://127.0.0.1:8080"},
		{"--listen=:4222"},
		{"--listen=[::1]:4222"},
		{"--memory-warn=1", "--memory-act=1"},
		{"--cache-type-k=q8_0", "--cache-type-v=iq4_nl", "--swap-gb=0", "--layer-stats"},
		{"--tlscert=c", "--tlskey=k"},
		{"--user=token"},
	} {
		_, err := load(t, args, nil)
		require.NoError(t, err, args)
	}
}
