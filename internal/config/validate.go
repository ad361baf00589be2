package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tempo/api"
)

// Validate checks the ranges of all settings, and that none rules out another. The
// error joins a *ValueError or a *ClashError for every fault. Load has called it.
func (c *Config) Validate() error {
	v := validator{sources: c.sources}
	c.validateWorker(&v)
	c.validateConnection(&v)
	c.validateSubmit(&v)
	c.validateParallel(&v)
	return errors.Join(v.faults...)
}

func (c *Config) validateWorker(v *validator) {
	const maxGB = 1 << 20
	const maxSequences = 256 // llama.cpp's, in one context
	const maxBatch = 1 << 16 // far beyond what is of use
	const maxThreads = 512   // llama.cpp's; it ends the process beyond
	const cacheStep = 256    // llama.cpp pads a cache to multiples of it
	m, e := c.Memory, c.Engine
	v.check("max_memory_gb", m.MaxGB, m.MaxGB > 0 && m.MaxGB <= maxGB, fmt.Sprintf("a number over 0, up to %d", maxGB))
	v.check("max_parallel_tokens", m.MaxParallelTokens, m.MaxParallelTokens >= 0 && m.MaxParallelTokens <= maxSequences, fmt.Sprintf("1 to %d, or 0 (automatic)", maxSequences))
	v.check("max_cache_tokens", m.MaxCacheTokens, m.MaxCacheTokens == 0 || m.MaxCacheTokens >= cacheStep, fmt.Sprintf("%d or more, or 0 (automatic)", cacheStep))
	act := m.Act > 0 && m.Act <= 1
	v.check("memory_act", m.Act, act, "a number over 0, up to 1")
	if act {
		v.check("memory_warn", m.Warn, m.Warn > 0 && m.Warn <= m.Act, fmt.Sprintf("a number over 0, up to memory_act (%v)", m.Act))
	}
	cacheTypes := []string{"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"} // llama.cpp's
	v.oneOf("cache_type_k", m.CacheTypeK, cacheTypes...)
	v.oneOf("cache_type_v", m.CacheTypeV, cacheTypes...)
	v.oneOf("kv_layout", m.KVLayout, "auto", "streams", "unified")
	v.check("swap_gb", m.SwapGB, m.SwapGB >= 0 && m.SwapGB <= maxGB, fmt.Sprintf("a number from 0 to %d", maxGB))
	c.validateModels(v)
	v.check("device", e.Device, isDevice(e.Device), "auto, cpu, cuda, cuda:N, or a UUID such as nvidia-smi -L shows (GPU-…)")
	v.check("threads", e.Threads, e.Threads >= 0 && e.Threads <= maxThreads, fmt.Sprintf("1 to %d, or 0 (automatic)", maxThreads))
	v.check("context_size", e.ContextSize, e.ContextSize == 0 || e.ContextSize >= 16, "0 (the model's), or 16 or more")
	v.check("batch_size", e.BatchSize, e.BatchSize >= 1 && e.BatchSize <= maxBatch, fmt.Sprintf("1 to %d", maxBatch))
	v.check("hf_endpoint", redact(c.Hub.Endpoint), c.Hub.Endpoint == "" || isHub(c.Hub.Endpoint), "an http or https address without user and question mark, such as https://HOST")
	v.check("hf_token", c.Hub.Token, !strings.ContainsFunc(c.Hub.Token, func(r rune) bool { return r <= ' ' || r > '~' }), "a token without blanks, as the hub has given it")
}

func (c *Config) validateConnection(v *validator) {
	n := c.NATS
	for server := range strings.SplitSeq(n.Server, ",") {
		server = strings.TrimSpace(server)
		v.check("server", redact(server), isServer(server), "a URL such as nats://HOST:PORT (nats, tls, ws or wss), or several with commas")
	}
	v.check("tlskey", n.TLSKey, n.TLSCert == "" || n.TLSKey != "", "the key file of tlscert")
	v.check("tlscert", n.TLSCert, n.TLSKey == "" || n.TLSCert != "", "the certificate file of tlskey")
	v.check("user", n.User, n.Password == "" || n.User != "", "the user of the password")
	_, ok := n.Kept()
	v.check("results_ttl", n.ResultsTTL, ok, "a time from 1m on, such as 24h, or nothing")
	v.oneOf("log_level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log_format", c.Log.Format, "auto", "console", "json")
}

func (c *Config) validateSubmit(v *validator) {
	s := c.Submit
	v.check("output", s.Output, s.Output != "", `a file, or "-" for standard output`)
	v.check("max_tokens", s.MaxTokens, s.MaxTokens >= 0, "1 or more, or 0 (as many as the context allows)")
	if s.Seed != nil { // the last seed means "random" to llama.cpp
		v.check("seed", *s.Seed, *s.Seed < math.MaxUint32, fmt.Sprintf("an integer from 0 to %d", uint32(math.MaxUint32-1)))
	}
	if s.Temperature != nil {
		v.check("temperature", *s.Temperature, *s.Temperature >= 0 && *s.Temperature <= 2, "a number from 0 to 2")
	}
	v.oneOf("priority", s.Priority, "high", "normal", "low")
	v.check("weight", s.Weight, s.Weight >= 1 && s.Weight <= api.MaxWeight, fmt.Sprintf("1 to %d", api.MaxWeight))
	const maxInFlight = 100_000 // what a consumer takes without a bound
	v.check("max_in_flight", s.MaxInFlight, s.MaxInFlight >= 0 && s.MaxInFlight <= maxInFlight, fmt.Sprintf("1 to %d, or 0 (no bound)", maxInFlight))
	_, ok := s.Limit()
	v.check("deadline", s.Deadline, ok, "a time from 1s on, such as 90m or 24h, or nothing")
	v.check("listen", s.Listen, s.Listen == "" || isAddress(s.Listen), "HOST:PORT with a port from 1 to 65535, or nothing")
}

// validator collects faults.
type validator struct {
	sources map[string]source
	faults  []error
}

func (v *validator) check(name string, value any, ok bool, allowed string) {
	if ok || v.sources[name].unread {
		return
	}
	v.faults = append(v.faults, fault(keyOf(name), value, allowed, v.sources[name]))
}

// from says where a setting came from, in brackets; "" if it is the default.
func (v *validator) from(name string) string {
	if from := v.sources[name].name; from != "" {
		return " (from " + from + ")"
	}
	return ""
}

func (v *validator) oneOf(name, value string, allowed ...string) {
	v.check(name, value, slices.Contains(allowed, value), strings.Join(allowed, ", "))
}

func fault(k key, value any, allowed string, from source) *ValueError {
	e := &ValueError{Key: k.name, Value: show(value), Allowed: allowed, Source: from.name}
	if k.secret {
		e.Value = "(hidden)"
	}
	return e
}

func isDevice(s string) bool {
	return regexp.MustCompile(`^(auto|cpu|cuda|cuda:[0-9]{1,3}|(GPU|MIG)-[0-9A-Za-z/-]+)$`).MatchString(s)
}

func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && isPort(port)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// isServer reports whether s is the address of a NATS server; as for nats, the
// scheme and the port may be missing.
func isServer(s string) bool {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	return err == nil && slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) &&
		u.Hostname() != "" && (u.Port() == "" || isPort(u.Port()))
}

// isHub reports whether s is the address of a hub. A user in it would be shown in
// messages: the token is for that.
func isHub(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && (u.Port() == "" || isPort(u.Port())) &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// redact hides the user, the password or the token in the address of a server.
func redact(s string) string {
	if i := strings.LastIndex(s, "@"); i >= 0 {
		return "(hidden)" + s[i:]
	}
	return s
}
