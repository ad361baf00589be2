package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// What is larger than the server takes in one message stands in the object store BLOBS; the
// message has its name in this header, and of its body only what names it.
const headerBlob = "Tempo-Blob"

// jobBlob is the name of a job's blob: the same for each who sends it.
func jobBlob(batch, job string) string { return "job." + Token(batch) + "." + Token(job) }

// resultBlob is a new name for a result's blob. Another worker's must not change it.
func resultBlob(batch, job string) string {
	return "result." + Token(batch) + "." + Token(job) + "." + nuid.Next()
}

// blobs opens the object store.
func (c *Client) blobs(ctx context.Context) (jetstream.ObjectStore, error) {
	c.mu.Lock()
	o := c.objects
	c.mu.Unlock()
	if o != nil {
		return o, nil
	}
	o, err := c.js.ObjectStore(ctx, bucketBlobs)
	if err != nil {
		return nil, fmt.Errorf("open object store %s: %w", bucketBlobs, err)
	}
	c.mu.Lock()
	c.objects = o
	c.mu.Unlock()
	return o, nil
}

// putBlob stores a blob.
func (c *Client) putBlob(ctx context.Context, name string, data []byte) error {
	return c.retry(ctx, "store blob "+name, func(ctx context.Context) error {
		o, err := c.blobs(ctx)
		if err != nil {
			return err
		}
		_, err = o.PutBytes(ctx, name, data)
		return err //nolint:wrapcheck // retry wraps it
	})
}

// mostPayload is the most bytes that a message may have beside its headers.
func (c *Client) mostPayload() int { return int(c.nc.MaxPayload()) - headerRoom }

// fit makes a blob of what a message says, if it is too large for one, and puts instead there.
func (c *Client) fit(ctx context.Context, m *nats.Msg, blob string, instead []byte) error {
	if len(m.Data) <= c.mostPayload() {
		return nil
	}
	if err := c.putBlob(ctx, blob, m.Data); err != nil {
		return err
	}
	m.Header.Set(headerBlob, blob)
	m.Data = instead
	return nil
}

// body is what a message says: its data, or the blob that it names. The error is final if there
// is no such blob any more.
func (c *Client) body(ctx context.Context, data []byte, header nats.Header) (body []byte, err error) {
	name := header.Get(headerBlob)
	if name == "" {
		return data, nil
	}
	err = c.retry(ctx, "read blob "+name, func(ctx context.Context) error {
		o, err := c.blobs(ctx)
		if err != nil {
			return err
		}
		body, err = o.GetBytes(ctx, name)
		return err //nolint:wrapcheck // retry wraps it
	})
	return body, err
}

// dropBlob removes a blob, if it is there. One that is left goes with its age.
func (c *Client) dropBlob(ctx context.Context, name string) error {
	return c.retry(ctx, "remove blob "+name, func(ctx context.Context) error {
		o, err := c.blobs(ctx)
		if err != nil {
			return err
		}
		if err := o.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
			return err //nolint:wrapcheck // retry wraps it
		}
		return nil
	})
}

// dropJobBlobs removes those of jobs that are queued.
func (c *Client) dropJobBlobs(ctx context.Context, filter string) error {
	return c.eachQueued(ctx, filter, func(list []queued) error {
		for _, q := range list {
			if q.blob == "" {
				continue
			}
			if err := c.dropBlob(ctx, q.blob); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropBlobs removes those that messages of a stream name. It is not for JOBS, which no other
// consumer may read.
func (c *Client) dropBlobs(ctx context.Context, stream, filter string) error {
	var names []string
	err := c.retry(ctx, "list the blobs of "+filter, func(context.Context) error {
		ctx, cancel := c.bound(ctx, longTimeout)
		defer cancel()
		names = nil
		return c.headers(ctx, stream, filter, 1, func(m jetstream.Msg, _ uint64) {
			if name := m.Headers().Get(headerBlob); name != "" {
				names = append(names, name)
			}
		})
	})
	for _, name := range names {
		if err == nil {
			err = c.dropBlob(ctx, name)
		}
	}
	return err
}
