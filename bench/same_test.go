package main

import (
	"encoding/json"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tempo/api"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

// asked makes the first n questions for a small model.
func asked(t *testing.T, a *arena, n int) *questions {
	t.Helper()
	q, err := readQuestions(a.libDir, a.model, n, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.close()) })
	return q
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	q := asked(t, small(t, 1), 0)
	require.Len(t, q.names, 100)
	chats := 0
	for i, body := range q.bodies {
		require.NotEmpty(t, q.prompts[i], q.names[i])
		require.Equal(t, sameOut, body.MaxTokens, q.names[i])
		if body.URL == api.ChatCompletions {
			chats++
		}
	}
	require.Greater(t, chats, 40)
	require.Greater(t, 100-chats, 30)
	require.Equal(t, q.names[:7], asked(t, small(t, 1), 7).names)

	jobs := q.reproducible()
	for i, job := range jobs {
		require.True(t, job.Job.Reproducible)
		require.Equal(t, i%2 == 1, job.Job.Sampling.Seed != nil)
	}
	all := beside(jobs)
	require.Len(t, all, 125)
	require.Equal(t, jobs, all[:100])
	require.Equal(t, jobs[4].Job.Prompt, all[101].Job.Prompt)
	require.False(t, all[101].Job.Reproducible)
}

// logs are log probabilities of some tokens.
func logs(pieces ...string) (list []infer.TokenLogprobs) {
	for i, p := range pieces {
		l := infer.TokenLogprob{Piece: []byte(p), Logprob: -float32(i) / 8}
		second := infer.TokenLogprob{Piece: []byte("second"), Logprob: l.Logprob - 0.5}
		list = append(list, infer.TokenLogprobs{TokenLogprob: l, Top: []infer.TokenLogprob{l, second}})
	}
	return list
}

func generated(pieces ...string) *infer.Output {
	return &infer.Output{Choices: []infer.Choice{{
		Text: strings.Join(pieces, ""), Tokens: len(pieces), FinishReason: "length", Logprobs: logs(pieces...),
	}}}
}

func TestDifferentTokens(t *testing.T) {
	t.Parallel()
	want := answer{tokens: []string{"a", "b"}}
	require.Empty(t, differentTokens(want, answerOf(generated("a", "b"))))
	require.Equal(t, `token 1 is "c" instead of "b", the likeliest two are "c" and "second", their log probabilities 0.500 apart`,
		differentTokens(want, answerOf(generated("a", "c"))))
	require.Equal(t, `token 1 is the end instead of "b"`, differentTokens(want, answer{tokens: []string{"a"}}))
	require.Contains(t, differentTokens(want, answerOf(generated("a", "b", "c"))), `token 2 is "c" instead of the end`)
	require.NotEmpty(t, differentTokens(want, answer{tokens: want.tokens, ended: true}))
}

func TestDifferentBits(t *testing.T) {
	t.Parallel()
	want := func() *infer.Output { return generated("a", "b") }
	require.Empty(t, differentBits(want(), want()))
	next := func(f *float32) { *f = math.Nextafter32(*f, 1) }
	for name, change := range map[string]func(*infer.Choice){
		"token":          func(c *infer.Choice) { c.Logprobs[1].Piece = []byte("c") },
		"length":         func(c *infer.Choice) { c.Logprobs = c.Logprobs[:1] },
		"end":            func(c *infer.Choice) { c.FinishReason = "stop" },
		"text":           func(c *infer.Choice) { c.Text = "ac" },
		"number":         func(c *infer.Choice) { c.Tokens = 3 },
		"probability":    func(c *infer.Choice) { next(&c.Logprobs[1].Logprob) },
		"likeliest":      func(c *infer.Choice) { next(&c.Logprobs[1].Top[0].Logprob) },
		"second":         func(c *infer.Choice) { next(&c.Logprobs[1].Top[1].Logprob) },
		"second's token": func(c *infer.Choice) { c.Logprobs[1].Top[1].Piece = nil },
		"no second":      func(c *infer.Choice) { c.Logprobs[1].Top = c.Logprobs[1].Top[:1] },
		"sign of zero":   func(c *infer.Choice) { c.Logprobs[0].Logprob = float32(math.Copysign(0, 1)) },
	} {
		other := want()
		other.Choices[0].Logprobs[0].Logprob = float32(math.Copysign(0, -1))
		same := want()
		same.Choices[0].Logprobs[0].Logprob = float32(math.Copysign(0, -1))
		change(&other.Choices[0])
		require.NotEmpty(t, differentBits(same, other), name)
	}
}

// llama-server is asked for tokens with tokens, and its answer is taken only if it is one.
func TestGreedyAnswerOfTheServer(t *testing.T) {
	t.Parallel()
	a := small(t, 1)
	s := &same{arena: a, questions: asked(t, a, 1)}
	end := s.vocab.EndTokens()[0]
	said := map[string]any{"tokens": []int32{300, 301, end}, "tokens_evaluated": 3, "stop_type": "eos", "truncated": false}
	var body map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err == nil && r.URL.Path == "/completion" {
			err = json.Unmarshal(content, &body)
		}
		if err != nil || said == nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(said)
	}))
	defer server.Close()
	l := newLoad(&http.Transport{}, server.URL, 1, map[string]any{"cache_prompt": false})
	got, err := s.complete(t.Context(), l, []int32{5, 6, 7})
	require.NoError(t, err)
	pieces := []string{string(s.vocab.Piece(300)), string(s.vocab.Piece(301))}
	require.Equal(t, answer{tokens: pieces, ended: true}, got)
	require.Equal(t, map[string]any{
		"prompt": []any{5.0, 6.0, 7.0}, "n_predict": float64(sameOut), "temperature": 0.0, "return_tokens": true, "cache_prompt": false,
	}, body)

	said["stop_type"], said["tokens"] = "limit", []int32{300, 301}
	got, err = s.complete(t.Context(), l, []int32{5, 6, 7})
	require.NoError(t, err)
	require.Equal(t, answer{tokens: pieces}, got)
	for name, change := range map[string]map[string]any{
		"not whole":   {"stop_type": "word"},
		"llama-serve": {"tokens_evaluated": 2},
		"it is not":   {"truncated": true},
		"is not":      {"tokens": []int32{}},
	} {
		broken := map[string]any{}
		maps.Copy(broken, said)
		maps.Copy(broken, change)
		content, err := json.Marshal(broken)
		require.NoError(t, err)
		_, err = s.readAnswer(content, 3)
		require.ErrorContains(t, err, name)
	}
	said = nil
	_, err = s.complete(t.Context(), l, []int32{5, 6, 7})
	require.ErrorContains(t, err, "status 500")
}

// All of it but the server, with few jobs. Not parallel: llama.cpp's threads would be in
// each other's way.
func TestSameOnASmallModel(t *testing.T) {
	a := small(t, 1)
	tiny := gguf.Tiny()
	tiny.Vocab, tiny.Context, tiny.Type = 8192, 8192, gguf.Q8_0
	a.model = filepath.Join(t.TempDir(), "tiny.gguf")
	require.NoError(t, gguf.WriteFile(a.model, tiny))
	s := &same{arena: a, questions: asked(t, a, 6)}
	require.NoError(t, s.seededAnswers(t.Context()))
	require.NoError(t, s.reproducibleAnswers(t.Context()))
	require.NoError(t, s.cost(t.Context()))
	var names []string
	for _, r := range s.rows {
		names = append(names, r.name)
		if r.AtLeast > 0 && r.Against == "bound" && strings.HasPrefix(r.name, "reproducible/") {
			require.Equal(t, "prompts of 6", r.Unit, r.name)
			require.InDelta(t, 6, r.Ours, 0, r.name)
			require.InDelta(t, 1, r.Ratio, 0, r.name)
		}
	}
	require.Equal(t, []string{
		"seed/alone-twice", "reproducible/1-at-once", "reproducible/8-at-once", "reproducible/32-at-once", "reproducible/other-pool", "cost/16-at-once",
	}, names)
	require.Positive(t, s.rows[5].Ratio)
}

func TestCountOfTheSame(t *testing.T) {
	t.Parallel()
	var shown strings.Builder
	s := &same{
		arena:     &arena{options: options{out: &shown, model: "/models/m.gguf"}, threads: 2},
		questions: &questions{names: []string{"a", "b", "c", "d"}, shortest: 3, slot: sameOut + 9},
	}
	s.count(bound("x", "some answers"), func(i int) string { return []string{"", "it is longer", "", ""}[i] })
	require.Equal(t, "x: 1 of 4 are different\n  b: it is longer\n", shown.String())
	require.Equal(t, row{
		name: "x", Work: "some answers; m.gguf on the CPU with 2 threads, 3 to 9 tokens in and up to 64 out", Against: "bound",
		Unit: "prompts of 4", Ours: 3, Theirs: 4, Ratio: 0.75, AtLeast: 1, Runs: 1,
	}, s.rows[0])
}

// A server that cannot be started is an error with what it said.
func TestSameWithABrokenServer(t *testing.T) {
	a := small(t, 1)
	program := filepath.Join(t.TempDir(), "llama-server")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho no such model >&2\nexit 1\n"), 0o755))
	a.peers, a.jobs = &peers{server: program}, 1
	rows, err := a.same(t.Context())
	require.Empty(t, rows)
	require.ErrorContains(t, err, "greedy: ")
	require.ErrorContains(t, err, "no such model")
	require.Equal(t, infertest.LibDir(t), a.libDir)
}
