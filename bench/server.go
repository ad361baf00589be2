package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// server is a llama-server. It is paused, except while run runs.
type server struct {
	*load
	peer *peer
}

const serverStart = time.Minute // the longest that one may take to come up

// startServer starts a llama-server with atOnce slots of so many tokens each and
// the settings. engine is the process whose libraries it must have, too.
func (a *arena) startServer(ctx context.Context, engine, atOnce, slot int, settings []string, extra map[string]any) (s *server, err error) {
	dir, log, err := a.place("server-")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	socket := filepath.Join(dir, "http.sock")
	args := append(a.arguments(atOnce, slot), "--host", socket, "--parallel", strconv.Itoa(atOnce))
	cmd := exec.CommandContext(ctx, a.peers.server, append(args, settings...)...)
	cmd.Stdout, cmd.Stderr = log, log
	s = &server{}
	if s.peer, err = startPeer(cmd, a.libDir); err != nil {
		return nil, err
	}
	s.load = newLoad(&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}, "http://llama-server", atOnce, extra)
	if err = s.ready(ctx, engine); err != nil {
		return nil, errors.Join(fmt.Errorf("start llama-server: %w; its last lines:\n%s", err, lastLines(log.Name())), s.close())
	}
	return s, nil
}

// place makes a directory for a peer, with a file for its log.
func (a *arena) place(prefix string) (dir string, log *os.File, err error) {
	if dir, err = os.MkdirTemp(a.dir, prefix); err != nil {
		return "", nil, fmt.Errorf("make a directory: %w", err)
	}
	if log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return "", nil, fmt.Errorf("make a log file: %w", err)
	}
	return dir, log, nil
}

// arguments are those that all peers are given: model, cells of the cache, threads.
func (a *arena) arguments(atOnce, slot int) []string {
	threads := strconv.Itoa(a.threads)
	return []string{"--model", a.model, "--ctx-size", strconv.Itoa(atOnce * padded(slot)), "--threads", threads, "--threads-batch", threads}
}

// padded rounds tokens up to the multiple that llama.cpp has in a stream anyway.
func padded(tokens int) int {
	const step = 256
	return (tokens + step - 1) / step * step
}

// ready waits until the server answers, looks at its libraries and pauses it.
func (s *server) ready(ctx context.Context, engine int) error {
	if err := s.answers(ctx); err != nil {
		return err
	}
	return errors.Join(sameLibraries(engine, s.peer.cmd.Process.Pid), s.peer.pause())
}

// answers waits until the server answers.
func (s *server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serverStart)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for !s.healthy(ctx) {
		select {
		case <-poll.C:
		case <-s.peer.exited:
			return fmt.Errorf("it has ended: %w", s.peer.err)
		case <-ctx.Done():
			return fmt.Errorf("wait until it answers: %w", ctx.Err())
		}
	}
	return nil
}

func (s *server) healthy(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/health", nil)
	if err != nil {
		return false
	}
	response, err := s.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// run answers the jobs.
func (s *server) run(ctx context.Context, jobs []job) (t tally, err error) {
	if err := s.peer.resume(); err != nil {
		return t, err
	}
	t, err = s.load.run(ctx, jobs)
	return t, errors.Join(err, s.peer.pause())
}

func (s *server) close() error { return s.peer.end() }

// lastLines is the end of a log.
func lastLines(name string) []byte {
	content, err := os.ReadFile(name)
	if err != nil {
		return []byte(err.Error())
	}
	const most = 8
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-most):], []byte("\n"))
}
