package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"tempo/api"
)

// Delivery is a job that this worker has. It ends with Complete, GiveBack, Fail or Bury; if
// the worker vanishes before that, the job is given out again. It is owned by one
// goroutine at a time.
type Delivery struct {
	Job       api.Job
	Attempt   int       // 1 = the first; deliveries that were given back do not count
	Published time.Time // when the job was queued
	Queued    int       // jobs of its batch and model that no worker had taken yet when this one was

	t       *Taker
	life    context.Context //nolint:containedctx // its batch's: done when that has ended
	history history         // before this delivery
	msg     jetstream.Msg   // the newest of the job; guarded by t.mu
	again   int             // messages that came after the first; guarded by t.mu
}

// receive makes a delivery of a message. It is nil if this worker has the job
// already, or if the message is not a job; then it has been dealt with.
func (t *Taker) receive(ctx context.Context, m jetstream.Msg) *Delivery {
	meta, err := m.Metadata()
	if err != nil {
		t.log.Error("a message is not from a stream", zap.String("subject", m.Subject()), zap.Error(err))
		return nil
	}
	if t.adopt(m) {
		return nil
	}
	d := &Delivery{Published: meta.Timestamp, Queued: int(meta.NumPending), t: t, msg: m}
	if err := t.c.readJob(ctx, m, &d.Job); err != nil {
		if transient(err) { // it is given out again
			t.log.Warn("a job could not be read", zap.String("subject", m.Subject()), zap.Error(err))
			return nil
		}
		t.refuse(ctx, m, err)
		return nil
	}
	if meta.NumDelivered > 1 {
		d.history = t.redelivered(ctx, d.Job, int(meta.NumDelivered)-1)
	}
	d.Attempt = len(d.history.Failed) + 1
	d.open()
	return d
}

// adopt hands a message to the open delivery of its job, if there is one. The
// server gives a job out again when signs of life did not reach it in time, as in
// an outage, and may give it to the worker that is still busy with it. From then on
// the signs of life and the ack are those of the new message.
func (t *Taker) adopt(m jetstream.Msg) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.open[m.Subject()]
	if d == nil {
		return false
	}
	d.msg = m
	d.again++
	t.log.Info("a job that runs here was given out again; it goes on", zap.String("subject", m.Subject()))
	return true
}

// readJob reads a message and checks that it is the job that its subject says:
// its result goes where the job says, and is waited for where the subject says.
func (c *Client) readJob(ctx context.Context, m jetstream.Msg, into *api.Job) error {
	data, err := c.body(ctx, m.Data(), m.Headers())
	if err != nil {
		return err
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("parse the message: %w", err)
	}
	if subject := jobSubject(*into); subject != m.Subject() {
		return &finalError{fmt.Errorf("the message belongs to %s", subject)}
	}
	return nil
}

// refuse gives a message that is not a job an error result, so that nobody waits
// for one, and removes it.
func (t *Taker) refuse(ctx context.Context, m jetstream.Msg, reason error) {
	t.log.Error("a message in JOBS is not a job", zap.String("subject", m.Subject()), zap.Error(reason))
	if batch, job := jobOf(m.Subject()); job != "" {
		r := unreadable(m.Subject(), "the job in the queue cannot be read: "+reason.Error())
		data, err := json.Marshal(r)
		if err == nil {
			err = t.c.storeResult(ctx, batch, job, data, false)
		}
		if err != nil { // it is delivered again, and then tried again
			t.log.Error("its error result is not stored", zap.String("subject", m.Subject()), zap.Error(err))
			return
		}
	}
	if err := m.TermWithReason("not a job"); err != nil {
		t.log.Warn("it is not removed yet", zap.String("subject", m.Subject()), zap.Error(err))
	}
}

// Complete stores the result of the job and then takes the job off the queue. If
// the job has a result already, of another worker, that one stays and Complete
// succeeds. It tries until ctx is done; if it fails, the job is given out again
// later. With a nil r, for a job that has a result already, it only takes the job
// off the queue.
func (d *Delivery) Complete(ctx context.Context, r *api.Result) error {
	data, err := d.encode(r)
	if err != nil {
		return err
	}
	defer d.close()
	if data != nil {
		if err := d.t.c.storeResult(ctx, d.Job.Batch, d.Job.ID, data, r.OK()); err != nil {
			return err
		}
	}
	if err := d.ack(ctx); err != nil {
		return err
	}
	if msg, _ := d.message(); msg.Headers().Get(headerBlob) != "" {
		if err := d.t.c.dropBlob(ctx, msg.Headers().Get(headerBlob)); err != nil {
			return err
		}
	}
	if d.history.empty() {
		return nil
	}
	return d.t.c.purge(ctx, "KV_"+bucketAttempts, "$KV."+bucketAttempts+"."+attemptsKey(d.Job.Batch, d.Job.ID))
}

// encode turns a result into a message; nil stays nil.
func (d *Delivery) encode(r *api.Result) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the result of job %s: %w", d.Job.ID, err)
	}
	return data, nil
}

// GiveBack returns the job to the queue, for any worker after delay (≥ 0). It
// costs the job no attempt. It tries until ctx is done; if it fails, the job is
// given out again later all the same.
func (d *Delivery) GiveBack(ctx context.Context, delay time.Duration) error {
	_, again := d.message()
	return d.comeAgain(ctx, delay, func(h *history) { h.GivenBack += 1 + again })
}

// Fail is GiveBack for a job that came to no result here, and costs it an attempt. The
// next worker finds it among [Delivery.Attempts].
func (d *Delivery) Fail(ctx context.Context, a api.Attempt, delay time.Duration) error {
	_, again := d.message()
	return d.comeAgain(ctx, delay, func(h *history) {
		if slices.Contains(h.Failed, a) { // noted by a try whose answer got lost
			return
		}
		h.GivenBack += again
		h.Failed = append(h.Failed, a)
	})
}

// comeAgain notes what has become of the delivery and gives the job back.
func (d *Delivery) comeAgain(ctx context.Context, delay time.Duration, change func(*history)) error {
	defer d.close()
	// Noted first: if only the rest fails, the job comes again through AckWait.
	if err := d.t.c.changeHistory(ctx, d.Job, change); err != nil {
		return err
	}
	return d.t.c.retry(ctx, "give back job "+d.Job.ID, func(context.Context) error {
		d.close() // before it is sent: this worker may get the job again at once
		msg, _ := d.message()
		err := msg.NakWithDelay(delay)
		if err != nil {
			d.open()
		}
		return err //nolint:wrapcheck // retry wraps it
	})
}

// Begin notes that the job begins to run, if it was tried before: if the worker vanishes from here
// on, the job may be the cause.
func (d *Delivery) Begin(ctx context.Context) error {
	if d.history.Holder == nil {
		return nil
	}
	return d.t.c.changeHistory(ctx, d.Job, func(h *history) { h.Begun = true })
}

// Attempts are the tries at the job before this one that came to no result.
func (d *Delivery) Attempts() []api.Attempt { return d.history.Failed }

// Life is done when the job's batch has ended; its cause is an *[EndedError] if the batch was
// cancelled or its time is over.
func (d *Delivery) Life() context.Context {
	if d.life == nil { // no taker gave it
		return context.Background()
	}
	return d.life
}

// Refuse is Complete with the result of a job whose batch has ended.
func (d *Delivery) Refuse(ctx context.Context, ended *EndedError) error {
	return d.Complete(ctx, ended.result(d.Job))
}

// message returns the newest message of the job, and how many came before it
// without being an attempt.
func (d *Delivery) message() (m jetstream.Msg, again int) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	return d.msg, d.again
}

// open begins the signs of life.
func (d *Delivery) open() {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.t.open[d.msg.Subject()] = d
}

// close ends the signs of life.
func (d *Delivery) close() {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if subject := d.msg.Subject(); d.t.open[subject] == d {
		delete(d.t.open, subject)
	}
}

// ack takes the job off the queue, and waits until that is stored. It is a success
// if the consumer is gone: then the batch has ended, and the job went with it.
func (d *Delivery) ack(ctx context.Context) error {
	return d.t.c.retry(ctx, "acknowledge job "+d.Job.ID, func(ctx context.Context) error {
		msg, _ := d.message()
		err := d.doubleAck(ctx, msg)
		switch {
		case errors.Is(err, jetstream.ErrMsgAlreadyAckd):
			return nil
		case errors.Is(err, errEnded):
			return d.remove(ctx, msg)
		case errors.Is(err, nats.ErrNoResponders):
			_, lookErr := d.t.c.js.Consumer(ctx, streamJobs, consumerName(d.Job.Model, d.Job.Batch))
			if errors.Is(lookErr, jetstream.ErrConsumerNotFound) {
				return d.remove(ctx, msg)
			}
		}
		return err
	})
}

// remove takes the job off the queue where there is no consumer any more to tell. Only this
// message: the job may have been sent again.
func (d *Delivery) remove(ctx context.Context, msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return err //nolint:wrapcheck // retry wraps it
	}
	s, err := d.t.c.stream(ctx, streamJobs)
	if err != nil {
		return err
	}
	err = s.DeleteMsg(ctx, meta.Sequence.Stream)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) { // it is gone
		return nil
	}
	return err //nolint:wrapcheck // retry wraps it
}

// doubleAck acks a message and waits for the answer. There is none if the consumer goes
// meanwhile, as it does when the batch ends with the result of this job; then it returns
// errEnded.
func (d *Delivery) doubleAck(ctx context.Context, msg jetstream.Msg) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)() //nolint:contextcheck // the batch's life, not the caller's
	err := msg.DoubleAck(ctx)
	if err != nil && d.life.Err() != nil {
		return errEnded
	}
	return err //nolint:wrapcheck // ack wraps it
}
