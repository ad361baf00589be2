package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"
)

const (
	bareTakers  = 8
	bareFetch   = 100
	barePublish = 1000 // messages of an atomic batch
)

// bare is what a worker would be without Tempo. Its streams are set as Tempo's
// are, so that the same promises cost the same.
type bare struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	jobs    jetstream.Stream
	results jetstream.Stream
	count   int
	runs    int // so far
}

func startBare(ctx context.Context, url string, count int) (*bare, error) {
	nc, err := nats.Connect(url, nats.Name("bare"))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	b := &bare{nc: nc, count: count}
	if err := b.open(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return b, nil
}

func (b *bare) open(ctx context.Context) (err error) {
	if b.js, err = jetstream.New(b.nc); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	once := jetstream.StreamConfig{
		Storage: jetstream.FileStorage, MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		AllowDirect: true,
	}
	jobs, results := once, once
	jobs.Name, jobs.Subjects, jobs.Retention, jobs.AllowAtomicPublish = "BARE_JOBS", []string{"bare.jobs.>"}, jetstream.WorkQueuePolicy, true
	results.Name, results.Subjects = "BARE_RESULTS", []string{"bare.results.>"}
	if b.jobs, err = b.js.CreateStream(ctx, jobs); err != nil {
		return fmt.Errorf("create stream: %w", err)
	}
	if b.results, err = b.js.CreateStream(ctx, results); err != nil {
		return fmt.Errorf("create stream: %w", err)
	}
	return nil
}

func (b *bare) close() { b.nc.Close() }

// run queues messages, takes and answers them in a few loops, and reads the
// answers.
func (b *bare) run(ctx context.Context) (float64, error) {
	b.runs++
	name := fmt.Sprintf("run-%d", b.runs)
	consumer, err := b.jobs.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: name, FilterSubject: "bare.jobs." + name + ".>", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1,
	})
	if err != nil {
		return 0, fmt.Errorf("create consumer: %w", err)
	}
	started := time.Now()
	var answered atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.publish(ctx, name) })
	for range bareTakers {
		group.Go(func() error {
			for answered.Load() < int64(b.count) {
				if err := b.answer(ctx, consumer, name, &answered); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error { return b.read(ctx, name) })
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(started)
	// The group's context is done.
	return float64(b.count) / took.Seconds(), b.clear(context.WithoutCancel(ctx), name)
}

// publish queues the messages in atomic batches.
func (b *bare) publish(ctx context.Context, name string) error {
	data := bytes.Repeat([]byte("a"), jobBytes)
	for first := 0; first < b.count; first += barePublish {
		msgs := make([]*nats.Msg, 0, barePublish)
		for i := first; i < min(first+barePublish, b.count); i++ {
			m := nats.NewMsg(fmt.Sprintf("bare.jobs.%s.%d", name, i))
			m.Data = data
			msgs = append(msgs, m)
		}
		if _, err := jetstreamext.PublishMsgBatch(ctx, b.js, msgs); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// answer takes some messages and answers them.
func (b *bare) answer(ctx context.Context, consumer jetstream.Consumer, name string, answered *atomic.Int64) error {
	batch, err := consumer.Fetch(bareFetch, jetstream.FetchMaxWait(20*time.Millisecond))
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	for m := range batch.Messages() {
		job := m.Subject()[len("bare.jobs."):]
		if _, err := b.js.Publish(ctx, "bare.results."+job, m.Data()); err != nil {
			return fmt.Errorf("publish result: %w", err)
		}
		if err := m.DoubleAck(ctx); err != nil {
			return fmt.Errorf("ack: %w", err)
		}
		answered.Add(1)
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
		return fmt.Errorf("fetch: %w", err)
	}
	return nil
}

// read reads all answers.
func (b *bare) read(ctx context.Context, name string) error {
	consumer, err := b.results.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: "bare.results." + name + ".>", AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true,
	})
	if err != nil {
		return fmt.Errorf("create consumer: %w", err)
	}
	for left := b.count; left > 0; {
		batch, err := consumer.Fetch(min(left, bareFetch), jetstream.FetchContext(ctx))
		if err != nil {
			return fmt.Errorf("read results: %w", err)
		}
		for range batch.Messages() {
			left--
		}
		if err := batch.Error(); err != nil {
			return fmt.Errorf("read results: %w", err)
		}
	}
	return nil
}

// clear removes what a run has left.
func (b *bare) clear(ctx context.Context, name string) error {
	if err := b.jobs.DeleteConsumer(ctx, name); err != nil {
		return fmt.Errorf("delete consumer: %w", err)
	}
	if err := b.results.Purge(ctx, jetstream.WithPurgeSubject("bare.results."+name+".>")); err != nil {
		return fmt.Errorf("purge results: %w", err)
	}
	return nil
}
