package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"tempo/api"
	"tempo/internal/batchfile"
	"tempo/internal/config"
	"tempo/internal/gguf"
	"tempo/internal/infer"
	"tempo/internal/infer/chat"
	"tempo/internal/infer/llama"
)

// The prompts of same are a batch file, so that they can be sent in other ways, too.
//
//go:embed same.jsonl
var sameFile []byte

const sameOut = 64 // tokens of an answer, at most

// questions are prompts, and what a model makes of them.
type questions struct {
	vocab    *llama.Model // without its weights
	names    []string
	bodies   []*api.Request
	prompts  [][]llama.Token
	shortest int // prompt, in tokens
	slot     int // KV tokens of the longest with its answer
	batch    int // that a worker has if it is told nothing
}

// readQuestions reads the first n prompts, 0 = all.
func readQuestions(libDir, model string, n int, log *zap.Logger) (q *questions, err error) {
	if _, err := gguf.ReadHeader(model); err != nil { // llama.cpp ends the process on some damaged files
		return nil, err
	}
	lib, err := llama.Load(libDir, log)
	if err != nil {
		return nil, err
	}
	c, err := config.Load(nil, nil)
	if err != nil {
		return nil, err
	}
	q = &questions{batch: c.Engine.BatchSize, shortest: math.MaxInt}
	if q.vocab, err = lib.OpenModel(model, llama.ModelOptions{GPU: -1, DryRun: true}); err != nil {
		return nil, err
	}
	if err := q.read(n); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return q, nil
}

func (q *questions) close() error { return q.vocab.Close() }

func (q *questions) read(n int) error {
	source := q.vocab.ChatTemplate()
	if source == "" {
		source = chat.ChatML
	}
	bos, eos := q.vocab.SpecialText()
	template, err := chat.New(source, bos, eos)
	if err != nil {
		return err
	}
	lines := batchfile.NewReader("same.jsonl", bytes.NewReader(sameFile), batchfile.Options{DefaultModel: servedName, MaxTokens: sameOut})
	for n == 0 || len(q.names) < n {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := q.add(line, template); err != nil {
			return fmt.Errorf("read %s: %w", line.CustomID, err)
		}
	}
	return nil
}

// add adds a line, whose prompt becomes tokens as the engine's does.
func (q *questions) add(line batchfile.Line, template *chat.Template) error {
	body, err := api.ParseRequest(line.URL, line.Body)
	if err != nil {
		return err
	}
	text := body.Prompt
	if body.URL == api.ChatCompletions {
		if text, err = template.Render(body.Messages, body.Tools); err != nil {
			return err
		}
	}
	prompt, err := q.vocab.Tokenize(text)
	if err != nil {
		return err
	}
	body.Logprobs, body.TopLogprobs = true, 2 // they tell the tokens
	q.names, q.bodies, q.prompts = append(q.names, line.CustomID), append(q.bodies, body), append(q.prompts, prompt)
	q.shortest, q.slot = min(q.shortest, len(prompt)), max(q.slot, len(prompt)+sameOut)
	return nil
}

// with makes a job of each question, changed in some way.
func (q *questions) with(change func(i int, job *api.Request)) []*infer.Request {
	jobs := make([]*infer.Request, len(q.bodies))
	for i, body := range q.bodies {
		job := *body
		change(i, &job)
		jobs[i] = &infer.Request{Job: &job}
	}
	return jobs
}

func (q *questions) greedy() []*infer.Request {
	return q.with(func(_ int, job *api.Request) { job.Sampling = greedy() })
}

// seeded are sampled, each with a seed of its own.
func (q *questions) seeded() []*infer.Request {
	return q.with(func(i int, job *api.Request) { job.Sampling = sampledWith(i) })
}

func sampledWith(seed int) api.Sampling {
	s := uint32(seed)
	return api.Sampling{Temperature: 0.9, TopP: 0.95, RepeatPenalty: 1, Seed: &s}
}

// reproducible are greedy and sampled in turn.
func (q *questions) reproducible() []*infer.Request {
	return q.with(func(i int, job *api.Request) {
		job.Reproducible, job.Sampling = true, greedy()
		if i%2 == 1 {
			job.Sampling = sampledWith(i)
		}
	})
}

// beside adds a copy of every fourth job that is not reproducible.
func beside(jobs []*infer.Request) []*infer.Request {
	all := slices.Clone(jobs)
	for i := 0; i < len(jobs); i += 4 {
		other := *jobs[i].Job
		other.Reproducible = false
		all = append(all, &infer.Request{Job: &other})
	}
	return all
}

// ask has the engine answer the jobs in an order, so many at once. The answers stand in
// the order of the jobs.
func (d *direct) ask(ctx context.Context, jobs []*infer.Request, order []int, atOnce int) ([]*infer.Output, error) {
	found := make([]*infer.Output, len(jobs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, i := range order {
		group.Go(func() (err error) {
			request := *jobs[i]
			request.ID, request.Seed, request.Lease = fmt.Sprint(i), uint32(i), &plenty{}
			found[i], err = d.engine.Generate(ctx, request)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return found, nil
}

// inOrder are the numbers below n.
func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// answer is what is compared where nothing is promised but the tokens.
type answer struct {
	tokens []string              // their bytes, without the one that ended the answer
	ended  bool                  // by the model, not for its length
	logs   []infer.TokenLogprobs // nil = not known
}

func answerOf(out *infer.Output) answer {
	c := out.Choices[0]
	a := answer{ended: c.FinishReason == "stop", logs: c.Logprobs}
	for _, l := range c.Logprobs {
		a.tokens = append(a.tokens, string(l.Piece))
	}
	return a
}

// differentTokens says where an answer differs from the one that is wanted, and how near
// the two likeliest tokens are to each other there; "" if it does not.
func differentTokens(want, got answer) string {
	at := 0
	for at < min(len(want.tokens), len(got.tokens)) && want.tokens[at] == got.tokens[at] {
		at++
	}
	if at == len(want.tokens) && at == len(got.tokens) && want.ended == got.ended {
		return ""
	}
	text := fmt.Sprintf("token %d is %s instead of %s", at, got.token(at), want.token(at))
	for _, a := range []answer{got, want} {
		if at < len(a.logs) && len(a.logs[at].Top) > 1 {
			top := a.logs[at].Top
			return text + fmt.Sprintf(", the likeliest two are %q and %q, their log probabilities %.3f apart", top[0].Piece, top[1].Piece, top[0].Logprob-top[1].Logprob)
		}
	}
	return text
}

func (a answer) token(i int) string {
	if i < len(a.tokens) {
		return fmt.Sprintf("%q", a.tokens[i])
	}
	return "the end"
}

// differentBits says how an answer differs in anything from the one that is wanted; ""
// if it does not.
func differentBits(want, got *infer.Output) string {
	if diff := differentTokens(answerOf(want), answerOf(got)); diff != "" {
		return diff
	}
	a, b := want.Choices[0], got.Choices[0]
	if a.Text != b.Text || a.Tokens != b.Tokens {
		return fmt.Sprintf("%d tokens are %q instead of %d that are %q", b.Tokens, b.Text, a.Tokens, a.Text)
	}
	for i := range a.Logprobs {
		x, y := a.Logprobs[i], b.Logprobs[i]
		if !sameBits(x.TokenLogprob, y.TokenLogprob) || !slices.EqualFunc(x.Top, y.Top, sameBits) {
			return fmt.Sprintf("token %d has the log probabilities %v instead of %v", i, y, x)
		}
	}
	return ""
}

func sameBits(a, b infer.TokenLogprob) bool {
	return bytes.Equal(a.Piece, b.Piece) && math.Float32bits(a.Logprob) == math.Float32bits(b.Logprob)
}

// askServer has a llama-server answer the questions, greedily, one at a time.
func (s *same) askServer(ctx context.Context, extra map[string]any) (found []answer, err error) {
	server, err := s.startServer(ctx, os.Getpid(), 1, s.slot+1, nil, extra) // one more: it ends an answer before the last cell
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	if err := server.peer.resume(); err != nil {
		return nil, err
	}
	for i, prompt := range s.prompts {
		a, err := s.complete(ctx, server.load, prompt)
		if err != nil {
			return nil, fmt.Errorf("llama-server, %s: %w", s.names[i], err)
		}
		found = append(found, a)
	}
	return found, nil
}

// complete asks llama-server's own endpoint for the likeliest tokens after a prompt.
func (s *same) complete(ctx context.Context, l *load, prompt []llama.Token) (a answer, err error) {
	body, err := l.post(ctx, "/completion", map[string]any{"prompt": prompt, "n_predict": sameOut, "temperature": 0, "return_tokens": true})
	if err != nil {
		return a, err
	}
	return s.readAnswer(body, len(prompt))
}

// readAnswer makes an answer of the tokens that llama-server generated after a prompt of
// so many.
func (q *questions) readAnswer(body []byte, prompt int) (a answer, err error) {
	var said struct {
		Tokens    []llama.Token
		Evaluated int    `json:"tokens_evaluated"`
		Stop      string `json:"stop_type"`
		Truncated bool
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return a, fmt.Errorf("read an answer: %w: %s", err, body)
	}
	a.ended = said.Stop == "eos"
	n := len(said.Tokens)
	switch {
	case n == 0, !a.ended && said.Stop != "limit", said.Truncated:
		return a, fmt.Errorf("read an answer: it is not whole: %s", body)
	case said.Evaluated != prompt:
		return a, fmt.Errorf("llama-server counts %d tokens in the prompt, it has %d", said.Evaluated, prompt)
	case a.ended:
		n--
	}
	for _, t := range said.Tokens[:n] {
		a.tokens = append(a.tokens, string(q.vocab.Piece(t)))
	}
	return a, nil
}
