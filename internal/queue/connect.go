package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	defaultConnectTimeout = 5 * time.Second
	drainLimit            = 5 * time.Second
	// pingInterval bounds how long a dead connection goes unnoticed (two pings).
	// It is short beside the AckWait of a delivery.
	pingInterval = 5 * time.Second
)

// Options say how to reach the server; the fields are the nats tool's settings.
type Options struct {
	URL      string // servers, separated by commas; "" = nats://127.0.0.1:4222
	Creds    string // file with credentials
	User     string // a token if there is no Password
	Password string
	NKey     string // file with a seed
	TLSCert  string // file
	TLSKey   string // file
	TLSCA    string // file
	Name     string // of this connection, as the server lists it
	// ConnectTimeout bounds the first connection to each server; 0 = 5 s.
	ConnectTimeout time.Duration
}

// Client is a connection to the queue. All methods may be called by any number
// of goroutines; Close must be called once they are done with it.
type Client struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	log    *zap.Logger
	closed chan struct{} // closed by the connection's closed handler

	mu      sync.Mutex
	streams map[string]jetstream.Stream   // opened so far; guarded by mu
	buckets map[string]jetstream.KeyValue // opened so far; guarded by mu
	objects jetstream.ObjectStore         // BLOBS, nil before it is needed; guarded by mu
	signs   map[string]sign               // of claims made so far, by claimant; guarded by mu
	lost    chan struct{}                 // closed and replaced when the connection is lost; guarded by mu
}

// Connect connects to a server. If none answers now it returns a *[ConnectError];
// once connected, it reconnects for ever, with backoff up to 5 s. The context
// bounds the first connection only. A nil log is silent.
func Connect(ctx context.Context, o Options, log *zap.Logger) (*Client, error) {
	if o.URL == "" {
		o.URL = nats.DefaultURL
	}
	opts, err := o.settings()
	if err != nil {
		return nil, &ConnectError{URL: redact(o.URL), Err: err}
	}
	return connect(ctx, o.URL, opts, log)
}

// ConnectEmbedded connects to the server in this process, without a socket. A
// nil log is silent.
func ConnectEmbedded(ctx context.Context, e *Embedded, log *zap.Logger) (*Client, error) {
	return connect(ctx, "", []nats.Option{nats.InProcessServer(e.server), nats.Name("tempo")}, log)
}

// ServerVersion is the version of the server to which the client is connected now,
// "" while it is not.
func (c *Client) ServerVersion() string { return c.nc.ConnectedServerVersion() }

// CheckJetStream asks the server for JetStream, and creates nothing. It returns a
// *[NoJetStreamError] if the account has none.
func (c *Client) CheckJetStream(ctx context.Context) error {
	err := c.retry(ctx, "look for JetStream", c.checkJetStream)
	if missing, ok := errors.AsType[*NoJetStreamError](err); ok {
		return missing
	}
	return err
}

// Close sends what is on its way and closes the connection; it takes at most a
// few seconds, then it drops the rest. Calls in progress fail.
func (c *Client) Close() {
	if err := c.nc.Drain(); err == nil {
		select {
		case <-c.closed:
		case <-time.After(drainLimit):
			c.log.Warn("connection is closed before everything was sent")
		}
	}
	c.nc.Close()
	<-c.closed
}

func connect(ctx context.Context, urls string, opts []nats.Option, log *zap.Logger) (*Client, error) {
	if log == nil {
		log = zap.NewNop()
	}
	c := &Client{
		log:     log.Named("queue"),
		closed:  make(chan struct{}),
		streams: map[string]jetstream.Stream{},
		buckets: map[string]jetstream.KeyValue{},
		signs:   map[string]sign{},
		lost:    make(chan struct{}),
	}
	type outcome struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		nc, err := nats.Connect(urls, append(opts, c.handlers()...)...)
		done <- outcome{nc, err}
	}()
	var out outcome
	select {
	case out = <-done:
	case <-ctx.Done():
		go func() { // nats.Connect takes no context; it ends by its own timeout
			if late := <-done; late.err == nil {
				late.nc.Close()
			}
		}()
		return nil, fmt.Errorf("connect to NATS at %s: %w", redact(urls), context.Cause(ctx))
	}
	if out.err != nil {
		return nil, &ConnectError{URL: redact(urls), Err: out.err}
	}
	c.nc = out.nc
	js, err := jetstream.New(c.nc)
	if err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	c.js = js
	return c, nil
}

// settings turns the options into the client library's.
func (o Options) settings() ([]nats.Option, error) {
	timeout := o.ConnectTimeout
	if timeout == 0 {
		timeout = defaultConnectTimeout
	}
	opts := []nats.Option{nats.Name(o.Name), nats.Timeout(timeout)}
	if o.Creds != "" {
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	switch {
	case o.Password != "":
		opts = append(opts, nats.UserInfo(o.User, o.Password))
	case o.User != "":
		opts = append(opts, nats.Token(o.User))
	}
	if o.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return nil, fmt.Errorf("read nkey %s: %w", o.NKey, err)
		}
		opts = append(opts, nkey)
	}
	if o.TLSCert != "" || o.TLSKey != "" {
		opts = append(opts, nats.ClientCert(o.TLSCert, o.TLSKey))
	}
	if o.TLSCA != "" {
		opts = append(opts, nats.RootCAs(o.TLSCA))
	}
	return opts, nil
}

// handlers are the settings that every connection has.
func (c *Client) handlers() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(func(attempts int) time.Duration { return backoff(attempts, 100*time.Millisecond, 5*time.Second) }),
		// Nothing is kept for later while disconnected: what was not sent is tried
		// again by whoever wanted it, and an old pull must not take jobs for nobody.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.DrainTimeout(drainLimit),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			c.endTries()
			if !nc.IsClosed() && err != nil {
				c.log.Warn("connection to NATS is lost, trying to reconnect", zap.Error(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.log.Info("connected to NATS again", zap.String("server", nc.ConnectedUrlRedacted()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			var subject string
			if sub != nil {
				subject = sub.Subject
			}
			c.log.Warn("NATS reports an error", zap.String("subject", subject), zap.Error(err))
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
}

// backoff doubles from first to limit; up to half of it is chance, so that many
// clients do not come at once.
func backoff(attempt int, first, limit time.Duration) time.Duration {
	d := first << min(attempt, 16)
	d = min(d, limit)
	return d/2 + rand.N(d/2)
}

// redact takes the passwords out of a list of URLs.
func redact(urls string) string {
	if urls == "" {
		return "the embedded server"
	}
	list := strings.Split(urls, ",")
	for i, s := range list {
		if u, err := url.Parse(strings.TrimSpace(s)); err == nil {
			list[i] = u.Redacted()
		}
	}
	return strings.Join(list, ",")
}
