package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"tempo/api"
)

// codeInvalidMessage is the code of the result of a message that cannot be read.
const codeInvalidMessage = "invalid_message"

// Results calls fn for the results of a batch, in the order in which they were
// stored and each once, from the first one on, and waits for more. A result's id is
// that of its subject ([api.ResultID]), whatever its writer says. It goes on through outages. It ends with nil when fn returns [Stop], with fn's error when
// fn fails otherwise, and with an error that wraps ctx's when ctx is done. fn is
// not called concurrently.
func (c *Client) Results(ctx context.Context, batch string, fn func(api.Result) error) error {
	err := c.follow(ctx, streamResults, resultsOf(batch), func(m jetstream.Msg) error {
		var r api.Result
		data, err := c.body(ctx, m.Data(), m.Headers())
		if err != nil && (ctx.Err() != nil || transient(err)) {
			return err
		}
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			c.log.Error("a message in RESULTS is not a result", zap.String("subject", m.Subject()), zap.Error(err))
			r = unreadable(m.Subject(), "the result in the queue cannot be read: "+err.Error())
		}
		r.ID = api.ResultID(jobOf(m.Subject()))
		return fn(r)
	})
	if errors.Is(err, Stop) {
		return nil
	}
	return err
}

// CountResults returns how many jobs of a batch have a result.
func (c *Client) CountResults(ctx context.Context, batch string) (int, error) {
	return c.count(ctx, streamResults, resultsOf(batch))
}

// Pending returns how many jobs of a batch are queued or being worked on.
func (c *Client) Pending(ctx context.Context, batch string) (int, error) {
	return c.count(ctx, streamJobs, jobsOfBatch(batch))
}

// HasResult reports whether a job has its result. A worker asks before it runs a
// job: the queue may give a job out again that is done.
func (c *Client) HasResult(ctx context.Context, batch, job string) (bool, error) {
	var has bool
	err := c.retry(ctx, "look for the result of job "+job, func(ctx context.Context) (err error) {
		has, err = c.has(ctx, streamResults, resultSubject(batch, job))
		return err
	})
	return has, err
}

// headerOutcome tells what a result is without its body: outcomeFailed, or nothing for an answer.
const (
	headerOutcome = "Tempo-Outcome"
	outcomeFailed = "failed"
)

// storeResult stores the result of a job, as a blob if it is too large for a message. It is a
// success if there is one already.
func (c *Client) storeResult(ctx context.Context, batch, job string, data []byte, ok bool) error {
	m := nats.NewMsg(resultSubject(batch, job))
	if m.Data = data; !ok {
		m.Header.Set(headerOutcome, outcomeFailed)
	}
	if err := c.fit(ctx, m, resultBlob(batch, job), fmt.Appendf(nil, `{"id":%q}`, api.ResultID(batch, job))); err != nil {
		return err
	}
	blob := m.Header.Get(headerBlob)
	var stored *jetstream.RawStreamMsg // by somebody else, or by an earlier try
	err := c.retry(ctx, "store the result of job "+job, func(ctx context.Context) error {
		_, err := c.js.PublishMsg(ctx, m)
		if code(err) == codeStoreFailed { // the subject is taken, or the stream is full
			if has, lastErr := c.last(ctx, streamResults, m.Subject); has != nil || lastErr != nil {
				stored = has
				return lastErr
			}
		}
		return err //nolint:wrapcheck // retry wraps it
	})
	if err == nil && blob != "" && stored != nil && stored.Header.Get(headerBlob) != blob {
		return c.dropBlob(ctx, blob)
	}
	return err
}

// unreadable is the result of a job whose message cannot be read; subject is
// that of the job or of its result. The job's id stands in for the custom id.
func unreadable(subject, message string) api.Result {
	batch, job := jobOf(subject)
	return api.Result{
		ID: api.ResultID(batch, job), CustomID: job,
		Error: &api.Error{Code: codeInvalidMessage, Message: message},
	}
}

// jobOf returns the batch and the id of a job from its subject or its result's.
// They are empty if the subject was not made here.
func jobOf(subject string) (batch, job string) {
	tokens := strings.Split(subject, ".")
	if want := map[string]int{"jobs": 5, "results": 3}[tokens[0]]; len(tokens) != want {
		return "", ""
	}
	batch, err := Untoken(tokens[len(tokens)-2])
	if err != nil {
		return "", ""
	}
	job, err = Untoken(tokens[len(tokens)-1])
	if err != nil {
		return "", ""
	}
	return batch, job
}
