package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tempo/api"
)

// load answers jobs over HTTP.
type load struct {
	client *http.Client
	url    string
	atOnce int            // requests in flight, as long as there are jobs
	extra  map[string]any // fields of each body beside OpenAI's
}

// newLoad makes a client that opens a connection for each request: llama-server
// drops some of the requests that come on one that was kept.
func newLoad(transport *http.Transport, url string, atOnce int, extra map[string]any) *load {
	transport.DisableKeepAlives = true
	return &load{&http.Client{Transport: transport}, url, atOnce, extra}
}

// run has all jobs answered and counts the tokens that the server has counted.
func (l *load) run(ctx context.Context, jobs []job) (tally, error) {
	var next, prompt, generated atomic.Int64
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range l.atOnce {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(jobs)); i = next.Add(1) - 1 {
				u, err := l.complete(ctx, jobs[i])
				if err != nil {
					return err
				}
				prompt.Add(int64(u.PromptTokens))
				generated.Add(int64(u.CompletionTokens))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return tally{}, err
	}
	return tally{int(prompt.Load()), int(generated.Load()), time.Since(started)}, nil
}

func (l *load) complete(ctx context.Context, j job) (u api.Usage, err error) {
	body := map[string]any{
		"prompt": j.prompt, "max_tokens": j.out, "ignore_eos": true,
		"temperature": j.sampling.Temperature, "top_p": j.sampling.TopP,
	}
	answer, err := l.post(ctx, api.Completions, body)
	if err != nil {
		return u, err
	}
	var completion struct{ Usage *api.Usage }
	if err := json.Unmarshal(answer, &completion); err != nil || completion.Usage == nil {
		return u, fmt.Errorf("read an answer: it has no usage: %s", answer)
	}
	return *completion.Usage, nil
}

// post sends fields, and those of every request, to an endpoint and returns its answer.
func (l *load) post(ctx context.Context, endpoint string, fields map[string]any) ([]byte, error) {
	maps.Copy(fields, l.extra)
	content, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+endpoint, bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := l.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("send a request: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("send a request: status %d: %s", response.StatusCode, answer)
	}
	return answer, nil
}
