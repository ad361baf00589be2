package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"tempo/internal/budget"
	"tempo/internal/queue"
)

const (
	// greetLimit is how long a server may take to say what it is.
	greetLimit = 2 * time.Second
	// claimsLimit bounds the question for claims: without JetStream it would be
	// asked again and again.
	claimsLimit = 3 * time.Second
)

// nats connects to the queue and reads the claims. It creates nothing.
func (e *examination) nats(ctx context.Context) {
	n := &e.report.NATS
	n.Server, n.Claims = redact(e.opts.Queue.URL), []Claim{}
	if e.opts.Local {
		n.Check = skipped("--local runs the queue in the command")
		return
	}
	client, err := queue.Connect(ctx, e.opts.Queue, nil)
	if err != nil {
		n.Check = fail(err)
		return
	}
	defer client.Close()
	n.Check = Check{Status: OK}
	greeting, err := greet(ctx, e.opts.Queue.URL)
	if err != nil {
		n.Note = fmt.Sprintf("the server's version is not known: %v", err)
	}
	n.Version, n.JetStream = greeting.Version, greeting.JetStream
	if err == nil && !greeting.JetStream {
		n.Check = fail(&queue.NoJetStreamError{Err: errors.New("the server runs without it")})
		return
	}
	if e.memoryID == "" {
		n.Note = "claims are not checked: no device is chosen"
		return
	}
	asking, cancel := context.WithTimeout(ctx, claimsLimit)
	defer cancel()
	e.others, err = client.Claims(asking, e.memoryID)
	var unreadable *queue.ClaimsError
	switch {
	case err == nil:
		n.JetStream = true
		for _, c := range e.others {
			n.Claims = append(n.Claims, Claim{Worker: c.Worker, Model: c.Model, Promised: budget.Bytes(c.Bytes), Held: budget.Bytes(c.Held)})
		}
	case errors.As(err, &unreadable):
		n.Check = fail(err)
	case asking.Err() != nil:
		n.Check = fail(&queue.NoJetStreamError{Err: err})
	default: // a server on which no worker and no submit has been
		n.Note = "Tempo's streams are not there yet; the first worker makes them"
		e.log.Debug("the claims on the device could not be read: " + err.Error())
	}
}

// greeting is what a NATS server says of itself to whoever connects.
type greeting struct {
	Version   string `json:"version"`
	JetStream bool   `json:"jetstream"`
}

// greet reads the greeting of the first of the servers that answers.
func greet(ctx context.Context, urls string) (g greeting, err error) {
	for s := range strings.SplitSeq(urls, ",") {
		if g, err = greetOne(ctx, strings.TrimSpace(s)); err == nil {
			return g, nil
		}
	}
	return g, err
}

func greetOne(ctx context.Context, server string) (g greeting, err error) {
	if !strings.Contains(server, "://") {
		server = "nats://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return g, fmt.Errorf("read the server's address: %w", err)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "4222")
	}
	ctx, cancel := context.WithTimeout(ctx, greetLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return g, err //nolint:wrapcheck // names the address
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return g, fmt.Errorf("read the server's greeting: %w", err)
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return g, fmt.Errorf("read the server's greeting: %w", err)
	}
	text, ok := strings.CutPrefix(line, "INFO ")
	if !ok {
		return g, errors.New("the server does not greet like NATS (is TLS or a websocket first?)")
	}
	if err := json.Unmarshal([]byte(text), &g); err != nil {
		return g, fmt.Errorf("read the server's greeting: %w", err)
	}
	return g, nil
}

// redact takes the passwords out of a list of URLs.
func redact(urls string) string {
	list := strings.Split(urls, ",")
	for i, s := range list {
		if u, err := url.Parse(strings.TrimSpace(s)); err == nil {
			list[i] = u.Redacted()
		}
	}
	return strings.Join(list, ",")
}
