package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// proxy stands between everybody and the server, so that connections can be cut.
type proxy struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	until time.Time         // nobody gets through before; guarded by mu
	open  map[net.Conn]bool // guarded by mu
}

func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	p := &proxy{listener: l, to: to, open: map[net.Conn]bool{}}
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil || !p.keep(in, out) {
			in.Close()
			if out != nil {
				out.Close()
			}
			continue
		}
		p.running.Go(func() { p.pass(in, out) })
		p.running.Go(func() { p.pass(out, in) })
	}
}

// keep notes a pair of connections, unless they are cut now.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.until) {
		return false
	}
	for _, c := range conns {
		p.open[c] = true
	}
	return true
}

func (p *proxy) pass(from, to net.Conn) {
	_, _ = io.Copy(to, from) // it ends when either is closed
	p.mu.Lock()
	delete(p.open, from)
	delete(p.open, to)
	p.mu.Unlock()
	from.Close()
	to.Close()
}

// cut closes all connections, and lets nobody through for a while.
func (p *proxy) cut(d time.Duration) {
	p.mu.Lock()
	p.until = time.Now().Add(d)
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
}

func (p *proxy) close() error {
	err := p.listener.Close()
	p.cut(0)
	p.running.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the proxy: %w", err)
	}
	return nil
}
