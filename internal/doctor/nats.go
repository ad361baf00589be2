package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"tempo/internal/budget"
	"tempo/internal/queue"
)

// askLimit bounds the questions: a server that does not answer would be asked again
// and again.
const askLimit = 3 * time.Second

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
	n.Check, n.Version = Check{Status: OK}, client.ServerVersion()
	if err := e.ask(ctx, client); err != nil {
		n.Check = fail(err)
		n.Hint = cmp.Or(n.Hint, "see whether the server is busy, and whether it lets this user use JetStream")
	}
}

// ask asks for JetStream and for the claims on the device.
func (e *examination) ask(ctx context.Context, client *queue.Client) error {
	n := &e.report.NATS
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if err := client.CheckJetStream(ctx); err != nil {
		return err
	}
	n.JetStream = true
	if e.memoryID == "" {
		n.Note = "claims are not checked: no device is chosen"
		return nil
	}
	others, err := client.Claims(ctx, e.memoryID)
	if errors.Is(err, queue.ErrNoStreams) {
		n.Note = "Tempo's streams are not there yet; the first worker makes them"
		return nil
	}
	if err != nil {
		return err
	}
	e.others = others
	for _, c := range others {
		n.Claims = append(n.Claims, Claim{Worker: c.Worker, Model: c.Model, Promised: budget.Bytes(c.Bytes), Held: budget.Bytes(c.Held)})
	}
	return nil
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
