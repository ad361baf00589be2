package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"tempo/api"
)

const (
	chunkJobs  = 1000    // the server's limit of an atomic batch
	chunkBytes = 2 << 20 // a chunk must get through a slow line within tryTimeout
	// headerRoom is what a message needs beside its payload: the headers of an
	// atomic batch, and the reply subject.
	headerRoom = 512
)

// Published counts what became of jobs.
type Published struct {
	New   int // queued now
	Known int // queued before, or done already
}

// errKnown says that the server knows a subject or an id of a chunk already, and
// has stored nothing of it.
var errKnown = errors.New("a job of the chunk is known")

// Publisher queues jobs durably, in atomic chunks, in their order. A job that is
// queued already, or that has a result, is known: it is counted, and not queued
// again. So a submit that was cut off can be repeated whole. A Publisher belongs to
// one goroutine.
type Publisher struct {
	c     *Client
	count Published
	known map[string]map[string]bool // by batch: tokens of its jobs that are queued or done
	chunk []message
	bytes int // of chunk

	checked time.Time // when there was room last
}

// checkEvery is how often it is looked whether there is room for more jobs.
const checkEvery = time.Second

// NewPublisher makes a publisher.
func (c *Client) NewPublisher() *Publisher {
	return &Publisher{c: c, known: map[string]map[string]bool{}}
}

// Known reports whether a job is queued already, or has a result.
func (p *Publisher) Known(ctx context.Context, job api.Job) (bool, error) {
	known, ok := p.known[job.Batch]
	if !ok {
		var err error
		if known, err = p.c.knownJobs(ctx, job.Batch); err != nil {
			return false, err
		}
		p.known[job.Batch] = known
	}
	return known[Token(job.ID)], nil
}

// Add takes a job, unless it is known. It is queued when Flush has returned. One that is too
// large for a message becomes a blob. The error is a *[TooLargeError] if it is larger than that may
// be; then the others can go on. Any other error is final, and what was queued until then stays.
func (p *Publisher) Add(ctx context.Context, job api.Job) error {
	known, err := p.Known(ctx, job)
	if err != nil {
		return err
	}
	if known {
		p.count.Known++
		return nil
	}
	m, err := p.c.newMessage(ctx, job)
	if err != nil {
		return err
	}
	if len(p.chunk) == chunkJobs || p.bytes+m.size() > chunkBytes {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	p.chunk = append(p.chunk, m)
	p.bytes += m.size()
	return nil
}

// Flush queues what was taken, and returns the counts so far.
func (p *Publisher) Flush(ctx context.Context) (Published, error) {
	err := p.flush(ctx)
	return p.count, err
}

// PublishJobs queues jobs with a [Publisher]. It ends at the first error, of jobs
// or of Add; what was counted until then is queued.
func (c *Client) PublishJobs(ctx context.Context, jobs iter.Seq2[api.Job, error]) (Published, error) {
	p := c.NewPublisher()
	for job, err := range jobs {
		if err != nil {
			return p.count, fmt.Errorf("read jobs: %w", err)
		}
		if err := p.Add(ctx, job); err != nil {
			return p.count, err
		}
	}
	return p.Flush(ctx)
}

// message is a job as it is sent.
type message struct {
	job     api.Job
	subject string
	data    []byte
	blob    string // of the whole job, "" = data is all
}

// mostBlob is the most bytes that a job may have.
const mostBlob = 64 << 20

// newMessage makes the message of a job.
func (c *Client) newMessage(ctx context.Context, job api.Job) (message, error) {
	data, err := json.Marshal(job)
	if err != nil {
		return message{}, fmt.Errorf("encode job %s: %w", job.ID, err)
	}
	m := message{job: job, subject: jobSubject(job), data: data}
	if m.size() > int(c.nc.MaxPayload()) {
		err = c.detach(ctx, &m)
	}
	return m, err
}

// detach makes a blob of a message's data.
func (c *Client) detach(ctx context.Context, m *message) error {
	if len(m.data) > mostBlob {
		return &TooLargeError{Line: m.job.Line, Size: len(m.data), Max: mostBlob}
	}
	m.blob = jobBlob(m.job.Batch, m.job.ID)
	if err := c.putBlob(ctx, m.blob, m.data); err != nil {
		return err
	}
	named := m.job // enough to answer for it without its body
	named.Body = nil
	data, err := json.Marshal(named)
	if err != nil {
		return fmt.Errorf("encode job %s: %w", m.job.ID, err)
	}
	m.data = data
	return nil
}

// msg is the message as the client library has it.
func (m message) msg() *nats.Msg {
	msg := nats.NewMsg(m.subject)
	msg.Data = m.data
	if m.blob != "" {
		msg.Header.Set(headerBlob, m.blob)
	}
	return msg
}

// id is what the server tells repeated messages by.
func (m message) id() string { return Token(m.job.Batch) + "." + Token(m.job.ID) }

// size is what the server counts of the message, at most.
func (m message) size() int { return len(m.data) + 2*len(m.subject) + headerRoom }

// flush sends the chunk as a whole, or message by message if one of it is known.
func (p *Publisher) flush(ctx context.Context) error {
	if len(p.chunk) == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(p.checked) >= checkEvery {
		if err := errors.Join(p.c.checkRoom(ctx), p.c.checkOpen(ctx, p.chunk[0].job.Batch)); err != nil {
			return err
		}
		p.checked = now
	}
	asked := false // a try may have succeeded without an answer
	err := p.c.retry(ctx, "publish jobs", func(ctx context.Context) error {
		err := p.c.publishChunk(ctx, p.chunk)
		if c := code(err); c == codeStoreFailed || c == codeBatchDuplicate || errors.Is(err, errKnown) {
			return &finalError{errKnown}
		}
		asked = asked || err != nil
		return err
	})
	switch {
	case err == nil:
		p.count.New += len(p.chunk)
	case !errors.Is(err, errKnown):
		return err
	default:
		if err := p.oneByOne(ctx, asked); err != nil {
			return err
		}
	}
	p.chunk, p.bytes = p.chunk[:0], 0
	return nil
}

// oneByOne sends the messages of the chunk that are not known. If mine, the known
// ones are taken for those of an earlier try.
func (p *Publisher) oneByOne(ctx context.Context, mine bool) error {
	for _, m := range p.chunk {
		isNew, err := p.c.publishJob(ctx, m)
		if err != nil {
			return err
		}
		if isNew || mine {
			p.count.New++
		} else {
			p.count.Known++
		}
	}
	return nil
}

// publishChunk is one try to store all messages or none.
func (c *Client) publishChunk(ctx context.Context, chunk []message) error {
	msgs := make([]*nats.Msg, len(chunk))
	for i, m := range chunk {
		msgs[i] = m.msg()
		msgs[i].Header.Set(jetstream.MsgIDHeader, m.id())
	}
	if len(msgs) == 1 {
		ack, err := c.js.PublishMsg(ctx, msgs[0])
		if err == nil && ack.Duplicate {
			return errKnown
		}
		return err //nolint:wrapcheck // retry wraps it
	}
	_, err := jetstreamext.PublishMsgBatch(ctx, c.js, msgs)
	return err //nolint:wrapcheck // retry wraps it
}

// publishJob queues one job unless it is queued or done. It sends no id: the
// server remembers ids also of jobs that were removed since, and the subject and
// the result tell everything.
func (c *Client) publishJob(ctx context.Context, m message) (isNew bool, err error) {
	asked := false // a try may have succeeded without an answer
	err = c.retry(ctx, "publish job "+m.job.ID, func(ctx context.Context) error {
		done, err := c.has(ctx, streamResults, resultSubject(m.job.Batch, m.job.ID))
		if err != nil {
			return err
		}
		if done {
			isNew = asked
			return nil
		}
		_, err = c.js.PublishMsg(ctx, m.msg())
		if code(err) == codeStoreFailed {
			queued, hasErr := c.has(ctx, streamJobs, m.subject)
			if hasErr != nil {
				return hasErr
			}
			if queued {
				isNew = asked
				return nil
			}
			return err //nolint:wrapcheck // retry wraps it; the stream is full
		}
		isNew = err == nil
		asked = asked || err != nil
		return err //nolint:wrapcheck // retry wraps it
	})
	return isNew, err
}

// knownJobs returns the tokens of the jobs of a batch that are queued or have a
// result. It looks at JOBS first: what has left it by then has its result.
func (c *Client) knownJobs(ctx context.Context, batch string) (map[string]bool, error) {
	known := map[string]bool{}
	for _, p := range []struct{ stream, filter string }{
		{streamJobs, jobsOfBatch(batch)}, {streamResults, resultsOf(batch)},
	} {
		n, err := c.count(ctx, p.stream, p.filter)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		subjects, err := c.subjects(ctx, p.stream, p.filter)
		if err != nil {
			return nil, err
		}
		for s := range subjects {
			known[lastToken(s)] = true
		}
	}
	return known, nil
}

// subjects lists the subjects of a stream that match filter; up to a million take
// some seconds.
func (c *Client) subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	var found map[string]uint64
	err := c.retry(ctx, "list "+filter, func(tryCtx context.Context) error {
		s, err := c.stream(tryCtx, stream)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute) // many pages
		defer cancel()
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err != nil {
			return err //nolint:wrapcheck // retry wraps it
		}
		found = info.State.Subjects
		return nil
	})
	return found, err
}
